-- wrk's script: which requests to send, and the figures of the run as one line of JSON for loads.py.
-- Argument 1: a file of requests to send in turn, each as its length, a line feed and its bytes. Without it
-- the URL's own path is asked for every time.
function init(args)
   if not args[1] then return end
   local file = assert(io.open(args[1], "rb"))
   local requests, sent = {}, 0
   while true do
      local length = file:read("*n")
      if not length then break end
      file:read(1)
      requests[#requests + 1] = file:read(length)
   end
   file:close()
   local count = #requests
   request = function()
      sent = sent % count + 1
      return requests[sent]
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "bad_status": %d, "socket_errors": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
      errors.connect + errors.read + errors.write + errors.timeout))
end
