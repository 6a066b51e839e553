cimport cython
from posix.time cimport CLOCK_MONOTONIC, CLOCK_THREAD_CPUTIME_ID, clock_gettime, timespec

from profiler.model cimport Slice, Span, Turn
from profiler.tracing cimport Tracing


cdef inline long long clock_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)  # which time.perf_counter reads
    return now.tv_sec * 1_000_000_000LL + now.tv_nsec


cdef inline double clock() noexcept nogil:
    return clock_ns() * 1e-9


cdef inline double cpu_clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now)
    return now.tv_sec + now.tv_nsec * 1e-9


cdef inline Span new_span():
    return Span.__new__(Span)  # without the search for an __init__


@cython.final
cdef class Hook:
    cdef object _collector, _fold, _hub, _stalls, _woken, _recent
    cdef list _batch, _spare, _unusual, _waited
    cdef set _unsplit
    cdef Tracing _tracing
    cdef Turn _turn
    cdef dict _suspended
    cdef long long _dropped, _failures, _slices_over, _turns
    cdef double _notable_s, _idle_s, _switches
    cdef bint _asleep, _polling, _stalled
    cdef double _late_s, _look_s, _ready, _turn_s, _turn_cpu_s, _mark, _start
    cdef Span _active, _late

    @cython.locals(active=Span, back=Span, since=double)
    cpdef trace(self, event, tuple args)
    @cython.locals(span=Span, began=double, ready=double)
    cpdef Span begin(self, object route, object request_id, long long ready_ns=*)
    @cython.locals(busy_s=double)
    cpdef end(self, Span span, bint error=*, int outcome=*)
    cdef Span _further(self)
    @cython.locals(other=Span)
    cdef _end_elsewhere(self, Span span, bint error, int outcome)
    cdef _look(self, object origin, double now)
    @cython.locals(own=Span, span=Span, cost_s=double)
    cdef _notable(self, object origin, double now)
    cdef _astray(self)
    cdef _handed_on(self, object target, Span span)
    cdef Span _whose(self, object one)
    cdef Span _inherited(self, object one)
    @cython.locals(ready=double)
    cdef _long_poll(self, double now)
    @cython.locals(since=double)
    cdef _queued(self, Span span, double now)
    @cython.locals(record=Slice, harm_s=double, least_s=double)
    cdef _blame(self, Span span, double since, double until)
    cpdef before_callbacks(self)
    cpdef before_poll(self)
    cpdef after_poll(self)
    cpdef _failed(self, error)
