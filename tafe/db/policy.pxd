cdef object _TAKE, _WAIT, _REFUSE, _HAND_OVER, _KEEP, _CLOSE

cdef class Policy:
    cdef public object limits
    cdef public Py_ssize_t idle, in_use, connecting, waiters, failures
    cdef public double retry_at_s, suspect_since_s
    cdef public bint replacing, spare, opened, filled, closed

    cpdef bint refusing(self, double now_s) except -1
    cpdef object acquire(self, double now_s)
    cpdef give_up(self)
    cpdef bint must_check(self, double now_s, double last_used_s) except -1
    cpdef object release(self)
