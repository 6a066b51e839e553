cpdef check(object value)
cpdef bint holds_decimal(object value, int depth=*) except -1
