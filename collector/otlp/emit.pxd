# Rows of what was scanned. What the functions promise stands in emit.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.otlp.columns cimport Rows
from collector.otlp.walk cimport Scan
from collector.otlp.wire cimport Extent

cdef struct Around:            # the containers that the record at hand lies in
    uint64_t before            # bytes of the block's payload before the one that is scanned
    uint32_t group             # the row of the record's group
    Extent envelope            # ResourceSpans, ResourceLogs, ResourceMetrics
    Extent resource
    Extent service             # the string of its service.name
    Extent scope_envelope
    Extent scope
    Extent metric
    Extent name
    Extent unit
    uint64_t service_key
    uint64_t resource_key
    uint64_t name_key
    uint64_t series_key        # of all that the points of a metric have in common
    uint8_t type
    uint8_t temporality
    uint8_t monotonic

cdef void emit_group(Rows* rows, Scan* scan, Around* around, int code) noexcept nogil
cdef void emit_span(
    Rows* rows, Scan* scan, Around* around, const uint8_t* at, const uint8_t* end) noexcept nogil
cdef void emit_log(
    Rows* rows, Scan* scan, Around* around, const uint8_t* at, const uint8_t* end) noexcept nogil
cdef void emit_point(
    Rows* rows, Scan* scan, Around* around, const uint8_t* at, const uint8_t* end) noexcept nogil
