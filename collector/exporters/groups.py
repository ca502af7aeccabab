# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What stands around the records of each group, found by its bytes: compiled, because requests of one record have as many
groups as records.

    key     u8 kind, u32 length of the resource's bytes, of the scope's, of the metric's own | the bytes, and those of its data

A key is one piece of memory and one look into a dictionary; Python's objects are made only for keys that are new in the
block. The fields of an envelope that holds several groups are gathered once.
"""

import cython
from cython.cimports.collector.exporters.text import Text, put, put_others, release
from cython.cimports.collector.otlp.wire import Extent, next_field
from cython.cimports.cpython.bytes import PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.string import memcpy

_Bytes = cython.typedef(cython.pointer(cython.const[uint8_t]))
_HEADER = cython.declare(cython.int, 13)


@cython.cfunc
@cython.exceptval(-1)
def _metric(own: cython.pointer(Text), data: cython.pointer(Text), message: Extent, field: uint32_t) -> cython.int:
    """Append a Metric's fields but its data, and to `data` those of the data but the points."""
    at: _Bytes = message.at
    end: _Bytes = message.at + message.length
    begin: _Bytes
    tag: uint32_t = 0
    number: uint64_t = 0
    content: Extent
    while at < end:
        begin = at
        at = next_field(at, end, cython.address(tag), cython.address(number), cython.address(content))
        if tag >> 3 == field and content.at != cython.NULL:
            put_others(data, content, 1)
        else:
            put(own, begin, at - begin)
    return 0


def around(block, kinds, fields: bytes, make) -> list:
    """Return, for each group of a block, what `make(resource, scope, metric, data, kind)` has made of the bytes around its
    records: the fields of ResourceSpans (…Logs, …Metrics) but its scopes, those of ScopeSpans but its records, those of the
    Metric but its data, those of the data but its points, and the type. Groups with the same bytes get the same object.

    `kinds` has each group's type, 0 where no record refers to the group, None without metrics; `fields` the number of the
    data's field for each type. ValueError when a group reaches outside the payload."""
    count: cython.Py_ssize_t = block.groups.count
    payload: cython.const[uint8_t][::1] = block.payload
    size: uint64_t = len(block.payload)
    starts: cython.const[uint32_t][::1] = block.group_column("envelope_start")
    lengths: cython.const[uint32_t][::1] = block.group_column("envelope_length")
    inner_starts: cython.const[uint32_t][::1] = block.group_column("scope_envelope_start")
    inner_lengths: cython.const[uint32_t][::1] = block.group_column("scope_envelope_length")
    metric_starts: cython.const[uint32_t][::1] = inner_starts
    metric_lengths: cython.const[uint32_t][::1] = inner_lengths
    types: cython.const[uint8_t][::1] = fields
    numbers: cython.const[uint8_t][::1] = fields
    metrics: cython.bint = kinds is not None
    if metrics:
        types = kinds
        metric_starts = block.group_column("metric_start")
        metric_lengths = block.group_column("metric_length")
        if len(kinds) != count:
            raise ValueError(f"{len(kinds)} types of {count} groups")
    found: list = []
    known: dict = {}
    outer: Text
    inner: Text
    own: Text
    data: Text
    whole: Text
    header: uint8_t[16]
    kind: uint8_t
    i: cython.Py_ssize_t
    a: cython.Py_ssize_t
    b: cython.Py_ssize_t
    c: cython.Py_ssize_t
    short: uint32_t
    message: Extent
    outer.at = inner.at = own.at = data.at = whole.at = cython.NULL
    outer.length = inner.length = own.length = data.length = whole.length = 0
    outer.room = inner.room = own.room = data.room = whole.room = 0
    try:
        for i in range(count):
            if i == 0 or starts[i] != starts[i - 1]:
                _check(starts[i], lengths[i], size)
                outer.length = 0
                if lengths[i]:
                    message.at = cython.address(payload[starts[i]])
                    message.length = lengths[i]
                    put_others(cython.address(outer), message, 2)
            if i == 0 or inner_starts[i] != inner_starts[i - 1]:
                _check(inner_starts[i], inner_lengths[i], size)
                inner.length = 0
                if inner_lengths[i]:
                    message.at = cython.address(payload[inner_starts[i]])
                    message.length = inner_lengths[i]
                    put_others(cython.address(inner), message, 2)
            own.length = data.length = 0
            kind = types[i] if metrics else 0
            if kind:
                if kind >= numbers.shape[0]:
                    raise ValueError(f"there is no type {kind}")
                _check(metric_starts[i], metric_lengths[i], size)
                if metric_lengths[i]:
                    message.at = cython.address(payload[metric_starts[i]])
                    message.length = metric_lengths[i]
                    _metric(cython.address(own), cython.address(data), message, numbers[kind])
            header[0] = kind
            short = outer.length
            memcpy(cython.address(header[1]), cython.address(short), 4)
            short = inner.length
            memcpy(cython.address(header[5]), cython.address(short), 4)
            short = own.length
            memcpy(cython.address(header[9]), cython.address(short), 4)
            whole.length = 0
            put(cython.address(whole), cython.address(header[0]), _HEADER)
            put(cython.address(whole), outer.at, outer.length)
            put(cython.address(whole), inner.at, inner.length)
            put(cython.address(whole), own.at, own.length)
            put(cython.address(whole), data.at, data.length)
            key = PyBytes_FromStringAndSize(cython.cast(cython.p_char, whole.at), whole.length)
            one = known.get(key)
            if one is None:
                a = _HEADER + outer.length
                b = a + inner.length
                c = b + own.length
                one = known[key] = make(key[_HEADER:a], key[a:b], key[b:c], key[c:], kind)
            found.append(one)
    finally:
        release(cython.address(outer))
        release(cython.address(inner))
        release(cython.address(own))
        release(cython.address(data))
        release(cython.address(whole))
    return found


@cython.cfunc
@cython.exceptval(-1)
def _check(start: uint64_t, length: uint64_t, size: uint64_t) -> cython.int:
    if start + length > size:
        raise ValueError("a group reaches outside the payload")
    return 0
