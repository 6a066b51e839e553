cimport cython
from tafe.http1.head cimport HeadParser

cdef class UnfinishedHead:
    cdef HeadParser _parser
    cdef readonly bytes data
    cdef Py_ssize_t _at, _fields, _empty_lines
    cdef tuple _once

    @cython.locals(data=bytes, line=bytes, at=Py_ssize_t, newline=Py_ssize_t, end=Py_ssize_t)
    cpdef bint add(self, bytes piece) except -1
    cdef _check_length(self, Py_ssize_t line_bytes, Py_ssize_t head_bytes)
    cdef _check_field(self, bytes line)
