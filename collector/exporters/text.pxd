# Bytes under construction. What is promised stands in text.py.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.otlp.wire cimport Extent

cdef struct Text:
    uint8_t* at
    Py_ssize_t length
    Py_ssize_t room

cdef int grow(Text* out, Py_ssize_t length) except? -1
cdef int put_chars(Text* out, const char* chars) except? -1
cdef int put_unsigned(Text* out, uint64_t value) except? -1
cdef int put_signed(Text* out, int64_t value) except? -1
cdef int put_others(Text* out, Extent message, uint32_t child) except? -1
cdef as_bytes(Text* out)
cdef as_str(const uint8_t* at, Py_ssize_t length)
cdef take(Text* out)
cdef void release(Text* out) noexcept

cdef inline int put(Text* out, const uint8_t* at, Py_ssize_t length) except? -1:
    """Append bytes as they are."""
    if out.room - out.length < length:
        grow(out, length)
    if length:
        memcpy(out.at + out.length, at, length)
    out.length += length
    return 0

cdef inline int put_byte(Text* out, uint8_t byte) except? -1:
    """Append one."""
    if out.length == out.room:
        grow(out, 1)
    out.at[out.length] = byte
    out.length += 1
    return 0
