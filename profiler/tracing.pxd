cimport cython


@cython.final
cdef class Tracing:
    cdef object _chained, _failed, _slice_began, _trace
    cdef public object tracer
    cdef public long long displaced

    cpdef recheck(self)
    cdef _chain(self, found)
