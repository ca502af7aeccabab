# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Messages from JSON to protobuf: objects, arrays, and keys in whatever order.

The length of a message is known at its end: one byte is left free in front of it, and a message of 128 bytes or
more is moved (tried: to leave as many bytes as the field's last length took; it made no difference).

Keys come in the same order again and again, so the key that came behind this one last time is tried first, in a
few comparisons of words. An attribute with a short string, which most attributes are, is compared with what it
looks like as a whole.

A value that its field cannot hold is remembered by the message that it is in, and forgotten when an equal key
follows; at its end the message passes the first one on as its own misfit.

No function recurses but `read_message`, which is bounded by DEEPEST.
"""

import cython
from cython.cimports.collector.otlp.json.fields import BASE64, MESSAGE, MESSAGE_FIELDS, STRING, Field, Message, slot_of
from cython.cimports.collector.otlp.json.message import *  # noqa: F403
from cython.cimports.collector.otlp.json.scalar import (
    DEEPEST,
    EXCLUSIVE,
    NO_ARRAY,
    NO_OBJECT,
    TOO_DEEP,
    Pass,
    has_room,
    lengthen,
    misfit,
    put_tag,
    read_scalar,
    read_string,
    unescape,
)
from cython.cimports.collector.otlp.json.text import (
    EXPECTED_COLON,
    EXPECTED_COMMA,
    EXPECTED_KEY,
    blank,
    broken,
    copy_plain,
    is_literal,
    skip_string,
    skip_value,
)
from cython.cimports.libc.stdint import uint8_t, uint32_t
from cython.cimports.libc.string import memchr, memcmp, memmove


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _read_pair(p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t])) -> cython.pointer(
    cython.const[uint8_t]
):
    """Read a KeyValue of a short key and a short string, written without white space: length and content.

    NULL says nothing. It takes a third off the cost of a span.
    """
    pair: cython.pointer(uint8_t) = p.out
    value: cython.pointer(uint8_t)
    out: cython.pointer(uint8_t) = pair + 3
    if not is_literal(cython.address(p.text), at, b'{"key":"', 8):
        return cython.NULL
    at = copy_plain(cython.address(p.text), at + 8, cython.address(out))
    if at == cython.NULL or not is_literal(cython.address(p.text), at, b'","value":{"stringValue":"', 26):
        return cython.NULL
    pair[1] = 10  # key
    pair[2] = out - pair - 3
    value = out
    out += 4
    at = copy_plain(cython.address(p.text), at + 26, cython.address(out))
    if at == cython.NULL or out - pair > 128 or not is_literal(cython.address(p.text), at, b'"}}', 3):
        return cython.NULL
    value[0] = 18  # value
    value[1] = out - value - 2
    value[2] = 10  # stringValue
    value[3] = out - value - 4
    pair[0] = out - pair - 1
    p.out = out
    return at + 3


@cython.cfunc
@cython.exceptval(check=False)
def _read_submessage(
    p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), entry: cython.int, depth: cython.int
) -> cython.pointer(cython.const[uint8_t]):
    """Read a message of a field: length and content."""
    start: cython.Py_ssize_t
    body: cython.pointer(uint8_t)
    p.out += 1
    start = p.out - p.base
    at = read_message(p, at, p.fields[entry].child, depth + 1)
    body = p.base + start
    if p.out - body < 128:
        (body - 1)[0] = p.out - body
    else:
        lengthen(p, body)
    return at


@cython.cfunc
@cython.exceptval(check=False)
def _read_array(
    p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), entry: cython.int, depth: cython.int
) -> cython.pointer(cython.const[uint8_t]):
    """Read an array: messages, strings and bytes each with their tag, numbers packed behind one."""
    field: cython.pointer(cython.const[Field]) = cython.address(p.fields[entry])
    unfit: cython.pointer(cython.const[uint8_t]) = cython.NULL
    behind: cython.pointer(cython.const[uint8_t])
    is_packed: cython.bint = field.kind > BASE64
    has_pairs: cython.bint = field.is_pair and depth + 2 <= DEEPEST
    start: cython.Py_ssize_t = 0
    element: cython.Py_ssize_t = 0
    if at[0] != 91:
        return misfit(p, at, NO_ARRAY, depth + 1)
    at = blank(at + 1)
    if at[0] == 93:
        return at + 1
    if is_packed:
        put_tag(p, field)
        p.out += 1
        start = p.out - p.base
    while True:
        p.element[depth] = element
        if not has_room(p, at):
            return cython.NULL
        if not is_packed:
            start = p.out - p.base
            put_tag(p, field)
        if field.kind == MESSAGE:
            behind = _read_pair(p, at) if has_pairs else cython.NULL
            at = behind if behind != cython.NULL else _read_submessage(p, at, entry, depth)
        else:
            at = read_scalar(p, at, field, depth + 1)
        if at == cython.NULL:
            return cython.NULL
        if p.unfit != cython.NULL:
            if unfit == cython.NULL:
                unfit = p.unfit
            p.unfit = cython.NULL
            p.out = p.base + start
        at = blank(at)
        if at[0] == 44:
            at = blank(at + 1)
            element += 1
        elif at[0] == 93:
            break
        else:
            return broken(cython.address(p.text), at, EXPECTED_COMMA)
    p.element[depth] = -1
    p.unfit = unfit
    if is_packed:
        lengthen(p, p.base + start)
    return at + 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _find_key(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    message: cython.pointer(cython.const[Message]),
    entry: cython.pointer(cython.int),
) -> cython.pointer(cython.const[uint8_t]):
    """Read a key, whatever it is; `entry` becomes its field, or 0 when the message has none of that name."""
    start: cython.pointer(cython.const[uint8_t]) = at + 1
    stop: cython.pointer(cython.const[uint8_t])
    behind: cython.pointer(cython.const[uint8_t]) = skip_string(cython.address(p.text), start)
    key: cython.pointer(cython.const[uint8_t])
    found: cython.int
    entry[0] = 0
    if behind == cython.NULL:
        return cython.NULL
    stop = behind - 1
    if memchr(start, 92, stop - start) != cython.NULL:
        unescape(p, at, cython.address(start), cython.address(stop))
    if stop == start:
        return behind
    found = message.slot[slot_of(start, stop - start)]
    while found:
        key = cython.cast(cython.pointer(uint8_t), p.fields[found].key)
        if p.fields[found].key_length == stop - start + 2 and memcmp(key + 1, start, stop - start) == 0:
            entry[0] = found
            return behind
        found = p.fields[found].chained
    return behind


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _take_back(
    p: cython.pointer(Pass),
    begin: cython.pointer(cython.Py_ssize_t),
    end: cython.pointer(cython.Py_ssize_t),
    given: uint32_t,
    field: cython.int,
) -> cython.void:
    """Take out what a field of a message has written, because its key comes again."""
    start: cython.Py_ssize_t = begin[field]
    length: cython.Py_ssize_t = end[field] - start
    i: cython.int
    memmove(p.base + start, p.base + start + length, p.out - p.base - start - length)
    p.out -= length
    for i in range(1, MESSAGE_FIELDS):
        if given >> i & 1 and begin[i] > start:
            begin[i] -= length
            end[i] -= length


@cython.cfunc
@cython.exceptval(check=False)
def _read_field(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    entry: cython.int,
    depth: cython.int,
) -> cython.pointer(cython.const[uint8_t]):
    """Read a value into a field of a message at `depth`."""
    field: cython.pointer(cython.const[Field]) = cython.address(p.fields[entry])
    p.path[depth] = entry
    if not has_room(p, at):
        return cython.NULL
    if field.repeated:
        return _read_array(p, at, entry, depth)
    put_tag(p, field)
    if field.kind == STRING and at[0] == 34:
        return read_string(p, at)
    if field.kind == MESSAGE:
        return _read_submessage(p, at, entry, depth)
    return read_scalar(p, at, field, depth + 1)


@cython.cfunc
@cython.exceptval(check=False)
def read_message(
    p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), number: cython.int, depth: cython.int
) -> cython.pointer(cython.const[uint8_t]):
    """Read an object into a message of a type, without tag and length; return what follows it.

    NULL ends the pass. `Pass.unfit` is set when it, or something in it, is a misfit.
    """
    message: cython.pointer(cython.const[Message]) = cython.address(p.messages[number])
    object_at: cython.pointer(cython.const[uint8_t]) = at
    entry: cython.int
    last: cython.int = message.first
    i: cython.int
    bit: uint32_t
    given: uint32_t = 0
    misfits: uint32_t = 0
    begin: cython.Py_ssize_t[MESSAGE_FIELDS]  # of what a given field has written
    end: cython.Py_ssize_t[MESSAGE_FIELDS]
    unfit: cython.pointer(cython.const[uint8_t])[MESSAGE_FIELDS]
    if at[0] != 123:
        return misfit(p, at, NO_OBJECT, depth)
    if depth > DEEPEST:
        return misfit(p, at, TOO_DEEP, depth)
    at = blank(at + 1)
    if at[0] == 125:
        return at + 1
    while True:
        if at[0] != 34:
            return broken(cython.address(p.text), at, EXPECTED_KEY)
        entry = p.next[last]
        if is_key(at, p.text.end, cython.address(p.fields[entry])):
            at += p.fields[entry].key_length
        else:
            at = _find_key(p, at, message, cython.address(entry))
            if at == cython.NULL:
                return cython.NULL
            if entry:
                p.next[last] = entry
        at = blank(at)
        if at[0] != 58:
            return broken(cython.address(p.text), at, EXPECTED_COLON)
        at = blank(at + 1)
        if entry == 0:
            at = skip_value(cython.address(p.text), at)
        else:
            last = entry
            i = entry - message.first
            bit = cython.cast(uint32_t, 1) << i
            if given & bit:
                given ^= bit
                misfits &= ~bit
                _take_back(p, begin, end, given, i)
            if at[0] == 110:  # null: an absent field
                at = skip_value(cython.address(p.text), at)
            else:
                given |= bit
                begin[i] = p.out - p.base
                at = _read_field(p, at, entry, depth)
                if p.unfit != cython.NULL:
                    misfits |= bit
                    unfit[i] = p.unfit
                    p.unfit = cython.NULL
                    p.out = p.base + begin[i]
                end[i] = p.out - p.base
        if at == cython.NULL:
            return cython.NULL
        at = blank(at)
        if at[0] == 44:
            at = blank(at + 1)
        elif at[0] == 125:
            break
        else:
            return broken(cython.address(p.text), at, EXPECTED_COMMA)
    i = 0
    while message.oneofs[i]:
        bit = message.oneofs[i] & given
        if bit & (bit - 1):
            p.unfit = object_at
            if object_at == p.wanted:
                p.reason = EXCLUSIVE
                p.steps = depth
                p.message = message
                p.exclusive = bit
                return cython.NULL
            return at + 1
        i += 1
    if misfits:
        for i in range(1, MESSAGE_FIELDS):
            if misfits >> i & 1 and (p.unfit == cython.NULL or unfit[i] < p.unfit):
                p.unfit = unfit[i]
    return at + 1
