# How values are written. What they promise stands in values.py.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from collector.exporters.jsontext cimport Text
from collector.otlp.wire cimport Extent

cdef int put_number(Text* out, uint64_t value, Py_ssize_t width) except? -1
cdef int put_time(Text* out, uint64_t value) except? -1
cdef int put_float(Text* out, double value) except? -1
cdef int put_text(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_extent(Text* out, Extent part) except? -1
cdef int put_id(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_value(Text* out, Text* scratch, const uint8_t* begin, const uint8_t* end) except? -1
cdef int64_t put_key_values(
    Text* keys, Text* values, Text* scratch, const uint8_t* at, const uint8_t* end, uint32_t field) except? -1
cdef int put_others(Text* out, const uint8_t* at, const uint8_t* end, uint32_t child) except? -1
cdef int put_kind(Text* out, uint8_t kind) except? -1
cdef int put_status(Text* out, uint8_t status) except? -1
cdef double as_double(uint64_t bits) noexcept
cdef int32_t zigzag(uint64_t value) noexcept

cdef inline Extent extent(const uint8_t* at, const uint8_t* end) noexcept:
    """Return a part of a message by its ends."""
    cdef Extent found
    found.at = at
    found.length = <uint32_t>(end - at)
    return found
