# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Records as rows of typed values, for backends with typed columns: compiled, straight out of a block.

`spans`, `logs` and `points` return columns of the rows [first, end) of a block: a dictionary of lists, each with one plain
Python value a row. No protobuf object is made. What stands around records (resource, scope, metric) is in
`containers.py`, once for each group; the column `group` says which.

    times                       int, Unix ns, up to 2**64 - 1; 0 is unknown
    trace_id, span_id, …        bytes of 16 or 8, None when absent
    attributes                  str, a JSON object (jsontext.py); "{}" when there are none
    events, links, exemplars    str, a JSON array of objects (jsonparts.py); None when there are none
    body                        str: a string as it is, any other value as JSON; None when absent
    value                       int or float of gauges and sums; None of others, and where none was recorded
    count, sum, min, max        None where the kind has none, or it was not recorded
    distribution                str, a JSON object (jsonparts.py); None of gauges and sums
    record                      bytes, the record's own message

Texts hold whatever the client sent: NUL, control characters, SQL.

The GIL is held: a thousand spans take about a millisecond, so take a block in runs of that length.
"""

import cython
from cython.cimports.collector.exporters.fields.elements import STRING_VALUE, AnyValue, Repeated, read_value
from cython.cimports.collector.exporters.fields.points import DOUBLE, HISTOGRAM, INTEGER, Point, read_point
from cython.cimports.collector.exporters.fields.records import LogRecord, Span, check_rows, read_log, read_span
from cython.cimports.collector.exporters.jsonparts import put_distribution, put_events, put_exemplars, put_links
from cython.cimports.collector.exporters.jsontext import put_any, put_object
from cython.cimports.collector.exporters.text import Text, as_str, release, take
from cython.cimports.collector.otlp.wire import Extent
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t, uint32_t
from cython.cimports.libc.string import memcmp

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
def _str(part: Extent):
    return as_str(part.at, part.length)


@cython.cfunc
def _bytes(at: _Bytes, length: cython.Py_ssize_t):
    return PyBytes_FromStringAndSize(cython.cast(cython.p_char, at), length)


@cython.cfunc
def _ids(block, name: str, first: cython.Py_ssize_t, end: cython.Py_ssize_t, width: cython.Py_ssize_t):
    """Return a column of ids as bytes; None where all are 0."""
    view: cython.const[uint8_t][::1] = block.records.column_bytes(name)
    absent: uint8_t[16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    found: list = []
    at: _Bytes
    i: cython.Py_ssize_t
    for i in range(first, end):
        at = cython.address(view[i * width])
        found.append(_bytes(at, width) if memcmp(at, cython.address(absent[0]), width) else None)
    return found


@cython.cfunc
def _attributes(out: cython.pointer(Text), attributes: Repeated):
    put_object(out, attributes, 0)
    return take(out)


def spans(block, first: int, end: int) -> dict:
    """Return the columns of a block of spans: trace_id, span_id, parent_span_id, trace_state, name, kind, start_time,
    end_time, status_code, status_message, attributes, events, links, flags, dropped_attributes_count,
    dropped_events_count, dropped_links_count, group, record."""
    check_rows(block, first, end)
    view: cython.const[uint8_t][::1] = block.payload
    starts: cython.const[uint32_t][::1] = block.column("start")
    lengths: cython.const[uint32_t][::1] = block.column("length")
    names: list = []
    trace_states: list = []
    messages: list = []
    attributes: list = []
    events: list = []
    links: list = []
    flags: list = []
    dropped_attributes: list = []
    dropped_events: list = []
    dropped_links: list = []
    records: list = []
    i: cython.Py_ssize_t
    at: _Bytes
    span: Span
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    try:
        for i in range(first, end):
            at = cython.address(view[0]) + starts[i]
            read_span(cython.address(span), at, at + lengths[i])
            names.append(_str(span.name))
            trace_states.append(_str(span.trace_state))
            messages.append(_str(span.status_message))
            attributes.append(_attributes(cython.address(out), span.attributes))
            if span.events.count:
                put_events(cython.address(out), span.events)
                events.append(take(cython.address(out)))
            else:
                events.append(None)
            if span.links.count:
                put_links(cython.address(out), span.links)
                links.append(take(cython.address(out)))
            else:
                links.append(None)
            flags.append(span.flags)
            dropped_attributes.append(span.dropped_attributes_count)
            dropped_events.append(span.dropped_events_count)
            dropped_links.append(span.dropped_links_count)
            records.append(_bytes(at, lengths[i]))
    finally:
        release(cython.address(out))
    return {
        "trace_id": _ids(block, "trace_id", first, end, 16),
        "span_id": _ids(block, "span_id", first, end, 8),
        "parent_span_id": _ids(block, "parent_span_id", first, end, 8),
        "trace_state": trace_states,
        "name": names,
        "kind": block.column("kind")[first:end].tolist(),
        "start_time": block.column("time")[first:end].tolist(),
        "end_time": block.column("end_time")[first:end].tolist(),
        "status_code": block.column("status")[first:end].tolist(),
        "status_message": messages,
        "attributes": attributes,
        "events": events,
        "links": links,
        "flags": flags,
        "dropped_attributes_count": dropped_attributes,
        "dropped_events_count": dropped_events,
        "dropped_links_count": dropped_links,
        "group": block.column("group")[first:end].tolist(),
        "record": records,
    }


def logs(block, first: int, end: int) -> dict:
    """Return the columns of a block of log records: time (the main one: see otlp/block.py), observed_time, trace_id, span_id,
    severity_number, severity_text, event_name, body, attributes, flags, dropped_attributes_count, group, record."""
    check_rows(block, first, end)
    view: cython.const[uint8_t][::1] = block.payload
    starts: cython.const[uint32_t][::1] = block.column("start")
    lengths: cython.const[uint32_t][::1] = block.column("length")
    texts: list = []
    event_names: list = []
    bodies: list = []
    attributes: list = []
    flags: list = []
    dropped_attributes: list = []
    records: list = []
    i: cython.Py_ssize_t
    at: _Bytes
    log: LogRecord
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    try:
        for i in range(first, end):
            at = cython.address(view[0]) + starts[i]
            read_log(cython.address(log), at, at + lengths[i])
            texts.append(_str(log.severity_text))
            event_names.append(_str(log.event_name))
            bodies.append(_body(cython.address(out), log.body))
            attributes.append(_attributes(cython.address(out), log.attributes))
            flags.append(log.flags)
            dropped_attributes.append(log.dropped_attributes_count)
            records.append(_bytes(at, lengths[i]))
    finally:
        release(cython.address(out))
    return {
        "time": block.column("time")[first:end].tolist(),
        "observed_time": block.column("observed_time")[first:end].tolist(),
        "trace_id": _ids(block, "trace_id", first, end, 16),
        "span_id": _ids(block, "span_id", first, end, 8),
        "severity_number": block.column("severity")[first:end].tolist(),
        "severity_text": texts,
        "event_name": event_names,
        "body": bodies,
        "attributes": attributes,
        "flags": flags,
        "dropped_attributes_count": dropped_attributes,
        "group": block.column("group")[first:end].tolist(),
        "record": records,
    }


@cython.cfunc
def _body(out: cython.pointer(Text), body: Extent):
    if not body.length:
        return None
    value: AnyValue = read_value(body)
    if value.tag == STRING_VALUE:
        return _str(value.content)
    put_any(out, body, 0)
    return take(out)


def points(block, first: int, end: int) -> dict:
    """Return the columns of a block of data points: type (otlp/block.py), time, start_time, value, count, sum, min, max,
    distribution, attributes, exemplars, flags, group, record."""
    check_rows(block, first, end)
    view: cython.const[uint8_t][::1] = block.payload
    starts: cython.const[uint32_t][::1] = block.column("start")
    lengths: cython.const[uint32_t][::1] = block.column("length")
    types: cython.const[uint8_t][::1] = block.column("type")
    values: list = []
    counts: list = []
    sums: list = []
    lows: list = []
    highs: list = []
    distributions: list = []
    attributes: list = []
    exemplars: list = []
    records: list = []
    i: cython.Py_ssize_t
    at: _Bytes
    point: Point
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    try:
        for i in range(first, end):
            at = cython.address(view[0]) + starts[i]
            read_point(cython.address(point), at, at + lengths[i], types[i])
            if point.value_type == INTEGER:
                values.append(point.as_int)
            else:
                values.append(point.as_double if point.value_type == DOUBLE else None)
            sums.append(point.sum if point.has_sum else None)
            lows.append(point.min if point.has_min else None)
            highs.append(point.max if point.has_max else None)
            if types[i] >= HISTOGRAM:
                counts.append(point.count)
                put_distribution(cython.address(out), cython.address(point), types[i])
                distributions.append(take(cython.address(out)))
            else:
                counts.append(None)
                distributions.append(None)
            attributes.append(_attributes(cython.address(out), point.attributes))
            if point.exemplars.count:
                put_exemplars(cython.address(out), point.exemplars)
                exemplars.append(take(cython.address(out)))
            else:
                exemplars.append(None)
            records.append(_bytes(at, lengths[i]))
    finally:
        release(cython.address(out))
    return {
        "type": block.column("type")[first:end].tolist(),
        "time": block.column("time")[first:end].tolist(),
        "start_time": block.column("start_time")[first:end].tolist(),
        "value": values,
        "count": counts,
        "sum": sums,
        "min": lows,
        "max": highs,
        "distribution": distributions,
        "attributes": attributes,
        "exemplars": exemplars,
        "flags": block.column("flags")[first:end].tolist(),
        "group": block.column("group")[first:end].tolist(),
        "record": records,
    }
