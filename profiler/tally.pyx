"""Compiled, tally.py is this: the same names, buckets and limits."""

from libc.math cimport ldexp
from libc.string cimport memcpy

from profiler.model cimport Span

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(object)

cdef double _SHORTEST_S = 1e-9  # below is rounding error: zero
cdef double _LONGEST_S = 262144.0  # three days

# The exponent of a 64-bit float has a bias of 1023, that of a 32-bit float 127: so many octaves less, of 32 buckets.
cdef enum:
    LESS = (1023 - 127) * 32


cdef inline int _bucket(double value) noexcept nogil:
    cdef unsigned long long bits
    if not value >= _SHORTEST_S:  # negative ones, and what is no number: it would be a place outside the counts
        return 0
    if value >= _LONGEST_S:
        return LAST
    memcpy(&bits, &value, sizeof(bits))
    return <int>(bits >> 47) - LESS  # five bits of the mantissa stay


def bucket(double value):
    return _bucket(value)


def middle(int index):
    if index == 0:
        return 0.0
    return ldexp((index % 32 + 32.5) / 64.0, index // 32 - 126)


cdef class Tally:
    cdef void count(self, double value) noexcept:
        cdef int index = _bucket(value)
        if index == 0:
            self._zeros += 1
        else:
            self._counts[index - FIRST] += 1

    cpdef add(self, list values):
        for value in values:
            self.count(value)

    def buckets(self):
        counts = {FIRST + i: self._counts[i] for i in range(LAST - FIRST + 1) if self._counts[i]}
        if self._zeros:
            counts[0] = self._zeros
        return counts

    def coarse(self, list edges):
        cdef int index = 0
        cdef int end
        cdef long long count = 0
        cdef long long zeros = self._zeros  # in bucket 0
        counts = []
        for edge in edges:
            if edge > 0:
                count += zeros
                zeros = 0
            end = min(max(<int>edge - FIRST, 0), LAST - FIRST + 1)
            while index < end:
                count += self._counts[index]
                index += 1
            counts.append(count)
            count = 0
        while index <= LAST - FIRST:
            count += self._counts[index]
            index += 1
        counts.append(count + zeros)
        return counts


cdef class RouteTimes:
    def __init__(self):
        self.outcomes = {}
        self.total = Tally()
        self.queued = Tally()

    cpdef bint add_at_once(self, list spans, double shorter_s) except? -1:
        cdef Span span
        cdef double total_s, running_s, queued_s
        cdef bint longer = False
        self.requests += len(spans)
        if self.at_once is None:
            self.at_once = Tally()
        for span in spans:
            total_s = span.total_s
            queued_s = span.queued_s
            running_s = total_s - queued_s
            self.total.count(total_s)
            self.total_s += total_s
            self.queued.count(queued_s)
            self.queued_s += queued_s
            self.at_once.count(running_s)
            self.running_s += running_s
            self.longest_s += running_s
            if total_s > shorter_s:
                longer = True
        return longer

    cpdef bint add_waited(self, list spans, double shorter_s) except? -1:
        cdef Span span
        cdef double total_s, waiting_s
        cdef bint longer = False
        self.requests += len(spans)
        if self.running is None:
            self.running = Tally()
            self.longest = Tally()
            self.waiting = Tally()
        for span in spans:
            total_s = span.total_s
            self.total.count(total_s)
            self.total_s += total_s
            self.queued.count(span.queued_s)
            self.queued_s += span.queued_s
            self.running.count(span._running_s)
            self.running_s += span._running_s
            self.longest.count(span._longest_s)
            self.longest_s += span._longest_s
            waiting_s = total_s - span._running_s - span.queued_s
            if waiting_s < 0.0:
                waiting_s = 0.0
            self.waiting.count(waiting_s)
            self.waiting_s += waiting_s
            if total_s > shorter_s:
                longer = True
        return longer

    cpdef end_unusually(self, Span span):
        self.errors += span.error
        self.outcomes[span.outcome] = self.outcomes.get(span.outcome, 0) + 1


cpdef spare(list spans, list into):
    cdef Span span
    for span in spans:
        if Py_REFCNT(span) == 2:  # the list's, and ours
            into.append(span)
