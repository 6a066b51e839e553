cimport cython

cdef object _READABLE, _EXPIRED
cdef double _NEVER

cdef class Channel:
    cdef readonly object send
    cdef readonly object _hub, _recv, _switch, _thread, _timer, _waiting, _watcher
    cdef readonly bint _active
    cdef double _expires_s, _timer_due_s

    cpdef bytes receive(self, Py_ssize_t size, object timeout_s, object expires_s=*)
    cpdef close(self)
    cpdef _let_go(self, watcher, timer)
    cpdef _cancel(self, waiting)
    cpdef _on_readable(self)
    cdef _start_timer(self, double delay_s)
    @cython.locals(left_s=double)
    cpdef _on_timer(self)
