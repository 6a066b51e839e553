cimport cython

cdef class GreenletPool:
    cdef object _hub, _context, _loop
    cdef list _idle
    cdef bint _inherits
    cdef readonly long long created

    cpdef dispatch(self, job)
