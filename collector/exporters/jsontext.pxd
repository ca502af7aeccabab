# Texts under construction, and OTLP's values as JSON. What they promise stands in jsontext.py.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from collector.otlp.wire cimport Extent

cdef struct Text:
    uint8_t* at
    Py_ssize_t length
    Py_ssize_t room

cdef int put(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_string(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_hex(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_unsigned(Text* out, uint64_t value) except? -1
cdef int put_signed(Text* out, int64_t value) except? -1
cdef int put_double(Text* out, double value) except? -1
cdef int put_any(Text* out, const uint8_t* at, const uint8_t* end, int depth) except? -1
cdef int put_object(Text* out, const uint8_t* at, const uint8_t* end, uint32_t field, int depth) except? -1
cdef extern from "Python.h":
    char* PyOS_double_to_string(double value, char format, int precision, int flags, int* kind) except NULL

cdef int put_chars(Text* out, const char* chars) except? -1
cdef take(Text* out)
cdef closed(Text* out)
cdef Extent field_of(Extent message, uint32_t wanted)
cdef void release(Text* out) noexcept

cdef inline int put_byte(Text* out, uint8_t byte) except? -1:
    if out.length == out.room:
        return put(out, &byte, 1)
    out.at[out.length] = byte
    out.length += 1
    return 0
