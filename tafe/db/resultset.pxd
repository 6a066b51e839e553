cimport cython

cdef int _NULL, _EOF, _ERROR, _WHOLE, _END_BYTES, _MORE_RESULTS
cdef tuple _END_OF_LIST

cdef class Shape:
    cdef readonly tuple columns, decoders, description, names
    cdef readonly list fields
    cdef public bytes described_by
    cdef readonly Py_ssize_t first_row
    cdef public Py_ssize_t size, rows_at

cdef class Shapes:
    cdef readonly str encoding
    cdef readonly object use_unicode
    cdef dict _converters
    cdef public dict _by_columns, _by_first
    cdef Shape _last
    @cython.locals(shape=Shape, last=Shape, alike=list)
    cpdef Shape find(self, bytes data)

@cython.locals(first=int)
cpdef tuple length_encoded(bytes data, Py_ssize_t at)

@cython.locals(values=list, length=Py_ssize_t, start=Py_ssize_t)
cpdef tuple row(bytes data, Py_ssize_t at, Py_ssize_t end, tuple decoders)

@cython.locals(size=Py_ssize_t, length=Py_ssize_t, end=Py_ssize_t, first=int)
cpdef Py_ssize_t rows(bytes data, Py_ssize_t at, int number, tuple decoders, list into) except -1

@cython.locals(
    size=Py_ssize_t, at=Py_ssize_t, end=Py_ssize_t, length=Py_ssize_t, start=Py_ssize_t, first=int, number=int,
    found=list, columns=tuple, record=dict
)
cpdef list records(bytes data, Shape shape)
