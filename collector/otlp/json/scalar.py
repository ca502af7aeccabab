# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Scalars from JSON to protobuf, into the one buffer of a pass.

A function takes where a value begins and returns what follows it; NULL ends the pass. `steps` is the length of
the value's path.

A value that its field cannot hold does not end the pass, because an equal key may follow and make it void:
`misfit` steps over it and leaves its place in `Pass.unfit`. What has been written for it by then is taken back
by the message that it is in.
"""

import cython
from cython.cimports.collector.otlp.json.binary import read_base64, read_hexadecimal
from cython.cimports.collector.otlp.json.fields import (
    BASE64,
    BOOL,
    DOUBLE,
    ENUM,
    FIXED32,
    FIXED64,
    HEXADECIMAL,
    STRING,
    ZIGZAG,
    Field,
)
from cython.cimports.collector.otlp.json.number import Number, nearest, nearest_slowly, read_number, settle
from cython.cimports.collector.otlp.json.scalar import *  # noqa: F403
from cython.cimports.collector.otlp.json.text import (
    BAD_NUMBER,
    NO_MEMORY,
    broken,
    copy_string,
    is_literal,
    skip_value,
)
from cython.cimports.collector.otlp.wire import write_varint
from cython.cimports.libc.math import HUGE_VAL, NAN
from cython.cimports.libc.stdint import uint8_t, uint32_t, uint64_t
from cython.cimports.libc.stdlib import realloc
from cython.cimports.libc.string import memcmp, memcpy, memmove


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def grow(p: cython.pointer(Pass), least: cython.Py_ssize_t) -> cython.bint:
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
@cython.exceptval(check=False)
def misfit(
    p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), reason: cython.int, steps: cython.int
) -> cython.pointer(cython.const[uint8_t]):
    """Step over a value that its field cannot hold; NULL when it is the wanted one."""
    if at == p.wanted:
        p.reason = reason
        p.steps = steps
        return cython.NULL
    p.unfit = at
    return skip_value(cython.address(p.text), at)


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def unescape(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    start: cython.pointer(cython.pointer(cython.const[uint8_t])),
    stop: cython.pointer(cython.pointer(cython.const[uint8_t])),
) -> cython.pointer(cython.const[uint8_t]):
    """Unescape a string, from its quote on, SCRATCH bytes beyond what is written, with a 0 behind it."""
    to: cython.pointer(uint8_t) = p.out + SCRATCH
    start[0] = to
    at = copy_string(cython.address(p.text), at + 1, cython.address(to))
    stop[0] = to
    to[0] = 0
    return at


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def lengthen(p: cython.pointer(Pass), body: cython.pointer(uint8_t)) -> cython.void:
    """Write the length of what is written from `body` on in front of it, where one byte was left for it.

    When that is too little, the body is moved.
    """
    length: cython.Py_ssize_t = p.out - body
    taken: cython.int = 1
    while length >> 7 * taken:
        taken += 1
    if taken > 1:
        memmove(body - 1 + taken, body, length)
        p.out += taken - 1
    write_varint(body - 1, length)


# --- numbers ----------------------------------------------------------------------------------------------------


@cython.cfunc
@cython.nogil
@cython.inline
@cython.exceptval(check=False)
def _number(
    p: cython.pointer(Pass),
    at: cython.pointer(cython.const[uint8_t]),
    number: cython.pointer(Number),
    start: cython.pointer(cython.pointer(cython.const[uint8_t])),
    stop: cython.pointer(cython.pointer(cython.const[uint8_t])),
    fits: cython.pointer(cython.bint),
) -> cython.pointer(cython.const[uint8_t]):
    """Read a number, or a string that holds one; its characters are those from `start` to `stop`.

    `fits` is false when it is neither; of a string, `start` and `stop` are right then, too.
    """
    behind: cython.pointer(cython.const[uint8_t])
    fits[0] = False
    start[0] = at
    stop[0] = at
    if at[0] == 34:
        start[0] = at + 1
        behind = read_number(at + 1, p.text.end, True, number)
        if behind != cython.NULL and behind[0] == 34:
            fits[0] = True
            stop[0] = behind
            return behind + 1
        at = unescape(p, at, start, stop)
        if at != cython.NULL:
            fits[0] = read_number(start[0], stop[0], True, number) == stop[0]
    elif at[0] == 45 or 48 <= at[0] <= 57:
        fits[0] = True
        at = read_number(at, p.text.end, False, number)
        if at == cython.NULL:
            return broken(cython.address(p.text), start[0], BAD_NUMBER)
        stop[0] = at
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
    fits: cython.bint
    if at[0] == 34 and field.kind == ENUM:
        return misfit(p, at, NO_ENUM, steps)
    behind = _number(p, at, cython.address(number), cython.address(start), cython.address(stop), cython.address(fits))
    if behind == cython.NULL:
        return cython.NULL
    if not fits:
        return misfit(p, at, NO_NUMBER if at[0] == 34 else NO_INTEGER, steps)
    if (number.exponent != 0 or number.cut) and not settle(cython.address(number)):
        return misfit(p, at, NO_INTEGER, steps)
    if number.cut or number.mantissa > (field.lowest if number.negative else field.highest):
        return misfit(p, at, OUT_OF_RANGE, steps)
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
    """Read a number into the nearest double."""
    number: Number
    start: cython.pointer(cython.const[uint8_t])
    stop: cython.pointer(cython.const[uint8_t])
    behind: cython.pointer(cython.const[uint8_t])
    fits: cython.bint
    behind = _number(p, at, cython.address(number), cython.address(start), cython.address(stop), cython.address(fits))
    if behind == cython.NULL:
        return cython.NULL
    if fits:
        if not nearest(cython.address(number), value):
            value[0] = nearest_slowly(start, stop, p.out + SCRATCH)
            if value[0] != value[0]:
                p.text.failure = NO_MEMORY
                return cython.NULL
        return behind if -HUGE_VAL < value[0] < HUGE_VAL else misfit(p, at, NO_NUMBER, steps)
    if at[0] == 34 and stop - start == 3 and memcmp(start, b"NaN", 3) == 0:
        value[0] = NAN
    elif at[0] == 34 and stop - start == 8 and memcmp(start, b"Infinity", 8) == 0:
        value[0] = HUGE_VAL
    elif at[0] == 34 and stop - start == 9 and memcmp(start, b"-Infinity", 9) == 0:
        value[0] = -HUGE_VAL
    else:
        return misfit(p, at, NO_NUMBER, steps)
    return behind


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _bool(p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), steps: cython.int) -> cython.pointer(
    cython.const[uint8_t]
):
    """Read true or false into a byte."""
    p.out += 1
    if is_literal(cython.address(p.text), at, b"true", 4):
        (p.out - 1)[0] = 1
        return at + 4
    if is_literal(cython.address(p.text), at, b"false", 5):
        (p.out - 1)[0] = 0
        return at + 5
    return misfit(p, at, NO_BOOL, steps)


# --- bytes ------------------------------------------------------------------------------------------------------


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def _bytes(
    p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), kind: cython.int, steps: cython.int
) -> cython.pointer(cython.const[uint8_t]):
    """Read hexadecimal or base64 into its length and its bytes."""
    body: cython.pointer(uint8_t) = p.out + 1
    out: cython.pointer(uint8_t) = body
    start: cython.pointer(cython.const[uint8_t])
    stop: cython.pointer(cython.const[uint8_t])
    behind: cython.pointer(cython.const[uint8_t]) = at
    reason: cython.int = NO_HEXADECIMAL if kind == HEXADECIMAL else NO_BASE64
    fits: cython.bint = False
    if at[0] != 34:
        return misfit(p, at, reason, steps)
    if kind == HEXADECIMAL:
        behind = read_hexadecimal(at + 1, p.text.end, cython.address(out))
        fits = behind[0] == 34
        behind += 1
    if not fits:
        out = body
        behind = unescape(p, at, cython.address(start), cython.address(stop))
        if behind == cython.NULL:
            return cython.NULL
        if kind == HEXADECIMAL:
            fits = read_hexadecimal(start, stop, cython.address(out)) == stop
        else:
            fits = read_base64(start, stop, cython.address(out))
        if not fits:
            return misfit(p, at, reason, steps)
    p.out = out
    lengthen(p, body)
    return behind


# --- all of them ------------------------------------------------------------------------------------------------


@cython.cfunc
@cython.exceptval(check=False)
def read_scalar(
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
        return read_string(p, at) if at[0] == 34 else misfit(p, at, NO_STRING, steps)
    if field.kind == HEXADECIMAL or field.kind == BASE64:
        return _bytes(p, at, field.kind, steps)
    if field.kind == BOOL:
        return _bool(p, at, steps)
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
