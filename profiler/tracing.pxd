cimport cython


@cython.final
cdef class Tracing:
    cdef object _call, _chained, _failed, _slice_began, _trace
    cdef public object tracer
    cdef public long long displaced

    cpdef bint recheck(self) except? True
    cpdef heed(self, dict waiting)
    cdef _chain(self, found)
