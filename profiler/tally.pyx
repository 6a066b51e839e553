"""Compiled, tally.py is this: the same names, buckets and limits."""

cimport cython
from libc.math cimport frexp, ldexp

cdef double _SHORTEST_S = 1e-9  # below is rounding error: zero
cdef double _LONGEST_S = 262144.0  # three days

# 32-bit floats have an exponent that is 126 more than frexp's, and their mantissa begins at 32/64: 126 * 32 - 32.
cdef enum:
    ZERO = 4000
    FIRST = -29 * 32 + 34 + ZERO  # the bucket of the shortest
    LAST = 19 * 32 + 32 + ZERO  # and of the longest


cdef inline int _bucket(double value) noexcept nogil:
    cdef int octave
    if value < _SHORTEST_S:
        return 0
    if value >= _LONGEST_S:
        return LAST
    cdef double part = frexp(value, &octave)
    return octave * 32 + <int>(part * 64.0) + ZERO


def bucket(double value):
    return _bucket(value)


def middle(int index):
    if index == 0:
        return 0.0
    return ldexp((index % 32 + 32.5) / 64.0, index // 32 - 126)


@cython.final
cdef class Tally:
    cdef unsigned int _zeros
    cdef unsigned int[LAST - FIRST + 1] _counts

    cpdef add(self, list values):
        cdef int index
        for value in values:
            index = _bucket(value)
            if index == 0:
                self._zeros += 1
            else:
                self._counts[index - FIRST] += 1

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
