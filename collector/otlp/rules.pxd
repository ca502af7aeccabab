# The rules by which records are rejected. What `judge` promises stands in rules.py.

from collector.otlp.walk cimport Scan

cdef int judge(Scan* scan, int code, int kind, int temporality) noexcept nogil
