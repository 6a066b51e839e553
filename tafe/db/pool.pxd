cimport cython

from tafe.db.policy cimport Policy
from tafe.db.stats cimport Tally

cdef object _TAKE, _WAIT, _REFUSE, _HAND_OVER, _KEEP, _CLOSE

cdef class _Waiting:
    cdef public double deadline_s
    cdef public object parked, connection, error
    cdef public bint left

    cpdef wake(self)

cdef class Pool:
    cdef public object name, acquire_timeout_s
    cdef public Tally tally
    cdef public object _driver, _queue, _connectors, _hub, _expiry, _retry, _look, _reason, _down_since_s
    cdef public Policy _policy
    cdef public list _idle

    @cython.locals(asked_s=double)
    cpdef acquire(self, double now_s)
    cpdef release(self, connection)
    cpdef _place(self, connection, fate)
    @cython.locals(waiting=_Waiting)
    cpdef _Waiting _next_waiting(self)
    @cython.locals(waiting=_Waiting)
    cpdef _wait(self, double deadline_s)
