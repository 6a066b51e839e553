cimport cython

cdef class HeadParser:
    cdef public object limits
    cdef public str name
    cdef object _name
    cdef Py_ssize_t _max_fields, _max_field_bytes
    cdef str _underscores
    cdef dict _base
    cdef readonly dict _targets, _fields, _names

    @cython.locals(
        lines=list, first=bytes, line=bytes, target=tuple, known=dict, environ=dict, fields=dict, field=tuple,
        asked=int, bits=int, count=Py_ssize_t
    )
    cpdef tuple parse(self, bytes head)
    cpdef tuple _read_request_line(self, bytes line)
    @cython.locals(name=bytes, raw_value=bytes, value=bytes, text=str, bits=int)
    cpdef tuple _read_field(self, bytes line)
