cimport cython

cdef class HeadParser:
    cdef public object limits
    cdef object _base
    cdef Py_ssize_t _max_lines
    cdef readonly dict _targets, _fields, _names

    @cython.locals(
        lines=list, first=bytes, line=bytes, target=tuple, fields=dict, field=tuple, asked=int, bits=int, count=Py_ssize_t
    )
    cpdef tuple parse(self, bytes data)
    cpdef tuple _read_request_line(self, bytes line)
    cpdef tuple _read_field(self, bytes line)
