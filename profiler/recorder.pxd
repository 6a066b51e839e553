cimport cython

from profiler.model cimport Span


@cython.final
cdef class RouteTimes:
    cdef public long long requests, errors
    cdef public double total_s, running_s, waiting_s, queued_s, longest_s
    cdef public dict outcomes
    cdef public object total, queued, at_once, running, longest, waiting

    @cython.locals(span=Span, waited=list, totals_s=list, queued_s=list, running_s=list, longest_s=list, waiting_s=list, at_once_s=double)
    cpdef add(self, list spans)
    cpdef end_unusually(self, Span span)


@cython.final
cdef class Recorder:
    cdef public list batch, unusual
    cdef public object requests
    cdef list _slowest
    cdef object _flight, _pushed, _handed_over, _epoch_s, _delta, _regulars, _room, _crowded_out

    @cython.locals(span=Span, by_route=dict, spans=list)
    cpdef fold(self)
    cpdef RouteTimes _times(self, route, requests)
    @cython.locals(span=Span, heap=list, least_s=double, limit_s=double, shorter_s=double)
    cpdef _keep_slowest(self, route, list spans)
