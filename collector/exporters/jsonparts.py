# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What lies within records, as JSON texts, compiled: events, links and exemplars as arrays of objects, and distributions.

    event         {"time", "name", "attributes"}, and "dropped_attributes_count" unless it is 0
    link          {"trace_id", "span_id", "attributes"}, and "trace_state", "flags", "dropped_attributes_count" where they are set
    exemplar      {"time", "value", "attributes"}, and "trace_id", "span_id" where they are set
    distribution  {"bounds": […], "counts": […]} of histograms
                  {"scale", "zero_count", "zero_threshold", "positive": {"offset", "counts"}, "negative"} of exponential ones
                  {"quantiles": [{"quantile", "value"}]} of summaries

Times are Unix ns, ids hexadecimal, attributes and numbers as in jsontext.py.
"""

import cython
from cython.cimports.collector.exporters.fields.elements import Repeated, as_double, next_of
from cython.cimports.collector.exporters.fields.points import (
    DOUBLE,
    EXPONENTIAL_HISTOGRAM,
    HISTOGRAM,
    INTEGER,
    Buckets,
    Exemplar,
    Point,
    Quantile,
    next_count,
    read_exemplar,
    read_quantile,
)
from cython.cimports.collector.exporters.fields.records import Event, Link, read_event, read_link
from cython.cimports.collector.exporters.jsontext import put_double, put_hex, put_object, put_string
from cython.cimports.collector.exporters.text import Text, put_byte, put_chars, put_signed, put_unsigned
from cython.cimports.collector.otlp.wire import Extent
from cython.cimports.libc.stdint import uint32_t, uint64_t
from cython.cimports.libc.string import memcpy


@cython.cfunc
@cython.exceptval(-1)
def put_events(out: cython.pointer(Text), events: Repeated) -> cython.int:
    """Append the events of a span."""
    event: Event
    content: Extent
    bracket: cython.char = 91
    while next_of(cython.address(events), cython.address(content)):
        read_event(cython.address(event), content)
        put_byte(out, bracket)
        bracket = 44
        put_chars(out, b'{"time":')
        put_unsigned(out, event.time)
        put_chars(out, b',"name":')
        put_string(out, event.name.at, event.name.length)
        _put_attributes(out, event.attributes, 0, event.dropped_attributes_count)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def put_links(out: cython.pointer(Text), links: Repeated) -> cython.int:
    """Append the links of a span."""
    link: Link
    content: Extent
    bracket: cython.char = 91
    while next_of(cython.address(links), cython.address(content)):
        read_link(cython.address(link), content)
        put_byte(out, bracket)
        bracket = 44
        put_chars(out, b'{"trace_id":')
        put_hex(out, link.trace_id.at, link.trace_id.length)
        put_chars(out, b',"span_id":')
        put_hex(out, link.span_id.at, link.span_id.length)
        if link.trace_state.length:
            put_chars(out, b',"trace_state":')
            put_string(out, link.trace_state.at, link.trace_state.length)
        _put_attributes(out, link.attributes, link.flags, link.dropped_attributes_count)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def put_exemplars(out: cython.pointer(Text), exemplars: Repeated) -> cython.int:
    """Append the exemplars of a data point."""
    exemplar: Exemplar
    content: Extent
    bracket: cython.char = 91
    while next_of(cython.address(exemplars), cython.address(content)):
        read_exemplar(cython.address(exemplar), content)
        put_byte(out, bracket)
        bracket = 44
        put_chars(out, b'{"time":')
        put_unsigned(out, exemplar.time)
        put_chars(out, b',"value":')
        if exemplar.value_type == INTEGER:
            put_signed(out, exemplar.as_int)
        elif exemplar.value_type == DOUBLE:
            put_double(out, exemplar.as_double)
        else:
            put_chars(out, b"null")
        if exemplar.trace_id.length:
            put_chars(out, b',"trace_id":')
            put_hex(out, exemplar.trace_id.at, exemplar.trace_id.length)
        if exemplar.span_id.length:
            put_chars(out, b',"span_id":')
            put_hex(out, exemplar.span_id.at, exemplar.span_id.length)
        _put_attributes(out, exemplar.attributes, 0, 0)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def _put_attributes(out: cython.pointer(Text), attributes: Repeated, flags: uint32_t, dropped: uint32_t) -> cython.int:
    """Append the last members of an object, and its end."""
    put_chars(out, b',"attributes":')
    put_object(out, attributes, 0)
    if flags:
        put_chars(out, b',"flags":')
        put_unsigned(out, flags)
    if dropped:
        put_chars(out, b',"dropped_attributes_count":')
        put_unsigned(out, dropped)
    return put_byte(out, 125)


@cython.cfunc
@cython.exceptval(-1)
def put_distribution(out: cython.pointer(Text), point: cython.pointer(Point), kind: cython.int) -> cython.int:
    """Append how the values of a histogram or a summary are distributed."""
    if kind == HISTOGRAM:
        put_chars(out, b'{"bounds":')
        _put_packed(out, point.explicit_bounds, True)
        put_chars(out, b',"counts":')
        _put_packed(out, point.bucket_counts, False)
    elif kind == EXPONENTIAL_HISTOGRAM:
        put_chars(out, b'{"scale":')
        put_signed(out, point.scale)
        put_chars(out, b',"zero_count":')
        put_unsigned(out, point.zero_count)
        put_chars(out, b',"zero_threshold":')
        put_double(out, point.zero_threshold)
        put_chars(out, b',"positive":')
        _put_buckets(out, point.positive)
        put_chars(out, b',"negative":')
        _put_buckets(out, point.negative)
    else:
        put_chars(out, b'{"quantiles":')
        _put_quantiles(out, point.quantiles)
    return put_byte(out, 125)


@cython.cfunc
@cython.exceptval(-1)
def _put_packed(out: cython.pointer(Text), packed: Extent, doubles: cython.bint) -> cython.int:
    """Append an array of packed doubles or fixed64s."""
    number: uint64_t = 0
    i: cython.Py_ssize_t
    put_byte(out, 91)
    for i in range(packed.length // 8):
        if i:
            put_byte(out, 44)
        memcpy(cython.address(number), packed.at + 8 * i, 8)
        if doubles:
            put_double(out, as_double(number))
        else:
            put_unsigned(out, number)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def _put_buckets(out: cython.pointer(Text), buckets: Buckets) -> cython.int:
    number: uint64_t = 0
    first: cython.bint = True
    put_chars(out, b'{"offset":')
    put_signed(out, buckets.offset)
    put_chars(out, b',"counts":[')
    while next_count(cython.address(buckets.counts), cython.address(number)):
        if not first:
            put_byte(out, 44)
        first = False
        put_unsigned(out, number)
    return put_chars(out, b"]}")


@cython.cfunc
@cython.exceptval(-1)
def _put_quantiles(out: cython.pointer(Text), quantiles: Repeated) -> cython.int:
    quantile: Quantile
    content: Extent
    first: cython.bint = True
    put_byte(out, 91)
    while next_of(cython.address(quantiles), cython.address(content)):
        read_quantile(cython.address(quantile), content)
        put_chars(out, b'{"quantile":' if first else b',{"quantile":')
        first = False
        put_double(out, quantile.quantile)
        put_chars(out, b',"value":')
        put_double(out, quantile.value)
        put_byte(out, 125)
    return put_byte(out, 93)
