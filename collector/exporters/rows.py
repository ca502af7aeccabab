# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Records as rows of typed values, for backends with typed columns: compiled, straight out of a block.

`spans`, `logs` and `points` (points.py) return columns of the rows [first, end) of a block: a dictionary of lists, each with one plain
Python value a row. No protobuf object is made. What stands around records (resource, scope, metric) is in
`containers.py`, once for each group; the column `group` says which.

    times                       int, Unix ns, up to 2**64 - 1; 0 is unknown
    trace_id, span_id, …        bytes of 16 or 8, None when absent
    attributes                  str, a JSON object (jsontext.py); "{}" when there are none
    events, links, exemplars    str, a JSON array of objects; None when there are none
    body                        str: a string as it is, any other value as JSON; None when absent
    record                      bytes, the record's own message

Texts hold whatever the client sent: NUL, control characters, SQL.

The GIL is held: a thousand spans take about a millisecond, so take a block in runs of that length.
"""

import cython
from cython.cimports.collector.exporters.jsontext import (
    Text,
    closed,
    field_of,
    put_any,
    put_byte,
    put_chars,
    put_hex,
    put_object,
    put_string,
    put_unsigned,
    release,
    take,
)
from cython.cimports.collector.otlp.wire import Extent, next_field
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.cpython.unicode import PyUnicode_DecodeUTF8
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
def _str(part: Extent):
    if not part.length:
        return ""
    return PyUnicode_DecodeUTF8(cython.cast(cython.p_char, part.at), part.length, cython.NULL)


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
        if memcmp(at, cython.address(absent[0]), width) == 0:
            found.append(None)
        else:
            found.append(PyBytes_FromStringAndSize(cython.cast(cython.p_char, at), width))
    return found


def spans(block, first: int, end: int) -> dict:
    """Return the columns of a block of spans: trace_id, span_id, parent_span_id, trace_state, name, kind, start_time,
    end_time, status_code, status_message, attributes, events, links, flags, dropped_attributes_count,
    dropped_events_count, dropped_links_count, group, record."""
    if not 0 <= first < end <= block.count:
        raise ValueError(f"rows {first} to {end} of {block.count}")
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
    begin: _Bytes
    at: _Bytes
    behind: _Bytes
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    name: Extent
    trace_state: Extent
    message: Extent
    flag: uint64_t
    lost_attributes: uint64_t
    lost_events: uint64_t
    lost_links: uint64_t
    event: Text
    link: Text
    out: Text
    event.at = link.at = out.at = cython.NULL
    event.length = event.room = link.length = link.room = out.length = out.room = 0
    try:
        for i in range(first, end):
            begin = at = cython.address(view[0]) + starts[i]
            behind = at + lengths[i]
            name.at = trace_state.at = message.at = at
            name.length = trace_state.length = message.length = 0
            flag = lost_attributes = lost_events = lost_links = 0
            while at < behind:
                at = next_field(at, behind, cython.address(tag), cython.address(number), cython.address(part))
                if tag == 42:
                    name = part
                elif tag == 26:
                    trace_state = part
                elif tag == 90:
                    _event(cython.address(event), part)
                elif tag == 106:
                    _link(cython.address(link), part)
                elif tag == 122:
                    message = field_of(part, 2)
                elif tag == 80:
                    lost_attributes = number
                elif tag == 96:
                    lost_events = number
                elif tag == 112:
                    lost_links = number
                elif tag == 133:
                    flag = number
            names.append(_str(name))
            trace_states.append(_str(trace_state))
            messages.append(_str(message))
            put_object(cython.address(out), begin, behind, 9, 0)
            attributes.append(take(cython.address(out)))
            events.append(closed(cython.address(event)))
            links.append(closed(cython.address(link)))
            flags.append(flag)
            dropped_attributes.append(lost_attributes & 0xFFFFFFFF)
            dropped_events.append(lost_events & 0xFFFFFFFF)
            dropped_links.append(lost_links & 0xFFFFFFFF)
            records.append(PyBytes_FromStringAndSize(cython.cast(cython.p_char, begin), lengths[i]))
    finally:
        release(cython.address(out))
        release(cython.address(event))
        release(cython.address(link))
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


@cython.cfunc
@cython.exceptval(-1)
def _event(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    time: uint64_t = 0
    dropped: uint64_t = 0
    part: Extent
    name: Extent = field_of(message, 2)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 9:
            time = number
        elif tag == 32:
            dropped = number & 0xFFFFFFFF
    put_chars(out, b',{"time":' if out.length else b'[{"time":')
    put_unsigned(out, time)
    put_chars(out, b',"name":')
    put_string(out, name.at, name.length)
    put_chars(out, b',"attributes":')
    put_object(out, message.at, end, 3, 0)
    if dropped:
        put_chars(out, b',"dropped_attributes_count":')
        put_unsigned(out, dropped)
    return put_byte(out, 125)


@cython.cfunc
@cython.exceptval(-1)
def _link(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    dropped: uint64_t = 0
    flags: uint64_t = 0
    part: Extent
    trace_id: Extent = field_of(message, 1)
    span_id: Extent = field_of(message, 2)
    trace_state: Extent = field_of(message, 3)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 40:
            dropped = number & 0xFFFFFFFF
        elif tag == 53:
            flags = number
    put_chars(out, b',{"trace_id":' if out.length else b'[{"trace_id":')
    put_hex(out, trace_id.at, trace_id.length)
    put_chars(out, b',"span_id":')
    put_hex(out, span_id.at, span_id.length)
    if trace_state.length:
        put_chars(out, b',"trace_state":')
        put_string(out, trace_state.at, trace_state.length)
    put_chars(out, b',"attributes":')
    put_object(out, message.at, end, 4, 0)
    if flags:
        put_chars(out, b',"flags":')
        put_unsigned(out, flags)
    if dropped:
        put_chars(out, b',"dropped_attributes_count":')
        put_unsigned(out, dropped)
    return put_byte(out, 125)


def logs(block, first: int, end: int) -> dict:
    """Return the columns of a block of log records: time (the main one: see otlp/block.py), observed_time, trace_id, span_id,
    severity_number, severity_text, event_name, body, attributes, flags, dropped_attributes_count, group, record."""
    if not 0 <= first < end <= block.count:
        raise ValueError(f"rows {first} to {end} of {block.count}")
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
    begin: _Bytes
    at: _Bytes
    behind: _Bytes
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    text: Extent
    event_name: Extent
    body: Extent
    flag: uint64_t
    lost: uint64_t
    out: Text
    out.at = cython.NULL
    out.length = out.room = 0
    try:
        for i in range(first, end):
            begin = at = cython.address(view[0]) + starts[i]
            behind = at + lengths[i]
            text.at = event_name.at = at
            text.length = event_name.length = 0
            body.at = cython.NULL
            flag = lost = 0
            while at < behind:
                at = next_field(at, behind, cython.address(tag), cython.address(number), cython.address(part))
                if tag == 42:
                    body = part
                elif tag == 26:
                    text = part
                elif tag == 98:
                    event_name = part
                elif tag == 56:
                    lost = number
                elif tag == 69:
                    flag = number
            texts.append(_str(text))
            event_names.append(_str(event_name))
            bodies.append(_body(cython.address(out), body))
            put_object(cython.address(out), begin, behind, 6, 0)
            attributes.append(take(cython.address(out)))
            flags.append(flag)
            dropped_attributes.append(lost & 0xFFFFFFFF)
            records.append(PyBytes_FromStringAndSize(cython.cast(cython.p_char, begin), lengths[i]))
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
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    at: _Bytes = body.at
    if body.at == cython.NULL:
        return None
    while at < body.at + body.length:
        at = next_field(at, body.at + body.length, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            return _str(part)
    if not body.length:
        return None
    put_any(out, body.at, body.at + body.length, 0)
    return take(out)
