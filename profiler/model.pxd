cimport cython


cdef class Slice


@cython.final
@cython.freelist(256)
cdef class Span:
    cdef public double _longest_s, _out_s, _running_s, queued_s, started_s, total_s
    cdef public list blamed
    cdef public bint error
    cdef public int outcome
    cdef public object request_id, route

    @cython.locals(least=tuple)
    cpdef double charge(self, Slice record, double cost_s) except? -1


@cython.final
cdef class Turn:
    cdef public double ready_s
    cdef public object since_ns


@cython.final
cdef class Slice:
    cdef public double start_s, end_s, gc_s, harm_s
    cdef public Span span
    cdef public object collected, excuse, threads, usage, turn, yielded, place
    cdef public bint polled, shared
    cdef public long long members, victims

