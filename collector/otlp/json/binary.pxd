# Bytes written as text. What these promise stands in binary.py.

from libc.stdint cimport uint8_t

cdef const uint8_t* read_hexadecimal(const uint8_t* at, const uint8_t* end, uint8_t** out) noexcept nogil
cdef bint read_base64(const uint8_t* at, const uint8_t* end, uint8_t** out) noexcept nogil
