# OTLP's values as JSON. What is promised stands in jsontext.py.

from libc.stdint cimport uint8_t

from collector.exporters.fields.elements cimport Repeated
from collector.exporters.text cimport Text
from collector.otlp.wire cimport Extent

cdef extern from "Python.h":
    char* PyOS_double_to_string(double value, char format, int precision, int flags, int* kind) except NULL

cdef int put_string(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_hex(Text* out, const uint8_t* at, Py_ssize_t length) except? -1
cdef int put_double(Text* out, double value) except? -1
cdef int put_any(Text* out, Extent message, int depth) except? -1
cdef int put_object(Text* out, Repeated pairs, int depth) except? -1
