# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Spans and log records, and what stands around them. See the package."""

import cython
from cython.cimports.collector.exporters.fields.elements import field_of, none_of, one_of
from cython.cimports.collector.exporters.fields.records import Event, Link, LogRecord, Metric, Scope, Span
from cython.cimports.collector.otlp.wire import Extent, next_field
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memset

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
@cython.exceptval(-1)
def check_rows(block, first: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
    """Raise ValueError unless [first, end) are rows of a block."""
    if not 0 <= first < end <= block.count:
        raise ValueError(f"rows {first} to {end} of {block.count}")
    return 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_span(span: cython.pointer(Span), at: _Bytes, end: _Bytes) -> cython.void:
    """Read a Span."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    memset(span, 0, cython.sizeof(Span))
    none_of(cython.address(span.attributes), end, 9)
    none_of(cython.address(span.events), end, 11)
    none_of(cython.address(span.links), end, 13)
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 74:
            one_of(cython.address(span.attributes), here)
        elif tag == 42:
            span.name = part
        elif tag == 26:
            span.trace_state = part
        elif tag == 90:
            one_of(cython.address(span.events), here)
        elif tag == 106:
            one_of(cython.address(span.links), here)
        elif tag == 122:
            span.status_message = field_of(part, 2)
        elif tag == 80:
            span.dropped_attributes_count = cython.cast(uint32_t, number)
        elif tag == 96:
            span.dropped_events_count = cython.cast(uint32_t, number)
        elif tag == 112:
            span.dropped_links_count = cython.cast(uint32_t, number)
        elif tag == 133:
            span.flags = cython.cast(uint32_t, number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_event(event: cython.pointer(Event), message: Extent) -> cython.void:
    """Read an Event of a span."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    memset(event, 0, cython.sizeof(Event))
    none_of(cython.address(event.attributes), end, 3)
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 26:
            one_of(cython.address(event.attributes), here)
        elif tag == 9:
            event.time = number
        elif tag == 18:
            event.name = part
        elif tag == 32:
            event.dropped_attributes_count = cython.cast(uint32_t, number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_link(link: cython.pointer(Link), message: Extent) -> cython.void:
    """Read a Link of a span."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    memset(link, 0, cython.sizeof(Link))
    none_of(cython.address(link.attributes), end, 4)
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 34:
            one_of(cython.address(link.attributes), here)
        elif tag == 10:
            link.trace_id = part
        elif tag == 18:
            link.span_id = part
        elif tag == 26:
            link.trace_state = part
        elif tag == 40:
            link.dropped_attributes_count = cython.cast(uint32_t, number)
        elif tag == 53:
            link.flags = cython.cast(uint32_t, number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_log(log: cython.pointer(LogRecord), at: _Bytes, end: _Bytes) -> cython.void:
    """Read a LogRecord."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    memset(log, 0, cython.sizeof(LogRecord))
    none_of(cython.address(log.attributes), end, 6)
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 50:
            one_of(cython.address(log.attributes), here)
        elif tag == 42:
            log.body = part
        elif tag == 26:
            log.severity_text = part
        elif tag == 98:
            log.event_name = part
        elif tag == 56:
            log.dropped_attributes_count = cython.cast(uint32_t, number)
        elif tag == 69:
            log.flags = cython.cast(uint32_t, number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_scope(scope: cython.pointer(Scope), message: Extent) -> cython.void:
    """Read an InstrumentationScope."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    here: _Bytes
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    memset(scope, 0, cython.sizeof(Scope))
    none_of(cython.address(scope.attributes), end, 3)
    while at < end:
        here = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            scope.name = part
        elif tag == 18:
            scope.version = part
        elif tag == 26:
            one_of(cython.address(scope.attributes), here)
        elif tag == 32:
            scope.dropped_attributes_count = cython.cast(uint32_t, number)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def read_metric(metric: cython.pointer(Metric), message: Extent) -> cython.void:
    """Read what a Metric says of itself."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    memset(metric, 0, cython.sizeof(Metric))
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            metric.name = part
        elif tag == 18:
            metric.description = part
        elif tag == 26:
            metric.unit = part
