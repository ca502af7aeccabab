# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""OTLP/JSON to protobuf: one request's text in, the wire bytes of the same Export…ServiceRequest out.

One pass reads the text where it lies and writes protobuf behind each other into one buffer; no Python object is
made for a value. `fields.py` says what a key means. The length of a message is known at its end: room for
as many bytes as the field's last length took is left in front of it, and the message is moved when that was
wrong. Keys come in the same order again and again, so the key that followed last time is tried first.

The mapping is proto3's JSON mapping with OTLP's exceptions (opentelemetry-proto, "JSON Protobuf Encoding"):

* traceId, spanId and parentSpanId are hexadecimal, in any case; other bytes are base64, standard or URL-safe,
  padded or not;
* enums are numbers; a name is refused, with a message that says so;
* keys are lowerCamelCase; every other key, a snake_case one too, is an unknown field, and those are ignored;
* integers may be numbers or decimal strings, floating-point numbers also "NaN", "Infinity" and "-Infinity";
* null is an absent field, but no element of an array;
* two fields of one `oneof` are refused; of two equal keys in one object the last counts.

Text that is no JSON, a lone surrogate, a number out of its field's range and messages nested deeper than
protobuf's limit are refused too. A message says where: `resourceSpans[0].scopeSpans[0].spans[3].traceId: …`, or
the byte of text that is no JSON.

A value that its field cannot hold does not end the pass, because an equal key may follow and make it void. The
message remembers where it lies and passes that on at its end. When one is left at the end of the request, the
same pass runs again up to there, and then knows the path.

Cost: TODO
"""

import cython
from cython.cimports.collector.otlp.binary import read_base64, read_hexadecimal
from cython.cimports.collector.otlp.fields import (
    BASE64,
    BOOL,
    DOUBLE,
    ENUM,
    FIELDS,
    FIXED32,
    FIXED64,
    HEXADECIMAL,
    MESSAGE,
    MESSAGE_FIELDS,
    ONEOFS,
    STRING,
    ZIGZAG,
    Field,
    Message,
    all_fields,
    all_messages,
    next_of,
    request_of,
    slot_of,
)
from cython.cimports.collector.otlp.json import (
    DEEPEST,
    EXCLUSIVE,
    NO_ARRAY,
    NO_BASE64,
    NO_BOOL,
    NO_ENUM,
    NO_HEXADECIMAL,
    NO_INTEGER,
    NO_NUMBER,
    NO_OBJECT,
    NO_STRING,
    OUT_OF_RANGE,
    SPARE,
    TOO_DEEP,
    Pass,
    is_key,
)
from cython.cimports.collector.otlp.number import Number, nearest, nearest_slowly, read_number, settle
from cython.cimports.collector.otlp.text import (
    BAD_CONTROL,
    BAD_ESCAPE,
    BAD_NUMBER,
    BAD_SURROGATE,
    ENDED,
    EXPECTED_COLON,
    EXPECTED_COMMA,
    EXPECTED_KEY,
    EXPECTED_VALUE,
    NO_MEMORY,
    NOT_UTF8,
    TOO_NESTED,
    TRAILING,
    blank,
    broken,
    copy_string,
    is_literal,
    skip_string,
    skip_value,
)
from cython.cimports.collector.otlp.wire import write_varint
from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.math import HUGE_VAL, NAN
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import free, malloc, realloc
from cython.cimports.libc.string import memchr, memcmp, memcpy, memmove, memset

from collector.errors import Malformed
from collector.otlp.fields import NAMES
from collector.otlp.signals import Signal

DEPTH = DEEPEST
"""Messages nested below the request, as many as the protobuf library accepts."""
SHOWN = 40  # characters of an unfit value that a message repeats


# --- room and failure -------------------------------------------------------------------------------------------


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _grow(p: cython.pointer(Pass), least: cython.Py_ssize_t) -> cython.bint:
    """Double the room, or more, so that `least` bytes fit behind what is written."""
    written: cython.Py_ssize_t = p.out - p.base
    room: cython.Py_ssize_t = max(2 * (p.limit - p.base), written + least)
    grown: cython.p_void = realloc(p.base, room)
    if grown == cython.NULL:
        p.text.failure = NO_MEMORY
        return False
    p.base = cython.cast(cython.pointer(uint8_t), grown)
    p.out = p.base + written
    p.limit = p.base + room
    return True


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _has_room(p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t])) -> cython.bint:
    """Make room for all that may be written before the next call; false when there is no memory.

    That is a tag, a number and what closes messages, within SPARE, and strings, within the text that is left.
    """
    return p.limit - p.out >= p.text.end - at + SPARE or _grow(p, p.text.end - at + SPARE)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _unfit(
    p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), reason: cython.int, steps: cython.int
) -> cython.pointer(cython.const[uint8_t]):
    """Step over a value that its field cannot hold; NULL when it is the wanted one."""
    if at == p.wanted:
        p.reason = reason
        p.steps = steps
        return cython.NULL
    p.unfit = at
    return skip_value(cython.address(p.text), at)


# --- scalars ----------------------------------------------------------------------------------------------------
# Each takes where a value begins and returns what follows it, or NULL. `steps` is the length of its path.


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _content(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    start: cython.pointer(cython.pointer(cython.const[uint8_t])),
    stop: cython.pointer(cython.pointer(cython.const[uint8_t])),
) -> cython.pointer(cython.const[uint8_t]):
    """Unescape a string beyond what is written, with a 0 behind it and 16 bytes before it."""
    to: cython.pointer(uint8_t) = p.out + 16
    start[0] = to
    at = copy_string(cython.address(p.text), at + 1, cython.address(to))
    stop[0] = to
    to[0] = 0
    return at


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _number(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    start: cython.pointer(cython.pointer(cython.const[uint8_t])),
    stop: cython.pointer(cython.pointer(cython.const[uint8_t])),
    number: cython.pointer(Number),
) -> cython.pointer(cython.const[uint8_t]):
    """Read a number, or a string that holds one; `start` and `stop` say where its characters are.

    `stop` is NULL when it is neither.
    """
    behind: cython.pointer(cython.const[uint8_t])
    if at[0] != 34:
        start[0] = at
        stop[0] = cython.NULL
        if at[0] != 45 and not 48 <= at[0] <= 57:
            return at
        at = read_number(at, p.text.end, False, number)
        if at == cython.NULL:
            return broken(cython.address(p.text), start[0], BAD_NUMBER)
        stop[0] = at
        return at
    start[0] = at + 1
    stop[0] = read_number(at + 1, p.text.end, True, number)
    if stop[0] != cython.NULL and stop[0][0] == 34:
        return stop[0] + 1
    at = _content(p, at, start, cython.address(behind))
    if at != cython.NULL:
        stop[0] = read_number(start[0], behind, True, number)
        if stop[0] != behind:
            stop[0] = cython.NULL
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _integer(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    field: cython.pointer(cython.const[Field]),
    steps: cython.int,
    value: cython.pointer(uint64_t),
) -> cython.pointer(cython.const[uint8_t]):
    """Read an integer into two's complement."""
    number: Number
    start: cython.pointer(cython.const[uint8_t])
    stop: cython.pointer(cython.const[uint8_t])
    behind: cython.pointer(cython.const[uint8_t])
    if at[0] == 34 and field.kind == ENUM:
        return _unfit(p, at, NO_ENUM, steps)
    behind = _number(p, at, cython.address(start), cython.address(stop), cython.address(number))
    if behind == cython.NULL:
        return cython.NULL
    if stop == cython.NULL:
        return _unfit(p, at, NO_NUMBER if at[0] == 34 else NO_INTEGER, steps)
    if (number.exponent != 0 or number.cut) and not settle(cython.address(number)):
        return _unfit(p, at, NO_INTEGER, steps)
    if number.cut or number.mantissa > (field.lowest if number.negative else field.highest):
        return _unfit(p, at, OUT_OF_RANGE, steps)
    value[0] = 0 - number.mantissa if number.negative else number.mantissa
    return behind


@cython.cfunc
@cython.exceptval(check=False)
def _double(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    steps: cython.int,
    value: cython.pointer(cython.double),
) -> cython.pointer(cython.const[uint8_t]):
    number: Number
    text: cython.pointer(Text) = cython.address(p.text)
    start: cython.pointer(cython.const[uint8_t])
    stop: cython.pointer(cython.const[uint8_t])
    behind: cython.pointer(cython.const[uint8_t])
    behind = _number(p, at, cython.address(start), cython.address(stop), cython.address(number))
    if behind == cython.NULL:
        return cython.NULL
    if stop != cython.NULL:
        if not nearest(cython.address(number), value):
            value[0] = nearest_slowly(start, stop, p.out + 16)
            if value[0] != value[0]:
                p.text.failure = NO_MEMORY
                return cython.NULL
        return behind if -HUGE_VAL < value[0] < HUGE_VAL else _unfit(p, at, NO_NUMBER, steps)
    if is_literal(text, at, b'"NaN"', 5):
        value[0] = NAN
    elif is_literal(text, at, b'"Infinity"', 10):
        value[0] = HUGE_VAL
    elif is_literal(text, at, b'"-Infinity"', 11):
        value[0] = -HUGE_VAL
    else:
        return _unfit(p, at, NO_NUMBER, steps)
    return behind


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _lengthen(p: cython.pointer(Pass), body: cython.pointer(uint8_t), left: cython.int) -> cython.int:
    """Write the length of what is written from `body` on in front of it, where `left` bytes were left for it.

    Returns the bytes that it took.
    """
    length: cython.Py_ssize_t = p.out - body
    taken: cython.int = 1
    while length >> 7 * taken:
        taken += 1
    if taken != left:
        memmove(body - left + taken, body, length)
        p.out += taken - left
    write_varint(body - left, length)
    return taken


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _string(
    p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t])
) -> cython.pointer(cython.const[uint8_t]):
    """Read a string into its length and its bytes."""
    body: cython.pointer(uint8_t) = p.out + 1
    out: cython.pointer(uint8_t) = body
    at = copy_string(cython.address(p.text), at + 1, cython.address(out))
    p.out = out
    if out - body < 128:
        (body - 1)[0] = out - body
    else:
        _lengthen(p, body, 1)
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _bytes(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    kind: cython.int,
    steps: cython.int,
) -> cython.pointer(cython.const[uint8_t]):
    """Read hexadecimal or base64 into its length and its bytes."""
    body: cython.pointer(uint8_t) = p.out + 1
    out: cython.pointer(uint8_t) = body
    start: cython.pointer(cython.const[uint8_t])
    stop: cython.pointer(cython.const[uint8_t])
    behind: cython.pointer(cython.const[uint8_t])
    reason: cython.int = NO_HEXADECIMAL if kind == HEXADECIMAL else NO_BASE64
    fits: cython.bint
    if at[0] != 34:
        return _unfit(p, at, reason, steps)
    if kind == HEXADECIMAL:
        behind = read_hexadecimal(at + 1, p.text.end, cython.address(out))
        fits = behind[0] == 34
        behind += 1
    else:
        fits = False
        behind = at
    if not fits:
        out = body
        behind = _content(p, at, cython.address(start), cython.address(stop))
        if behind == cython.NULL:
            return cython.NULL
        if kind == HEXADECIMAL:
            fits = read_hexadecimal(start, stop, cython.address(out)) == stop
        else:
            fits = read_base64(start, stop, cython.address(out))
        if not fits:
            return _unfit(p, at, reason, steps)
    p.out = out
    if out - body < 128:
        (body - 1)[0] = out - body
    else:
        _lengthen(p, body, 1)
    return behind


@cython.cfunc
@cython.exceptval(check=False)
def _scalar(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    field: cython.pointer(cython.const[Field]),
    steps: cython.int,
) -> cython.pointer(cython.const[uint8_t]):
    """Read a value of any kind but a message, and write it without a tag."""
    value: uint64_t = 0
    small: uint32_t
    real: cython.double = 0
    if field.kind == STRING:
        return _string(p, at) if at[0] == 34 else _unfit(p, at, NO_STRING, steps)
    if field.kind == HEXADECIMAL or field.kind == BASE64:
        return _bytes(p, at, field.kind, steps)
    if field.kind == BOOL:
        if is_literal(cython.address(p.text), at, b"true", 4):
            p.out[0] = 1
            p.out += 1
            return at + 4
        if is_literal(cython.address(p.text), at, b"false", 5):
            p.out[0] = 0
            p.out += 1
            return at + 5
        return _unfit(p, at, NO_BOOL, steps)
    if field.kind == DOUBLE:
        at = _double(p, at, steps, cython.address(real))
        memcpy(p.out, cython.address(real), 8)
        p.out += 8
        return at
    at = _integer(p, at, field, steps, cython.address(value))
    if field.kind == FIXED64:
        memcpy(p.out, cython.address(value), 8)
        p.out += 8
    elif field.kind == FIXED32:
        small = cython.cast(uint32_t, value)
        memcpy(p.out, cython.address(small), 4)
        p.out += 4
    elif field.kind == ZIGZAG:
        p.out = write_varint(p.out, value << 1 ^ (0 - (value >> 63)))
    else:
        p.out = write_varint(p.out, value)
    return at


# --- fields -----------------------------------------------------------------------------------------------------


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _put_tag(p: cython.pointer(Pass), field: cython.pointer(cython.const[Field])) -> cython.void:
    memcpy(p.out, cython.address(field.tag), 4)
    p.out += field.tag_length


@cython.cfunc
@cython.exceptval(check=False)
def _submessage(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    entry: cython.int,
    depth: cython.int,
) -> cython.pointer(cython.const[uint8_t]):
    """Read a message of a field: tag, length and content."""
    body: cython.Py_ssize_t
    left: cython.int = p.prefix[entry]
    start: cython.pointer(uint8_t)
    _put_tag(p, cython.address(p.fields[entry]))
    p.out += left
    body = p.out - p.base
    at = _message(p, at, p.fields[entry].child, depth + 1)
    start = p.base + body
    if left == 1 and p.out - start < 128:
        (start - 1)[0] = p.out - start
    else:
        p.prefix[entry] = _lengthen(p, start, left)
    return at


@cython.cfunc
@cython.exceptval(check=False)
def _elements(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    entry: cython.int,
    depth: cython.int,
) -> cython.pointer(cython.const[uint8_t]):
    """Read an array: messages, strings and bytes each with their tag, numbers packed."""
    field: cython.pointer(cython.const[Field]) = cython.address(p.fields[entry])
    unfit: cython.pointer(cython.const[uint8_t]) = cython.NULL
    is_message: cython.bint = field.kind == MESSAGE
    is_packed: cython.bint = field.kind > BASE64
    before: cython.Py_ssize_t = p.out - p.base
    body: cython.Py_ssize_t = 0
    element: cython.Py_ssize_t = 0
    if at[0] != 91:
        return _unfit(p, at, NO_ARRAY, depth + 1)
    at = blank(at + 1)
    if at[0] == 93:
        return at + 1
    if is_packed:
        _put_tag(p, field)
        p.out += p.prefix[entry]
        body = p.out - p.base
    while True:
        p.element[depth] = element
        if not _has_room(p, at):
            return cython.NULL
        if not is_packed:
            before = p.out - p.base
        if is_message:
            at = _submessage(p, at, entry, depth)
        else:
            if not is_packed:
                _put_tag(p, field)
            at = _scalar(p, at, field, depth + 1)
        if at == cython.NULL:
            return cython.NULL
        if p.unfit != cython.NULL:
            if unfit == cython.NULL:
                unfit = p.unfit
            p.unfit = cython.NULL
            p.out = p.base + (body if is_packed else before)
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
        p.prefix[entry] = _lengthen(p, p.base + body, p.prefix[entry])
    return at + 1


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _read_key(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    message: cython.pointer(cython.const[Message]),
    entry: cython.pointer(cython.int),
) -> cython.pointer(cython.const[uint8_t]):
    """Read any key; `entry` becomes its field, or 0 when it is none."""
    start: cython.pointer(cython.const[uint8_t]) = at + 1
    stop: cython.pointer(cython.const[uint8_t])
    behind: cython.pointer(cython.const[uint8_t]) = skip_string(cython.address(p.text), start)
    field: cython.pointer(cython.const[Field])
    found: cython.int
    entry[0] = 0
    if behind == cython.NULL:
        return cython.NULL
    stop = behind - 1
    if memchr(start, 92, stop - start) != cython.NULL:
        _content(p, at, cython.address(start), cython.address(stop))
    if stop == start:
        return behind
    found = message.slot[slot_of(start, stop - start)]
    while found:
        field = cython.address(p.fields[found])
        if field.key_length - 2 == stop - start:
            if memcmp(cython.cast(cython.p_const_char, field.key) + 1, start, stop - start) == 0:
                entry[0] = found
                break
        found = field.chained
    return behind


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _forget(
    p: cython.pointer(Pass),
    begin: cython.pointer(cython.Py_ssize_t),
    end: cython.pointer(cython.Py_ssize_t),
    given: uint32_t,
    field: cython.int,
) -> cython.void:
    """Take back what a field of a message has written, because the same key comes again."""
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
def _message(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    number: cython.int,
    depth: cython.int,
) -> cython.pointer(cython.const[uint8_t]):
    """Read an object into a message of a type, without tag and length."""
    message: cython.pointer(cython.const[Message]) = cython.address(p.messages[number])
    field: cython.pointer(cython.const[Field])
    object_at: cython.pointer(cython.const[uint8_t]) = at
    entry: cython.int
    last: cython.int = message.first
    i: cython.int
    bit: uint32_t
    given: uint32_t = 0
    misfits: uint32_t = 0
    begin: cython.Py_ssize_t[MESSAGE_FIELDS]  # of what each given field has written
    end: cython.Py_ssize_t[MESSAGE_FIELDS]
    unfit: cython.pointer(cython.const[uint8_t])[MESSAGE_FIELDS]
    if at[0] != 123:
        return _unfit(p, at, NO_OBJECT, depth)
    if depth > DEEPEST:
        return _unfit(p, at, TOO_DEEP, depth)
    at = blank(at + 1)
    if at[0] == 125:
        return at + 1
    while True:
        if at[0] != 34:
            return broken(cython.address(p.text), at, EXPECTED_KEY)
        entry = p.next[last]
        field = cython.address(p.fields[entry])
        if is_key(at, p.text.end, field):
            at += field.key_length
        else:
            at = _read_key(p, at, message, cython.address(entry))
            if at == cython.NULL:
                return cython.NULL
            if entry:
                p.next[last] = entry
                field = cython.address(p.fields[entry])
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
                given &= ~bit
                misfits &= ~bit
                _forget(p, begin, end, given, i)
            if at[0] == 110:  # null is an absent field
                at = skip_value(cython.address(p.text), at)
            else:
                if not _has_room(p, at):
                    return cython.NULL
                given |= bit
                begin[i] = p.out - p.base
                p.path[depth] = entry
                if field.repeated:
                    at = _elements(p, at, entry, depth)
                elif field.kind == MESSAGE:
                    at = _submessage(p, at, entry, depth)
                else:
                    _put_tag(p, field)
                    at = _scalar(p, at, field, depth + 1)
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
    for i in range(ONEOFS):
        bit = message.oneofs[i] & given
        if bit & (bit - 1):
            p.given = bit
            p.unfit = object_at
            if object_at == p.wanted:
                p.reason = EXCLUSIVE
                p.steps = depth
                return cython.NULL
            return at + 1
    if misfits:
        for i in range(1, MESSAGE_FIELDS):
            if misfits >> i & 1 and (p.unfit == cython.NULL or unfit[i] < p.unfit):
                p.unfit = unfit[i]
    return at + 1


# --- requests ---------------------------------------------------------------------------------------------------


@cython.cfunc
@cython.exceptval(check=False)
def _request(p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), number: cython.int) -> (
    cython.pointer(cython.const[uint8_t])
):
    """Read the whole text into a message of a type."""
    at = _message(p, blank(at), number, 0)
    if at == cython.NULL:
        return cython.NULL
    at = blank(at)
    return at if at == p.text.end else broken(cython.address(p.text), at, TRAILING)


@cython.cfunc
@cython.exceptval(-1)
def _prepare(p: cython.pointer(Pass), text: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t) -> (
    cython.int
):
    i: cython.int
    memset(p, 0, cython.sizeof(Pass))
    p.text.end = text + length
    p.fields = all_fields()
    p.messages = all_messages()
    memset(p.prefix, 1, FIELDS)
    for i in range(DEEPEST + 2):
        p.element[i] = -1
    for i in range(FIELDS):
        p.next[i] = next_of(i)
    p.base = cython.cast(cython.pointer(uint8_t), malloc(length + 2 * SPARE))
    if p.base == cython.NULL:
        raise MemoryError
    p.out = p.base
    p.limit = p.base + length + 2 * SPARE
    return 0


def to_protobuf(signal: Signal, body: bytes | bytearray) -> bytes:
    """Return an OTLP/JSON export request of a signal as protobuf bytes.

    Raises Malformed with the path or the byte of what is wrong. Only the form is judged: whether an id has the
    right length, say, is for whoever reads the result.
    """
    p: Pass
    text: cython.pointer(cython.const[uint8_t])
    number: cython.int = request_of(signal.code)
    if isinstance(body, bytearray):
        text = cython.cast(cython.pointer(uint8_t), PyByteArray_AS_STRING(body))
    else:
        text = cython.cast(cython.pointer(uint8_t), PyBytes_AS_STRING(body))
    _prepare(cython.address(p), text, len(body))
    try:
        if _request(cython.address(p), text, number) == cython.NULL:
            if p.text.failure == NO_MEMORY:
                raise MemoryError
            raise Malformed(_TEXT_FAILURES[p.text.failure].format(p.text.where - text))
        if p.unfit == cython.NULL:
            return PyBytes_FromStringAndSize(cython.cast(cython.p_char, p.base), p.out - p.base)
        p.wanted = p.unfit
        p.unfit = cython.NULL
        p.out = p.base
        _request(cython.address(p), text, number)
        raise Malformed(f"{_path(cython.address(p))}: {_complaint(cython.address(p))}")
    finally:
        free(p.base)


# --- what is wrong ----------------------------------------------------------------------------------------------

_TEXT_FAILURES = {
    ENDED: "not valid JSON: the text ends too early, at byte {}",
    EXPECTED_VALUE: "not valid JSON: expected a value at byte {}",
    EXPECTED_KEY: "not valid JSON: expected a key in quotes at byte {}",
    EXPECTED_COLON: "not valid JSON: expected a colon at byte {}",
    EXPECTED_COMMA: "not valid JSON: expected a comma or the end of the array or object at byte {}",
    BAD_NUMBER: "not valid JSON: a bad number at byte {}",
    BAD_ESCAPE: "not valid JSON: a bad escape at byte {}",
    BAD_SURROGATE: "not valid JSON: \\ud800 to \\udfff stand only in pairs, unlike at byte {}",
    BAD_CONTROL: "not valid JSON: a control character that is not escaped at byte {}",
    NOT_UTF8: "not valid JSON: not UTF-8 at byte {}",
    TOO_NESTED: "not a valid request: arrays and objects are nested too deep at byte {}",
    TRAILING: "not valid JSON: something follows the request at byte {}",
}

_EXPECTED = {
    NO_OBJECT: "expected an object",
    NO_ARRAY: "expected an array",
    NO_STRING: "expected a string",
    NO_HEXADECIMAL: "expected hexadecimal digits",
    NO_BASE64: "expected base64",
    NO_BOOL: "expected true or false",
    NO_NUMBER: "expected a number",
    NO_INTEGER: "expected an integer",
    NO_ENUM: "expected the enum's number",
}


@cython.cfunc
def _path(p: cython.pointer(Pass)) -> str:
    """Return the path of the wanted value."""
    steps: list = []
    i: cython.int
    for i in range(p.steps):
        steps.append(f".{NAMES[p.path[i]]}" + (f"[{p.element[i]}]" if p.element[i] >= 0 else ""))
    return "".join(steps)[1:] or "the request"


@cython.cfunc
def _complaint(p: cython.pointer(Pass)) -> str:
    """Return what is wrong with the wanted value, and the beginning of it."""
    field: cython.pointer(cython.const[Field]) = cython.address(p.fields[p.path[p.steps - 1 if p.steps else 0]])
    shown: str
    length: cython.Py_ssize_t
    if p.reason == TOO_DEEP:
        return f"messages are nested more than {DEPTH} deep"
    if p.reason == EXCLUSIVE:
        first: cython.int = p.messages[field.child if p.steps else 0].first
        return " and ".join(NAMES[first + i] for i in range(MESSAGE_FIELDS) if p.given >> i & 1) + " exclude each other"
    if p.wanted[0] == 123:
        shown = "an object"
    elif p.wanted[0] == 91:
        shown = "an array"
    else:
        length = skip_value(cython.address(p.text), p.wanted) - p.wanted
        text: bytes = cython.cast(cython.p_const_char, p.wanted)[: min(length, 4 * SHOWN + 4)]
        shown = text.decode("utf-8", "ignore")
        shown = shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
    if p.reason == OUT_OF_RANGE:
        return f"{shown} is not within {-int(field.lowest)} to {field.highest}"
    return f"{_EXPECTED[p.reason]}, not {shown}"
