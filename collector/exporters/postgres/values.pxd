# How fields are written. What is promised stands in values.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.exporters.text cimport Text
from collector.otlp.wire cimport Extent

cdef int put_number(Text* out, uint64_t value, int width) except? -1
cdef int put_null(Text* out) except? -1
cdef int put_int8(Text* out, uint64_t value) except? -1
cdef int put_int4(Text* out, uint32_t value) except? -1
cdef int put_int2(Text* out, uint32_t value) except? -1
cdef int put_bool(Text* out, bint value) except? -1
cdef int put_double(Text* out, bint there, double value) except? -1
cdef int put_time(Text* out, uint64_t value) except? -1
cdef int put_bytes(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_id(Text* out, const uint8_t* at, Py_ssize_t width) except? -1
cdef int put_text(Text* out, Extent text) except? -1
cdef Py_ssize_t begin_field(Text* out) except? -1
cdef void end_field(Text* out, Py_ssize_t begin) noexcept
cdef Py_ssize_t begin_json(Text* out) except? -1
cdef void end_json(Text* out, Py_ssize_t begin) noexcept
cdef bint is_irregular(const uint8_t* at, const uint8_t* end) noexcept
