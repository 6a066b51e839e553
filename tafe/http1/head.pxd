cdef class HeadParser:
    cdef public object limits
    cdef public object _base
    cdef public Py_ssize_t _max_lines
    cdef public dict _targets, _fields, _names
    cpdef parse(self, data)
