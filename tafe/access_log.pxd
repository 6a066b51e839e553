from tafe.access_format cimport Format
from tafe.log_writer cimport LogWriter
from tafe.wsgi cimport Exchange

cdef class AccessLog:
    cdef public Format _format
    cdef public LogWriter _writer
    cdef public str _stamp
    cdef public double _stamp_ends_s
    cdef public bint _told_of_fault
    cpdef answered(self, Exchange exchange)
