from tafe.shared cimport Shared

cdef class Transport:
    cdef public Shared server
    cdef public object remote_addr, remote_port, send, waits
    cdef public object _sock, _recv, _watcher, _rest
    cdef public object _buffer
    cdef public bint eof, gone, _paused
    cdef public double expires_s, queued_s

    cpdef on_readable(self)
    cpdef finish(self, exchange)
    cpdef expired(self)
    cpdef _pause(self)
    cpdef _resume(self)
    cpdef expire_in(self, double timeout_s)
    cpdef write(self, data)
    cpdef write_last(self, data, body=*)
    cpdef pause(self)
