# Spans and log records, and what stands around them. What is promised stands in records.py.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from collector.exporters.fields.elements cimport Repeated
from collector.otlp.wire cimport Extent

cdef struct Span:
    Extent trace_state
    Extent name
    Extent status_message
    uint32_t flags
    uint32_t dropped_attributes_count
    uint32_t dropped_events_count
    uint32_t dropped_links_count
    Repeated attributes
    Repeated events
    Repeated links

cdef struct Event:
    uint64_t time
    Extent name
    uint32_t dropped_attributes_count
    Repeated attributes

cdef struct Link:
    Extent trace_id
    Extent span_id
    Extent trace_state
    uint32_t flags
    uint32_t dropped_attributes_count
    Repeated attributes

cdef struct LogRecord:
    Extent severity_text
    Extent event_name
    Extent body  # an AnyValue
    uint32_t flags
    uint32_t dropped_attributes_count
    Repeated attributes

cdef struct Scope:
    Extent name
    Extent version
    uint32_t dropped_attributes_count
    Repeated attributes

cdef struct Metric:
    Extent name
    Extent description
    Extent unit

cdef int check_rows(block, Py_ssize_t first, Py_ssize_t end) except? -1
cdef void read_span(Span* span, const uint8_t* at, const uint8_t* end) noexcept nogil
cdef void read_event(Event* event, Extent message) noexcept nogil
cdef void read_link(Link* link, Extent message) noexcept nogil
cdef void read_log(LogRecord* log, const uint8_t* at, const uint8_t* end) noexcept nogil
cdef void read_scope(Scope* scope, Extent message) noexcept nogil
cdef void read_metric(Metric* metric, Extent message) noexcept nogil
