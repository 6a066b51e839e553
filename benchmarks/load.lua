-- wrk's script: which requests to send, and the figures of the run as one line of JSON for loads.py.
-- Argument 1: how many users to ask for in turn under /users/; 0 sends the URL's own path every time.
function init(args)
   local users = tonumber(args[1])
   if users == 0 then return end
   local heads, sent = {}, 0
   for id = 1, users do heads[id] = wrk.format("GET", "/users/" .. id) end
   request = function()
      sent = sent % users + 1
      return heads[sent]
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "bad_status": %d, "socket_errors": %d}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
      errors.connect + errors.read + errors.write + errors.timeout))
end
