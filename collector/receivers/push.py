# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Entries of Loki's push requests made OTLP log records, compiled, with the GIL released: protobuf in, protobuf out.

    PushRequest    1 streams (repeated)
    Stream         1 labels, a text   2 entries (repeated)   3 hash, not read
    Entry          1 timestamp (1 seconds, 2 nanos)   2 line   3 structured metadata (repeated: 1 name, 2 value)

`count` says how many of each there are, and whether the bytes are a request at all, without keeping anything: so
limits come before memory. `streams` says where they lie, `records` writes the entries of one as field 2 of a ScopeLogs.

Of an entry the time, the line and the structured metadata are kept as they are: the body is the line, an attribute each
label. Those that OTLP has a field for go there, if they read back the same: trace_id and span_id in lower-case hex,
severity_number from 1 to 24, severity_text. A level gives a severity number where there is none: detected_level, else
the stream's, else a label of a level's name.
"""

import cython
from cython.cimports.collector.otlp.wire import Extent, is_utf8, read_tag, read_varint, skip, write_varint
from cython.cimports.collector.query.levels import is_key, named
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp, memcpy

Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
Out = cython.typedef(cython.pointer(uint8_t))

SECONDS_MAX = cython.declare(int64_t, 9_223_372_035)


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _severity(level: uint8_t) -> uint8_t:
    """Return the severity number of a level's code (query/levels.py), the first of its band; 0 for none."""
    if level == 7:
        level = 6
    return level * 4 - 3 if level else 0


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _next(
    at: Bytes,
    end: Bytes,
    tag: cython.pointer(uint32_t),
    value: cython.pointer(uint64_t),
    content: cython.pointer(Extent),
) -> Bytes:
    """Read one field; NULL where the form is wrong. `content.at` is NULL for what has no length."""
    length: uint32_t = 0
    content.at = cython.NULL
    content.length = 0
    value[0] = 0
    at = read_tag(at, end, tag)
    if at == cython.NULL or tag[0] >> 3 == 0:
        return cython.NULL
    if tag[0] & 7 == 2:
        at = read_tag(at, end, cython.address(length))
        if at == cython.NULL or end - at < length:
            return cython.NULL
        content.at = at
        content.length = length
        return at + length
    if tag[0] & 7 == 0:
        return read_varint(at, end, value)
    return skip(at, end, tag[0], 0)


Counted = cython.struct(streams=int64_t, entries=int64_t, pairs=int64_t, has_form=cython.bint)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _count_entry(at: Bytes, end: Bytes, found: cython.pointer(Counted)) -> cython.void:
    tag: uint32_t = 0
    value: uint64_t = 0
    part: Extent
    inner: Extent
    below: Bytes
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(value), cython.address(part))
        if at == cython.NULL:
            found.has_form = False
            return
        if tag == 10 or tag == 26:
            found.pairs += tag == 26
            below = part.at
            while below < at:
                below = _next(below, at, cython.address(tag), cython.address(value), cython.address(inner))
                if below == cython.NULL:
                    found.has_form = False
                    return


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _count_stream(at: Bytes, end: Bytes, found: cython.pointer(Counted)) -> cython.void:
    tag: uint32_t = 0
    value: uint64_t = 0
    part: Extent
    while at < end and found.has_form:
        at = _next(at, end, cython.address(tag), cython.address(value), cython.address(part))
        if at == cython.NULL:
            found.has_form = False
            return
        if tag == 18:
            found.entries += 1
            _count_entry(part.at, at, found)


def count(data: bytes):
    """Return how many streams, entries and labels of structured metadata a request has; None for what is no request."""
    chars: cython.p_const_char = data
    at: Bytes = cython.cast(Bytes, chars)
    end: Bytes = at + len(data)
    tag: uint32_t = 0
    value: uint64_t = 0
    part: Extent
    found: Counted
    found.streams = found.entries = found.pairs = 0
    found.has_form = True
    with cython.nogil:
        while at < end and found.has_form:
            at = _next(at, end, cython.address(tag), cython.address(value), cython.address(part))
            if at == cython.NULL:
                found.has_form = False
            elif tag == 10:
                found.streams += 1
                _count_stream(part.at, at, cython.address(found))
    return (found.streams, found.entries, found.pairs) if found.has_form else None


def streams(data: bytes) -> list:
    """Return each stream of a request that `count` has counted: (labels, start, length of the message)."""
    chars: cython.p_const_char = data
    base: Bytes = cython.cast(Bytes, chars)
    at: Bytes = base
    end: Bytes = base + len(data)
    tag: uint32_t = 0
    value: uint64_t = 0
    part: Extent
    labels: Extent
    inner: Bytes
    found = []
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(value), cython.address(part))
        if at == cython.NULL:
            raise ValueError("these bytes were not counted")
        if tag != 10:
            continue
        name = b""
        inner = part.at
        while inner < at:
            inner = _next(inner, at, cython.address(tag), cython.address(value), cython.address(labels))
            if inner == cython.NULL:
                raise ValueError("these bytes were not counted")
            if tag == 10:
                name = data[labels.at - base : labels.at - base + labels.length]
        found.append((name, part.at - base, part.length))
    return found


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _text(out: Out, tag: uint8_t, at: Bytes, length: uint32_t) -> Out:
    """Write a field that is a text."""
    out[0] = tag
    out = write_varint(out + 1, length)
    memcpy(out, at, length)
    return out + length


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _size(value: uint64_t) -> uint32_t:
    """Return the length of a varint."""
    size: uint32_t = 1
    while value > 0x7F:
        value >>= 7
        size += 1
    return size


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _id(out: Out, at: Bytes, length: uint32_t) -> cython.bint:
    """Write the bytes of an id in lower-case hex; tell whether it is one, and is not zero."""
    i: uint32_t
    half: uint8_t
    any_bit: uint8_t = 0
    for i in range(length):
        if 48 <= at[i] <= 57:
            half = at[i] - 48
        elif 97 <= at[i] <= 102:
            half = at[i] - 87
        else:
            return False
        any_bit |= half
        if i & 1:
            out[i >> 1] |= half
        else:
            out[i >> 1] = half << 4
    return any_bit != 0


@cython.cfunc
@cython.inline
@cython.nogil
@cython.exceptval(check=False)
def _is(text: Extent, name: cython.p_const_char, length: uint32_t) -> cython.bint:
    return text.length == length and memcmp(text.at, name, length) == 0


Written = cython.struct(out=cython.pointer(uint8_t), records=int64_t, untimely=int64_t, is_utf8=cython.bint)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _time(at: Bytes, end: Bytes) -> int64_t:
    """Return a timestamp in Unix ns; negative if it is before 1970, or out of range."""
    tag: uint32_t = 0
    value: uint64_t = 0
    part: Extent
    seconds: int64_t = 0
    nanos: int64_t = 0
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(value), cython.address(part))
        if tag == 8:
            seconds = cython.cast(int64_t, value)
        elif tag == 16:
            nanos = cython.cast(int32_t, value)
    if not 0 <= seconds <= SECONDS_MAX or not 0 <= nanos < 1_000_000_000:
        return -1
    return seconds * 1_000_000_000 + nanos


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _pair(at: Bytes, end: Bytes, name: cython.pointer(Extent), value: cython.pointer(Extent)) -> cython.void:
    """Read a label of structured metadata; an absent part has length 0."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    name.at = value.at = at
    name.length = value.length = 0
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            name[0] = part
        elif tag == 18:
            value[0] = part


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _record(
    start: Bytes, end: Bytes, stream_severity: uint8_t, written: cython.pointer(Written), scratch: Out
) -> cython.void:
    """Write one entry as a log record. Its fields go to `scratch` first, because their length comes before them."""
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    line: Extent
    name: Extent
    value: Extent
    at: Bytes = start
    out: Out = scratch
    time: int64_t = 0
    stated: uint8_t = 0
    level: uint8_t = 0
    own: uint8_t = 0
    has_trace: cython.bint = False
    has_span: cython.bint = False
    has_text: cython.bint = False
    size: uint32_t
    line.at = start
    line.length = 0
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10:
            time = _time(part.at, at)
        elif tag == 18:
            line = part
    if time < 0:
        written.untimely += 1
        return
    if not is_utf8(line.at, line.length):
        written.is_utf8 = False
        return
    if time:
        out[0] = 0x09
        memcpy(out + 1, cython.address(time), 8)
        out += 9
    size = 1 + _size(line.length) + line.length
    out[0] = 0x2A
    out = write_varint(out + 1, size)
    out = _text(out, 0x0A, line.at, line.length)
    at = start
    while at < end:
        at = _next(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag != 26:
            continue
        _pair(part.at, at, cython.address(name), cython.address(value))
        if name.length == 0 or value.length == 0:
            continue
        if not is_utf8(name.at, name.length) or not is_utf8(value.at, value.length):
            written.is_utf8 = False
            return
        if not has_trace and value.length == 32 and _is(name, b"trace_id", 8) and _id(out + 2, value.at, 32):
            out[0] = 0x4A
            out[1] = 16
            out += 18
            has_trace = True
            continue
        if not has_span and value.length == 16 and _is(name, b"span_id", 7) and _id(out + 2, value.at, 16):
            out[0] = 0x52
            out[1] = 8
            out += 10
            has_span = True
            continue
        if not stated and value.length <= 2 and _is(name, b"severity_number", 15):
            stated = _small(value)
            if stated:
                continue
        if not has_text and _is(name, b"severity_text", 13):
            has_text = True
            if not own:
                own = _severity(named(value.at, value.length))
            out = _text(out, 0x1A, value.at, value.length)
            continue
        if not level and _is(name, b"detected_level", 14):
            level = _severity(named(value.at, value.length))
        elif not own and is_key(name.at, name.length):
            own = _severity(named(value.at, value.length))
        size = 1 + _size(value.length) + value.length
        out[0] = 0x32
        out = write_varint(out + 1, 1 + _size(name.length) + name.length + 1 + _size(size) + size)
        out = _text(out, 0x0A, name.at, name.length)
        out[0] = 0x12
        out = write_varint(out + 1, size)
        out = _text(out, 0x0A, value.at, value.length)
    if not stated:
        stated = level if level else stream_severity if stream_severity else own
    if stated:
        out[0] = 0x10
        out[1] = stated
        out += 2
    size = cython.cast(uint32_t, out - scratch)
    written.out[0] = 0x12
    written.out = write_varint(written.out + 1, size)
    memcpy(written.out, scratch, size)
    written.out += size
    written.records += 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _small(text: Extent) -> uint8_t:
    """Return a severity number, 1 to 24, as it is usually written; 0 for anything else."""
    number: uint8_t = 0
    i: uint32_t
    for i in range(text.length):
        if not 48 <= text.at[i] <= 57 or (i == 0 and text.at[i] == 48):
            return 0
        number = number * 10 + (text.at[i] - 48)
    return number if number <= 24 else 0


def records(data: bytes, start: int, length: int, severity: int) -> tuple:
    """Return (log records, how many, how many entries have no time that can be kept, whether all texts are UTF-8) of a stream.

    The stream is one that `streams` has found; `severity` is its level's number, 0 for none. Records are field 2 of a
    ScopeLogs, one after the other. Where a text is not UTF-8 its record is not written.
    """
    chars: cython.p_const_char = data
    first: Bytes = cython.cast(Bytes, chars) + cython.cast(cython.Py_ssize_t, start)
    end: Bytes = first + cython.cast(cython.Py_ssize_t, length)
    at: Bytes = first
    tag: uint32_t = 0
    value: uint64_t = 0
    part: Extent
    stream_severity: uint8_t = severity
    found: Counted
    found.streams = found.entries = found.pairs = 0
    found.has_form = True
    _count_stream(first, end, cython.address(found))
    # What a record has beyond its entry's bytes: 9 + 2 + 4 × 6 for time, severity, body and itself, 4 × 6 for a label.
    room: cython.Py_ssize_t = length + found.entries * 40 + found.pairs * 24
    made = bytearray(room)
    side = bytearray(room)
    made_view: uint8_t[::1] = made if room else bytearray(1)
    side_view: uint8_t[::1] = side if room else bytearray(1)
    written: Written
    written.out = cython.address(made_view[0])
    written.records = written.untimely = 0
    written.is_utf8 = True
    base: Out = written.out
    scratch: Out = cython.address(side_view[0])
    with cython.nogil:
        while at < end:
            at = _next(at, end, cython.address(tag), cython.address(value), cython.address(part))
            if at == cython.NULL:
                break
            if tag == 18:
                _record(part.at, at, stream_severity, cython.address(written), scratch)
    size: cython.Py_ssize_t = written.out - base
    return bytes(memoryview(made)[:size]), written.records, written.untimely, bool(written.is_utf8)
