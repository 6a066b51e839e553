cdef class Tally:
    cdef public Py_ssize_t acquired, created, discarded, failed, lost, refused, retired, slow, timed_out, timeouts
    cdef public double longest_wait_s, query_s, wait_s
    cdef public list queries, waits

    cpdef query(self, double took_s)
    cpdef wait(self, double took_s)
