# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""A LogRecord's labels and line straight out of a payload, compiled, for the lines that are answered.

`read` knows records as SDKs send them: each field once, attributes that are texts, numbers and truth values. Of a record
that says something twice it returns None, and of values of other types it asks who calls; the definition is
`labels.Records`, which decodes records with the protobuf library. Cost: 2 µs for a record of ten attributes, a sixth of that.
"""

import cython
from cython.cimports.collector.otlp.wire import Extent, next_field
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.cpython.dict import PyDict_Contains, PyDict_SetItem
from cython.cimports.cpython.object import PyObject_GetItem
from cython.cimports.cpython.unicode import PyUnicode_DecodeUTF8
from cython.cimports.libc.stdint import int32_t, int64_t, uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcmp

ATTRIBUTES_MAX = 64
"""Attributes of a record; of one with more, None is returned."""


@cython.cfunc
def _text(part: Extent):
    return PyUnicode_DecodeUTF8(cython.cast(cython.p_const_char, part.at), part.length, b"replace")


@cython.cfunc
def _bytes(part: Extent):
    return PyBytes_FromStringAndSize(cython.cast(cython.p_const_char, part.at), part.length)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _field(
    message: Extent,
    tag: cython.pointer(uint32_t),
    number: cython.pointer(uint64_t),
    content: cython.pointer(Extent),
) -> cython.bint:
    """Read the one field of an AnyValue; False when it has several. `tag` is 0 when it has none."""
    at: cython.pointer(cython.const[uint8_t]) = message.at
    end: cython.pointer(cython.const[uint8_t]) = at + message.length
    tag[0] = 0
    if at < end:
        at = next_field(at, end, tag, number, content)
    return at >= end


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _pair(message: Extent, key: cython.pointer(Extent), value: cython.pointer(Extent)) -> cython.bint:
    """Read a KeyValue; False when it says something twice."""
    at: cython.pointer(cython.const[uint8_t]) = message.at
    end: cython.pointer(cython.const[uint8_t]) = at + message.length
    tag: uint32_t = 0
    number: uint64_t = 0
    part: Extent
    seen: cython.int = 0
    key.at = value.at = message.at
    key.length = value.length = 0
    while at < end:
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(part))
        if tag == 10 and not seen & 1:
            key[0] = part
            seen |= 1
        elif tag == 18 and not seen & 2:
            value[0] = part
            seen |= 2
        else:
            return False
    return True


@cython.cfunc
def _put(own: dict, stream: dict, name, text):
    """Add a label that is not there already, out of the way of the stream's."""
    if PyDict_Contains(stream, name):
        name = name + "_extracted"
    if not PyDict_Contains(own, name):
        PyDict_SetItem(own, name, text)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _is_id(part: Extent, length: uint32_t) -> cython.bint:
    i: uint32_t
    if part.length == length:
        for i in range(length):
            if part.at[i]:
                return True
    return False


def read(payload, start: int, length: int, stream: dict, names, flatten, text_of):
    """Return (line, severity number, labels of the record's own) of the LogRecord that lies there; or None.

    `stream` are its stream's labels, `names` the label names by keys, `flatten` (name, text) for the label name and
    the bytes of an AnyValue that is no text, whole number or truth value, `text_of` the line of a body that is no text.
    """
    if length == 0:
        return b"", 0, {}
    view: cython.const[uint8_t][::1] = payload
    begin: cython.Py_ssize_t = start
    size: cython.Py_ssize_t = length
    if begin < 0 or size < 0 or size > len(view) - begin:
        raise ValueError("an extent reaches outside the payload")
    at: cython.pointer(cython.const[uint8_t]) = cython.address(view[begin])
    end: cython.pointer(cython.const[uint8_t]) = at + size
    keys = cython.declare(Extent[64])
    values = cython.declare(Extent[64])
    tag: uint32_t = 0
    kind: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    time: uint64_t = 0
    observed: uint64_t = 0
    severity: int32_t = 0
    dropped: uint32_t = 0
    flags: uint32_t = 0
    severity_text: Extent
    body: Extent
    trace_id: Extent
    span_id: Extent
    event_name: Extent
    seen: uint32_t = 0
    count: cython.int = 0
    i: cython.int
    k: cython.int
    is_new: cython.bint
    own: dict = {}
    severity_text.at = body.at = trace_id.at = span_id.at = event_name.at = cython.NULL
    severity_text.length = body.length = trace_id.length = span_id.length = event_name.length = 0
    with cython.nogil:
        while at < end:
            at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
            if tag == 50:
                if count == 64 or not _pair(content, keys + count, values + count):
                    count = -1
                    break
                count += 1
                continue
            if tag >> 3 < 32:
                if seen >> (tag >> 3) & 1:
                    count = -1
                    break
                seen |= cython.cast(uint32_t, 1) << (tag >> 3)
            if tag == 9:
                time = number
            elif tag == 89:
                observed = number
            elif tag == 16:
                severity = cython.cast(int32_t, number)
            elif tag == 26:
                severity_text = content
            elif tag == 42:
                body = content
            elif tag == 56:
                dropped = cython.cast(uint32_t, number)
            elif tag == 69:
                flags = cython.cast(uint32_t, number)
            elif tag == 74:
                trace_id = content
            elif tag == 82:
                span_id = content
            elif tag == 98:
                event_name = content
    if count < 0:
        return None
    if time and observed:
        _put(own, stream, "observed_timestamp", str(observed))
    if severity:
        _put(own, stream, "severity_number", str(severity))
    if severity_text.length:
        _put(own, stream, "severity_text", _text(severity_text))
    if dropped:
        _put(own, stream, "dropped_attributes_count", str(dropped))
    if flags:
        _put(own, stream, "flags", str(flags))
    if _is_id(trace_id, 16):
        _put(own, stream, "trace_id", _bytes(trace_id).hex())
    if _is_id(span_id, 8):
        _put(own, stream, "span_id", _bytes(span_id).hex())
    if event_name.length:
        _put(own, stream, "event_name", _text(event_name))
    for i in range(count):
        is_new = True
        for k in range(i):
            if keys[k].length == keys[i].length and memcmp(keys[k].at, keys[i].at, keys[i].length) == 0:
                is_new = False
                break
        if not is_new:
            continue
        if not _field(values[i], cython.address(kind), cython.address(number), cython.address(content)):
            return None
        if kind == 0 or (kind == 10 and content.length == 0):
            continue
        name = PyObject_GetItem(names, _bytes(keys[i]))
        if kind == 10:
            _put(own, stream, name, _text(content))
        elif kind == 16:
            _put(own, stream, name, "true" if number else "false")
        elif kind == 24:
            _put(own, stream, name, str(cython.cast(int64_t, number)))
        else:
            for part, text in flatten(name, _bytes(values[i])):
                if text:
                    _put(own, stream, part, text)
    if not _field(body, cython.address(kind), cython.address(number), cython.address(content)):
        return None
    if kind == 10:
        line = _bytes(content)
    elif kind == 0:
        line = b""
    else:
        line = text_of(_bytes(body))
    return line, severity, own
