cimport cython

from profiler.model cimport Span
from profiler.tally cimport RouteTimes


@cython.final
cdef class Recorder:
    cdef public list batch, spare, unusual, waited
    cdef public set unsplit
    cdef public object requests, dropped
    cdef list _slowest
    cdef double _least_s, _least_limit_s
    cdef object _flight, _pushed, _handed_over, _epoch_s, _delta, _regulars, _room, _crowded_out, _dropped_told

    @cython.locals(span=Span)
    cpdef fold(self)
    @cython.locals(by_route=dict, spans=list, times=RouteTimes, shorter_s=double)
    cpdef _fold(self, list batch, bint at_once)
    @cython.locals(span=Span)
    cpdef _fold_unsplit(self)
    cpdef RouteTimes _times(self, route, requests)
    @cython.locals(span=Span, heap=list, limit_s=double, shorter_s=double)
    cpdef _keep_slowest(self, route, list spans)


@cython.locals(span=Span, by_route=dict, spans=list)
cdef dict _by_route(list batch)
