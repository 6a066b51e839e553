cdef class Format:
    cpdef str answered(
        self, str stamp, environ, str remote_addr, int status, long long body_bytes, double took_s, str fault)

cdef class Json(Format):
    cdef public object _trusted_peers
    cdef public dict _requests, _agents
    cdef public long long _second
    cdef public str _date

cdef class Combined(Format):
    cdef public object _trusted_peers
    cdef public dict _requests, _texts
    cdef public long long _second
    cdef public str _date
