# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Records as rows of typed values, for backends with typed columns: compiled, straight out of a block.

`spans`, `logs` and `points` return columns of the rows [first, end) of a block: a dictionary of lists, each with one plain
Python value a row. No protobuf object is made. What stands around records (resource, scope, metric) is in
`containers.py`, once for each group; the column `group` says which.

    times                       int, Unix ns, up to 2**64 - 1; 0 is unknown
    trace_id, span_id, …        bytes of 16 or 8, None when absent
    attributes                  str, a JSON object (jsontext.py); "{}" when there are none
    events, links, exemplars    str, a JSON array of objects; None when there are none
    body                        str: a string as it is, any other value as JSON; None when absent
    value                       int or float of gauges and sums; None of others, and where none was recorded
    distribution                str, JSON of buckets or quantiles; None of gauges and sums
    record                      bytes, the record's own message

Texts hold whatever the client sent: NUL, control characters, SQL.

The GIL is held: a thousand spans take about a millisecond, so take a block in runs of that length.
"""

import cython
from cython.cimports.collector.exporters.jsontext import (
    Text,
    put,
    put_any,
    put_byte,
    put_double,
    put_hex,
    put_object,
    put_signed,
    put_string,
    put_unsigned,
    release,
    take,
)
from cython.cimports.collector.otlp.wire import Extent, next_field, read_varint
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.cpython.unicode import PyUnicode_DecodeUTF8
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy, strlen

from collector.otlp.block import EXPONENTIAL_HISTOGRAM, HISTOGRAM, SUMMARY

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))


@cython.cfunc
def _str(part: Extent):
    if not part.length:
        return ""
    return PyUnicode_DecodeUTF8(cython.cast(cython.p_char, part.at), part.length, cython.NULL)


@cython.cfunc
@cython.exceptval(-1)
def _label(out: cython.pointer(Text), chars: cython.p_const_char) -> cython.int:
    """Append what stands between values, as it is."""
    return put(out, cython.cast(_Bytes, chars), strlen(chars))


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


@cython.cfunc
def _numbers(block, name: str, first, end):
    return block.column(name)[first:end].tolist()


@cython.cfunc
@cython.exceptval(-1)
def _check(block, first: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
    if not 0 <= first < end <= block.count:
        raise ValueError(f"rows {first} to {end} of {block.count}")
    return 0


def spans(block, first: int, end: int) -> dict:
    """Return the columns of a block of spans: trace_id, span_id, parent_span_id, trace_state, name, kind, start_time,
    end_time, status_code, status_message, attributes, events, links, flags, dropped_attributes_count,
    dropped_events_count, dropped_links_count, group, record."""
    _check(block, first, end)
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
                    message = _field(part, 2)
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
            events.append(_closed(cython.address(event)))
            links.append(_closed(cython.address(link)))
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
        "kind": _numbers(block, "kind", first, end),
        "start_time": _numbers(block, "time", first, end),
        "end_time": _numbers(block, "end_time", first, end),
        "status_code": _numbers(block, "status", first, end),
        "status_message": messages,
        "attributes": attributes,
        "events": events,
        "links": links,
        "flags": flags,
        "dropped_attributes_count": dropped_attributes,
        "dropped_events_count": dropped_events,
        "dropped_links_count": dropped_links,
        "group": _numbers(block, "group", first, end),
        "record": records,
    }


@cython.cfunc
def _field(message: Extent, wanted: uint32_t) -> Extent:
    """Return the content of a length-delimited field; of length 0 when it is absent."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    found: Extent
    at: _Bytes = message.at
    found.at = message.at
    found.length = 0
    while at < message.at + message.length:
        at = next_field(
            at, message.at + message.length, cython.address(tag), cython.address(number), cython.address(part)
        )
        if tag == wanted << 3 | 2:
            found = part
    return found


@cython.cfunc
def _closed(out: cython.pointer(Text)):
    """Return an array whose elements were appended, each after a bracket or a comma; None for none."""
    if not out.length:
        return None
    put_byte(out, 93)
    return take(out)


@cython.cfunc
@cython.exceptval(-1)
def _event(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    time: uint64_t = 0
    dropped: uint64_t = 0
    part: Extent
    name: Extent = _field(message, 2)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 9:
            time = number
        elif tag == 32:
            dropped = number & 0xFFFFFFFF
    _label(out, b',{"time":' if out.length else b'[{"time":')
    put_unsigned(out, time)
    _label(out, b',"name":')
    put_string(out, name.at, name.length)
    _label(out, b',"attributes":')
    put_object(out, message.at, end, 3, 0)
    if dropped:
        _label(out, b',"dropped_attributes_count":')
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
    trace_id: Extent = _field(message, 1)
    span_id: Extent = _field(message, 2)
    trace_state: Extent = _field(message, 3)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 40:
            dropped = number & 0xFFFFFFFF
        elif tag == 53:
            flags = number
    _label(out, b',{"trace_id":' if out.length else b'[{"trace_id":')
    put_hex(out, trace_id.at, trace_id.length)
    _label(out, b',"span_id":')
    put_hex(out, span_id.at, span_id.length)
    if trace_state.length:
        _label(out, b',"trace_state":')
        put_string(out, trace_state.at, trace_state.length)
    _label(out, b',"attributes":')
    put_object(out, message.at, end, 4, 0)
    if flags:
        _label(out, b',"flags":')
        put_unsigned(out, flags)
    if dropped:
        _label(out, b',"dropped_attributes_count":')
        put_unsigned(out, dropped)
    return put_byte(out, 125)


def logs(block, first: int, end: int) -> dict:
    """Return the columns of a block of log records: time (the main one: see otlp/block.py), observed_time, trace_id, span_id,
    severity_number, severity_text, event_name, body, attributes, flags, dropped_attributes_count, group, record."""
    _check(block, first, end)
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
        "time": _numbers(block, "time", first, end),
        "observed_time": _numbers(block, "observed_time", first, end),
        "trace_id": _ids(block, "trace_id", first, end, 16),
        "span_id": _ids(block, "span_id", first, end, 8),
        "severity_number": _numbers(block, "severity", first, end),
        "severity_text": texts,
        "event_name": event_names,
        "body": bodies,
        "attributes": attributes,
        "flags": flags,
        "dropped_attributes_count": dropped_attributes,
        "group": _numbers(block, "group", first, end),
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


def points(block, first: int, end: int) -> dict:
    """Return the columns of a block of data points: type (otlp/block.py), time, start_time, value, count, sum, min, max,
    distribution, attributes, exemplars, flags, group, record."""
    _check(block, first, end)
    view: cython.const[uint8_t][::1] = block.payload
    starts: cython.const[uint32_t][::1] = block.column("start")
    lengths: cython.const[uint32_t][::1] = block.column("length")
    types: cython.const[uint8_t][::1] = block.column("type")
    point: _Point
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
    begin: _Bytes
    behind: _Bytes
    out: Text
    exemplar: Text
    out.at = exemplar.at = cython.NULL
    out.length = out.room = exemplar.length = exemplar.room = 0
    try:
        for i in range(first, end):
            begin = cython.address(view[0]) + starts[i]
            behind = begin + lengths[i]
            _read_point(cython.address(point), cython.address(exemplar), begin, behind, types[i])
            values.append(point.integer if point.has_integer else point.double if point.has_double else None)
            counts.append(point.count if point.has_count else None)
            sums.append(point.sum if point.has_sum else None)
            lows.append(point.min if point.has_min else None)
            highs.append(point.max if point.has_max else None)
            distributions.append(_distribution(cython.address(out), cython.address(point), begin, behind, types[i]))
            put_object(
                cython.address(out),
                begin,
                behind,
                9 if types[i] == _HISTOGRAM else 1 if types[i] == _EXPONENTIAL else 7,
                0,
            )
            attributes.append(take(cython.address(out)))
            exemplars.append(_closed(cython.address(exemplar)))
            records.append(PyBytes_FromStringAndSize(cython.cast(cython.p_char, begin), lengths[i]))
    finally:
        release(cython.address(out))
        release(cython.address(exemplar))
    return {
        "type": _numbers(block, "type", first, end),
        "time": _numbers(block, "time", first, end),
        "start_time": _numbers(block, "start_time", first, end),
        "value": values,
        "count": counts,
        "sum": sums,
        "min": lows,
        "max": highs,
        "distribution": distributions,
        "attributes": attributes,
        "exemplars": exemplars,
        "flags": _numbers(block, "flags", first, end),
        "group": _numbers(block, "group", first, end),
        "record": records,
    }


_HISTOGRAM = cython.declare(cython.int, HISTOGRAM)
_EXPONENTIAL = cython.declare(cython.int, EXPONENTIAL_HISTOGRAM)
_SUMMARY = cython.declare(cython.int, SUMMARY)

_Point = cython.struct(
    integer=int64_t,
    double=cython.double,
    count=uint64_t,
    sum=cython.double,
    min=cython.double,
    max=cython.double,
    scale=int32_t,
    zero_count=uint64_t,
    zero_threshold=cython.double,
    has_integer=cython.bint,
    has_double=cython.bint,
    has_count=cython.bint,
    has_sum=cython.bint,
    has_min=cython.bint,
    has_max=cython.bint,
)


@cython.cfunc
def _double(number: uint64_t) -> cython.double:
    value: cython.double = 0
    memcpy(cython.address(value), cython.address(number), 8)
    return value


@cython.cfunc
def _zigzag(number: uint64_t) -> int32_t:
    low: uint32_t = cython.cast(uint32_t, number)
    return cython.cast(int32_t, (low >> 1) ^ (0 - (low & 1)))


@cython.cfunc
@cython.exceptval(-1)
def _read_point(
    point: cython.pointer(_Point), exemplar: cython.pointer(Text), at: _Bytes, end: _Bytes, kind: cython.int
) -> cython.int:
    """Read a data point's numbers, and append its exemplars."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    field: uint32_t
    point.has_integer = point.has_double = point.has_sum = point.has_min = point.has_max = False
    point.has_count = kind >= _HISTOGRAM
    point.count = point.zero_count = 0
    point.sum = point.zero_threshold = point.min = point.max = point.double = 0
    point.integer = 0
    point.scale = 0
    if kind == _SUMMARY:
        point.has_sum = True
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        field = tag >> 3
        if kind < _HISTOGRAM:
            if tag == 33:
                point.double = _double(number)
                point.has_double = True
            elif tag == 49:
                point.integer = cython.cast(int64_t, number)
                point.has_integer = True
            elif tag == 42:
                _exemplar(exemplar, part)
        elif tag & 7 == 1 and field == 4:
            point.count = number
        elif tag & 7 == 1 and field == 5:
            point.sum = _double(number)
            point.has_sum = True
        elif kind == _HISTOGRAM:
            if tag == 89:
                point.min = _double(number)
                point.has_min = True
            elif tag == 97:
                point.max = _double(number)
                point.has_max = True
            elif tag == 66:
                _exemplar(exemplar, part)
        elif kind == _EXPONENTIAL:
            if tag == 48:
                point.scale = _zigzag(number)
            elif tag == 57:
                point.zero_count = number
            elif tag == 97:
                point.min = _double(number)
                point.has_min = True
            elif tag == 105:
                point.max = _double(number)
                point.has_max = True
            elif tag == 113:
                point.zero_threshold = _double(number)
            elif tag == 90:
                _exemplar(exemplar, part)
    return 0


@cython.cfunc
def _distribution(
    out: cython.pointer(Text), point: cython.pointer(_Point), at: _Bytes, end: _Bytes, kind: cython.int
):
    if kind < _HISTOGRAM:
        return None
    message: Extent
    message.at = at
    message.length = cython.cast(uint32_t, end - at)
    if kind == _HISTOGRAM:
        _label(out, b'{"bounds":')
        _numbers64(out, _field(message, 7), True)
        _label(out, b',"counts":')
        _numbers64(out, _field(message, 6), False)
    elif kind == _EXPONENTIAL:
        _label(out, b'{"scale":')
        put_signed(out, point.scale)
        _label(out, b',"zero_count":')
        put_unsigned(out, point.zero_count)
        _label(out, b',"zero_threshold":')
        put_double(out, point.zero_threshold)
        _label(out, b',"positive":')
        _buckets(out, _field(message, 8))
        _label(out, b',"negative":')
        _buckets(out, _field(message, 9))
    else:
        _label(out, b'{"quantiles":')
        _quantiles(out, message)
    put_byte(out, 125)
    return take(out)


@cython.cfunc
@cython.exceptval(-1)
def _numbers64(out: cython.pointer(Text), packed: Extent, doubles: cython.bint) -> cython.int:
    """Append an array of packed doubles or fixed64s."""
    number: uint64_t = 0
    i: cython.Py_ssize_t
    put_byte(out, 91)
    for i in range(packed.length // 8):
        if i:
            put_byte(out, 44)
        memcpy(cython.address(number), packed.at + 8 * i, 8)
        if doubles:
            put_double(out, _double(number))
        else:
            put_unsigned(out, number)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def _buckets(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    offset: int32_t = 0
    part: Extent
    counts: Extent = _field(message, 2)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 8:
            offset = _zigzag(number)
    _label(out, b'{"offset":')
    put_signed(out, offset)
    _label(out, b',"counts":[')
    at = counts.at
    end = counts.at + counts.length
    while at < end:
        if at != counts.at:
            put_byte(out, 44)
        at = read_varint(at, end, cython.address(number))
        if at == cython.NULL:
            break
        put_unsigned(out, number)
    return _label(out, b"]}")


@cython.cfunc
@cython.exceptval(-1)
def _quantiles(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    inside: _Bytes
    quantile: cython.double
    value: cython.double
    first: cython.bint = True
    put_byte(out, 91)
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag != 50:
            continue
        quantile = value = 0
        message = part
        inside = message.at
        while inside < message.at + message.length:
            inside = next_field(
                inside, message.at + message.length, cython.address(tag), cython.address(number), cython.address(part)
            )
            if tag == 9:
                quantile = _double(number)
            elif tag == 17:
                value = _double(number)
        _label(out, b'{"quantile":' if first else b',{"quantile":')
        first = False
        put_double(out, quantile)
        _label(out, b',"value":')
        put_double(out, value)
        put_byte(out, 125)
    return put_byte(out, 93)


@cython.cfunc
@cython.exceptval(-1)
def _exemplar(out: cython.pointer(Text), message: Extent) -> cython.int:
    tag: uint32_t = 0
    number: uint64_t = 0
    time: uint64_t = 0
    integer: int64_t = 0
    double: cython.double = 0
    kind: cython.int = 0
    part: Extent
    trace_id: Extent = _field(message, 5)
    span_id: Extent = _field(message, 4)
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 17:
            time = number
        elif tag == 25:
            double = _double(number)
            kind = 1
        elif tag == 49:
            integer = cython.cast(int64_t, number)
            kind = 2
    _label(out, b',{"time":' if out.length else b'[{"time":')
    put_unsigned(out, time)
    _label(out, b',"value":')
    if kind == 2:
        put_signed(out, integer)
    elif kind == 1:
        put_double(out, double)
    else:
        _label(out, b"null")
    if trace_id.length:
        _label(out, b',"trace_id":')
        put_hex(out, trace_id.at, trace_id.length)
    if span_id.length:
        _label(out, b',"span_id":')
        put_hex(out, span_id.at, span_id.length)
    _label(out, b',"attributes":')
    put_object(out, message.at, end, 7, 0)
    return put_byte(out, 125)
