cimport cython

from tafe.transport cimport Transport
from tafe.wsgi cimport Exchange

cdef class Connection(Transport):
    cdef public object _state, _head, _body
    cdef public Exchange exchange
    cdef public Py_ssize_t _missing

    cpdef _start_head(self, data)
    @cython.locals(asked=int)
    cpdef _begin(self, bytes head, bytes rest, object unjudged)
    cpdef _run(self, Exchange exchange)
