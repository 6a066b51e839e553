from tafe.transport cimport Transport

cdef class Exchange:
    cdef public Transport connection
    cdef public object environ
    cdef public tuple head
    cdef public object greenlet, stream
    cdef public bint plain, keep, started, http_1_0, no_body, reset, told_to_stop, overdue, _chunked, _endless
    cdef public int status
    cdef public long long _declared, body_bytes
    cdef public double begun_s
    cdef public str fault, name, request_id
    cpdef run(self)
    cpdef _fail(self, error)
    cpdef _send_result(self, result)
