# How values are written. What is promised stands in values.py.

from libc.stdint cimport int64_t, uint8_t, uint64_t

from collector.exporters.fields.elements cimport Repeated
from collector.exporters.text cimport Text
from collector.otlp.wire cimport Extent

cdef int put_number(Text* out, uint64_t value, Py_ssize_t width) except? -1
cdef int put_time(Text* out, uint64_t value) except? -1
cdef int put_float(Text* out, double value) except? -1
cdef int put_text(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_extent(Text* out, Extent part) except? -1
cdef int put_id(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_value(Text* out, Text* scratch, Extent message) except? -1
cdef int64_t put_key_values(Text* keys, Text* values, Text* scratch, Repeated pairs) except? -1
cdef int put_kind(Text* out, uint8_t kind) except? -1
cdef int put_status(Text* out, uint8_t status) except? -1
