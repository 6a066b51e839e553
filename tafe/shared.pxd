from tafe.greenlets cimport GreenletPool
from tafe.http1.head cimport HeadParser

cdef class Shared:
    cdef public object limits, hub, loop, deadlines, current_application, tell_begin, tell_end, answer_log, waiting
    cdef public object take_readable, make_environ
    cdef public HeadParser head_parser
    cdef public GreenletPool greenlets
    cdef public double idle_timeout_s, request_timeout_s
    cdef public Py_ssize_t receive_bytes, max_in_flight, in_flight, overdue, gathered_bytes
    cdef public long long request_number, refused
    cdef public str id_prefix
    cdef public bytes own_lines
    cdef public bint draining, closes_idle
