# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The way in: one request's JSON in, the same request's protobuf bytes or what is wrong with it out.

A request that has been read to its end, but holds a value that its field cannot hold, is read a second time up
to that value: then the path is known. A request that is fine is read once.
"""

import cython
from cython.cimports.collector.otlp.json.fields import (
    FIELDS,
    MESSAGE_FIELDS,
    Field,
    all_fields,
    all_messages,
    request_of,
    usual_order,
)
from cython.cimports.collector.otlp.json.message import read_message
from cython.cimports.collector.otlp.json.scalar import (
    DEEPEST,
    EXCLUSIVE,
    LEVELS,
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
)
from cython.cimports.collector.otlp.json.text import (
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
    skip_value,
)
from cython.cimports.cpython.bytearray import PyByteArray_AS_STRING
from cython.cimports.cpython.bytes import PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cython.cimports.libc.stdint import uint8_t, uint16_t
from cython.cimports.libc.stdlib import free, malloc
from cython.cimports.libc.string import memcpy, memset

from collector.errors import Malformed
from collector.otlp.json.fields import NAMES
from collector.otlp.signals import Signal

DEPTH = DEEPEST
"""Messages nested below the request, as many as the protobuf library accepts."""
SHOWN = 40
"""Characters of an unfit value that a message repeats."""

_BROKEN = {
    ENDED: "not valid JSON: the text ends too early",
    EXPECTED_VALUE: "not valid JSON: expected a value",
    EXPECTED_KEY: "not valid JSON: expected a key in quotes",
    EXPECTED_COLON: "not valid JSON: expected a colon",
    EXPECTED_COMMA: "not valid JSON: expected a comma, or the end of the array or object",
    BAD_NUMBER: "not valid JSON: a number is not written as JSON wants it",
    BAD_ESCAPE: "not valid JSON: a backslash is followed by what is no escape",
    BAD_SURROGATE: r"not valid JSON: \ud800 to \udfff stand only in pairs",
    BAD_CONTROL: "not valid JSON: a control character in a string is not escaped",
    NOT_UTF8: "not valid JSON: a string is not UTF-8",
    TOO_NESTED: "not a valid request: arrays and objects are nested too deep",
    TRAILING: "not valid JSON: something follows the request",
}

_EXPECTED = {
    NO_OBJECT: "an object",
    NO_ARRAY: "an array",
    NO_STRING: "a string",
    NO_HEXADECIMAL: "hexadecimal digits",
    NO_BASE64: "base64",
    NO_BOOL: "true or false",
    NO_NUMBER: "a number",
    NO_INTEGER: "an integer",
    NO_ENUM: "the enum's number",
}


@cython.cfunc
@cython.exceptval(check=False)
def _read(p: cython.pointer(Pass), at: cython.pointer(cython.const[uint8_t]), number: cython.int) -> cython.pointer(
    cython.const[uint8_t]
):
    """Read the whole text into a message of a type."""
    at = read_message(p, blank(at), number, 0)
    if at == cython.NULL:
        return cython.NULL
    at = blank(at)
    return at if at == p.text.end else broken(cython.address(p.text), at, TRAILING)


@cython.cfunc
@cython.exceptval(-1)
def _prepare(
    p: cython.pointer(Pass), text: cython.pointer(cython.const[uint8_t]), length: cython.Py_ssize_t
) -> cython.int:
    """Begin a pass over a text, with room for what a request usually becomes: less than its text."""
    room: cython.Py_ssize_t = length + 2 * SPARE
    memset(p, 0, cython.sizeof(Pass))
    memset(p.element, 255, LEVELS * cython.sizeof(cython.Py_ssize_t))
    memcpy(p.next, usual_order(), FIELDS * cython.sizeof(uint16_t))
    p.fields = all_fields()
    p.messages = all_messages()
    p.text.end = text + length
    p.base = cython.cast(cython.pointer(uint8_t), malloc(room))
    if p.base == cython.NULL:
        raise MemoryError
    p.out = p.base
    p.limit = p.base + room
    return 0


def to_protobuf(signal: Signal, body: bytes | bytearray) -> bytes:
    """Return an OTLP/JSON export request of a signal as protobuf bytes.

    Raises Malformed with the path of the value, or the byte of the text, that is wrong. Only the form is judged:
    whether an id has the right length, say, is for whoever reads the result.
    """
    p: Pass
    text: cython.pointer(cython.const[uint8_t])
    number: cython.int = request_of(signal.code)
    if isinstance(body, bytearray):
        text = cython.cast(cython.pointer(uint8_t), PyByteArray_AS_STRING(body))
    elif isinstance(body, bytes):
        text = cython.cast(cython.pointer(uint8_t), PyBytes_AS_STRING(body))
    else:
        raise TypeError(f"expected bytes or bytearray, not {type(body).__name__}")
    _prepare(cython.address(p), text, len(body))
    try:
        if _read(cython.address(p), text, number) == cython.NULL:
            if p.text.failure == NO_MEMORY:
                raise MemoryError
            raise Malformed(f"{_BROKEN[p.text.failure]}, at byte {p.text.where - text}")
        if p.unfit == cython.NULL:
            return PyBytes_FromStringAndSize(cython.cast(cython.p_char, p.base), p.out - p.base)
        p.wanted = p.unfit
        p.unfit = cython.NULL
        p.out = p.base
        _read(cython.address(p), text, number)
        raise Malformed(f"{_path(cython.address(p))}: {_complaint(cython.address(p))}")
    finally:
        free(p.base)


@cython.cfunc
def _path(p: cython.pointer(Pass)) -> str:
    """Return the path of the wanted value."""
    steps: list = []
    i: cython.int
    for i in range(p.steps):
        steps.append(NAMES[p.path[i]] + (f"[{p.element[i]}]" if p.element[i] >= 0 else ""))
    return ".".join(steps) or "the request"


@cython.cfunc
def _complaint(p: cython.pointer(Pass)) -> str:
    """Return what is wrong with the wanted value."""
    field: cython.pointer(cython.const[Field])
    names: list
    i: cython.int
    if p.reason == TOO_DEEP:
        return f"messages are nested more than {DEPTH} deep"
    if p.reason == EXCLUSIVE:
        names = [NAMES[p.message.first + i] for i in range(MESSAGE_FIELDS) if p.exclusive >> i & 1]
        return f"{' and '.join(names)} exclude each other"
    if p.reason == OUT_OF_RANGE:
        field = cython.address(p.fields[p.path[p.steps - 1]])
        return f"{_shown(p)} is not within {-int(field.lowest)} to {field.highest}"
    return f"expected {_EXPECTED[p.reason]}, not {_shown(p)}"


@cython.cfunc
def _shown(p: cython.pointer(Pass)) -> str:
    """Return the wanted value as a message repeats it: its kind, or as it is written, cut short."""
    length: cython.Py_ssize_t
    written: bytes
    shown: str
    if p.wanted[0] == 123:
        return "an object"
    if p.wanted[0] == 91:
        return "an array"
    length = min(skip_value(cython.address(p.text), p.wanted) - p.wanted, 4 * SHOWN + 4)  # UTF-8's longest
    written = cython.cast(cython.p_const_char, p.wanted)[:length]
    shown = written.decode("utf-8", "ignore")
    return shown if len(shown) <= SHOWN else shown[:SHOWN] + "…"
