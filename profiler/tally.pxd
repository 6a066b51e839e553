cimport cython

from profiler.model cimport Span


cdef enum:
    ZERO = 4000  # see tally.pyx
    FIRST = -29 * 32 + 34 + ZERO  # the bucket of the shortest
    LAST = 19 * 32 + 32 + ZERO  # and of the longest


@cython.final
cdef class Tally:
    cdef unsigned int _zeros
    cdef unsigned int[LAST - FIRST + 1] _counts

    cdef void count(self, double value) noexcept
    cpdef add(self, list values)


@cython.final
cdef class RouteTimes:
    cdef public long long requests, errors
    cdef public double total_s, running_s, waiting_s, queued_s, longest_s
    cdef public dict outcomes
    cdef public Tally total, queued, at_once, running, longest, waiting

    cpdef bint add_at_once(self, list spans, double shorter_s) except? -1
    cpdef bint add_waited(self, list spans, double shorter_s) except? -1
    cpdef end_unusually(self, Span span)


cpdef spare(list spans, list into)
