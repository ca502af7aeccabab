# Columns under construction. What they are stands in sheet.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.exporters.clickhouse.around cimport Around
from collector.exporters.fields.elements cimport Repeated
from collector.exporters.fields.points cimport Buckets, Point
from collector.exporters.text cimport Text
from collector.otlp.wire cimport Extent

cdef class Sheet:
    cdef Text text[77]
    cdef uint64_t total[77]  # how many elements an offsets buffer has counted
    cdef readonly Py_ssize_t count
    cdef readonly bint keeps
    cdef Around around
    cdef int put_common(self, const uint8_t* record, uint32_t length, uint64_t offset) except? -1
    cdef int put_pairs(self, int to, Repeated pairs) except? -1
    cdef int put_events(self, Repeated events) except? -1
    cdef int put_links(self, Repeated links) except? -1
    cdef int put_exemplars(self, Repeated exemplars) except? -1
    cdef int put_quantiles(self, Repeated quantiles) except? -1
    cdef int put_counts(self, int to, Buckets buckets) except? -1
    cdef int put_packed(self, int to, Extent packed) except? -1
    cdef int put_distribution(self, Point* point, int kind) except? -1
    cdef int end_row(self, int to) except? -1
