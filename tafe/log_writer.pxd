cdef class LogWriter:
    cdef public object _target, _loss, _queue, _problem, _wanted, _hurry, _pool, _greenlet
    cdef public list _lines
    cdef public int _fd
    cdef public long long _held_bytes, lost, _untold
    cdef public bint _reopens, _closing
    cpdef write(self, str line)
