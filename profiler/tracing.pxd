cimport cython


@cython.final
cdef class Tracing:
    cdef object _call, _chained, _failed, _slice_began, _trace
    cdef public object tracer
    cdef public long long displaced

    cpdef recheck(self)
    cpdef heed(self, dict waiting)
    cdef _chain(self, found)
