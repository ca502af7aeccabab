# Whom a client span calls. What it promises stands in callee.py.

from libc.stdint cimport uint8_t

from collector.otlp.wire cimport Extent

cdef bint find_callee(const uint8_t* at, const uint8_t* end, Extent* found) noexcept nogil
