"""OTLP/JSON to protobuf: one request's text in, the wire bytes of the same Export…ServiceRequest out.

msgspec reads the text into dicts; then one function per message field, built once from the protobuf
descriptors, writes the field's wire form, innermost message first. No protobuf message is made. What a field
is (its number, its type, whether it repeats) is read from the descriptors, so a field that a newer
opentelemetry-proto brings is understood without a change here.

The mapping is proto3's JSON mapping with OTLP's exceptions (opentelemetry-proto, "JSON Protobuf Encoding"):

* traceId, spanId and parentSpanId are hexadecimal, in any case; other bytes are base64, standard or URL-safe,
  padded or not;
* enums are numbers; a name is refused, with a message that says so;
* keys are lowerCamelCase; every other key, a snake_case one too, is an unknown field, and those are ignored;
* integers may be numbers or decimal strings, floating-point numbers also "NaN", "Infinity" and "-Infinity";
* null is an absent field, but no element of an array;
* two fields of one `oneof` are refused; of two equal keys in one object the last counts.

Text that is no JSON, a lone surrogate, a number out of its field's range and messages nested deeper than
protobuf's limit are refused too. A message says where: `resourceSpans[0].scopeSpans[0].spans[3].traceId: …`.

Cost: 14 µs a span of 400 B, of which reading the text is 3 (json_format: 94, and it takes ids for base64).
Reading into typed Structs takes 1.4 µs less, but msgspec's errors then do not say which element, and both
ways would be needed. A compiled transcoder straight from text to wire bytes would be another order of magnitude.
"""

from __future__ import annotations

import binascii
import math
import struct
from collections.abc import Callable
from typing import Any, Final

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from collector.errors import Malformed
from collector.otlp.signals import SIGNALS, Signal

DEPTH: Final = 100
"""Messages nested below the request, as many as the protobuf library accepts."""
SHOWN: Final = 40
"""Characters of an offending value that a message repeats."""

_Encode = Callable[[Any, int], bytes]
"""Takes a field's JSON value and the depth of its message; returns the field's wire form, tag included."""

_HEXADECIMAL = frozenset({"trace_id", "span_id", "parent_span_id"})
_ZIGZAG = frozenset({FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64})
_FIXED = {
    FieldDescriptor.TYPE_FIXED64: "Q",
    FieldDescriptor.TYPE_SFIXED64: "q",
    FieldDescriptor.TYPE_FIXED32: "I",
    FieldDescriptor.TYPE_SFIXED32: "i",
    FieldDescriptor.TYPE_DOUBLE: "d",
}
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}
_INTEGER_DIGITS = 20
"""The longest decimal that can be in range, its sign included."""
_NAMED_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_NUMBER_CHARACTERS = frozenset("0123456789+-.eE")
_URL_SAFE = str.maketrans("-_", "+/")


class _Invalid(Exception):
    """A value that its field cannot hold; each container on the way out adds its step to the path."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.steps: list[str] = []

    def __str__(self) -> str:
        path = "".join(reversed(self.steps)).removeprefix(".")
        return f"{path or 'the request'}: {self.reason}"


def to_protobuf(signal: Signal, body: bytes | bytearray) -> bytes:
    """Return an OTLP/JSON export request of a signal as protobuf bytes.

    Raises Malformed with the path of what is wrong. Only the form is judged: whether an id has the right
    length, say, is for whoever reads the result.
    """
    try:
        tree = _DECODER.decode(body)
    except UnicodeDecodeError as error:
        raise Malformed(f"not valid JSON: not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise Malformed("not a valid request: arrays and objects are nested too deep") from error
    except msgspec.MsgspecError as error:
        hint = r"; \ud800 to \udfff stand only in pairs" if rb"\ud" in body or rb"\uD" in body else ""
        raise Malformed(f"not valid JSON: {error}{hint}") from error
    try:
        return _REQUESTS[signal](tree, 0)
    except _Invalid as error:
        raise Malformed(str(error)) from error


def _message(descriptor: Descriptor, known: dict[str, _Encode]) -> _Encode:
    """Return the function that writes one message of a type, without tag and length.

    `known` is shared by all types of one table, so that a type that holds itself finds its own function.
    """
    name = descriptor.full_name
    if name in known:
        return known[name]
    fields: dict[str, _Encode] = {}
    oneofs = [
        frozenset(field.json_name for field in oneof.fields) for oneof in descriptor.oneofs if len(oneof.fields) > 1
    ]

    def encode(value: Any, depth: int) -> bytes:
        if type(value) is not dict:
            raise _Invalid(f"expected an object, not {_shown(value)}")
        if depth > DEPTH:
            raise _Invalid(f"messages are nested more than {DEPTH} deep")
        if oneofs and len(value) > 1:
            _check_oneofs(oneofs, value)
        parts = []
        key = ""
        try:
            for key, item in value.items():
                field = fields.get(key)
                if field is not None and item is not None:
                    parts.append(field(item, depth))
        except _Invalid as error:
            error.steps.append(f".{key}")
            raise
        return b"".join(parts)

    known[name] = encode
    for field in descriptor.fields:
        fields[field.json_name] = _field(field, known)
    return encode


def _check_oneofs(oneofs: list[frozenset[str]], value: dict[str, Any]) -> None:
    for names in oneofs:
        given = [key for key, item in value.items() if item is not None and key in names]
        if len(given) > 1:
            raise _Invalid(f"{' and '.join(given)} exclude each other")


def _field(field: FieldDescriptor, known: dict[str, _Encode]) -> _Encode:
    """Return the function that writes one field."""
    if field.message_type is not None:
        encode = _message(field.message_type, known)
        return (_messages if field.is_repeated else _submessage)(_tag(field, 2), encode)
    if field.is_repeated and field.type in _FIXED:
        return _packed_fixed(field)
    if field.is_repeated and field.type not in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
        return _packed_varints(field)
    scalar = _scalar(field)
    return _repeated(scalar) if field.is_repeated else scalar


def _submessage(tag: bytes, encode: _Encode) -> _Encode:
    def write(value: Any, depth: int) -> bytes:
        body = encode(value, depth + 1)
        size = len(body)
        return tag + (_varint(size)) + body

    return write


def _messages(tag: bytes, encode: _Encode) -> _Encode:
    def write(values: Any, depth: int) -> bytes:
        parts: list[bytes] = []
        depth += 1
        for value in _elements(values):
            try:
                body = encode(value, depth)
            except _Invalid as error:
                # Every element before this one has left three parts.
                error.steps.append(f"[{len(parts) // 3}]")
                raise
            size = len(body)
            parts += (tag, _VARINTS[size] if size < _SMALL else _long_varint(size), body)
        return b"".join(parts)

    return write


def _repeated(scalar: _Encode) -> _Encode:
    def write(values: Any, depth: int) -> bytes:
        return b"".join([_element(scalar, i, value, depth) for i, value in enumerate(_elements(values))])

    return write


def _element(encode: _Encode, index: int, value: Any, depth: int) -> bytes:
    try:
        return encode(value, depth)
    except _Invalid as error:
        error.steps.append(f"[{index}]")
        raise


def _elements(values: Any) -> list[Any]:
    if type(values) is not list:
        raise _Invalid(f"expected an array, not {_shown(values)}")
    return values


def _packed_fixed(field: FieldDescriptor) -> _Encode:
    tag, letter, convert = _tag(field, 2), _FIXED[field.type], _converter(field)

    def element(value: Any, depth: int) -> bytes:
        convert(value)
        return b""

    def write(values: Any, depth: int) -> bytes:
        try:
            body = struct.pack(f"<{len(_elements(values))}{letter}", *map(convert, values))
        except _Invalid:
            if type(values) is list:
                # Again one by one, to learn which.
                for i, value in enumerate(values):
                    _element(element, i, value, depth)
            raise
        return tag + _varint(len(body)) + body if body else b""

    return write


def _packed_varints(field: FieldDescriptor) -> _Encode:
    tag, convert = _tag(field, 2), _converter(field)

    def element(value: Any, depth: int) -> bytes:
        return _varint(convert(value))

    def write(values: Any, depth: int) -> bytes:
        body = b"".join([_element(element, i, value, depth) for i, value in enumerate(_elements(values))])
        return tag + _varint(len(body)) + body if body else b""

    return write


def _scalar(field: FieldDescriptor) -> _Encode:
    """Return the function that writes one scalar, tag included."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text(_tag(field, 2))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _delimited(_tag(field, 2), _identifier if field.name in _HEXADECIMAL else _base64)
    convert = _converter(field)
    if field.type in _FIXED:
        letter = _FIXED[field.type]
        tag, pack = _tag(field, 1 if letter in "Qqd" else 5), struct.Struct(f"<{letter}").pack
        return lambda value, depth: tag + pack(convert(value))
    tag = _tag(field, 0)
    return lambda value, depth: tag + _varint(convert(value))


def _text(tag: bytes) -> _Encode:
    prefixes = [tag + bytes((size,)) for size in range(128)]

    def write(value: Any, depth: int) -> bytes:
        if type(value) is not str:
            raise _Invalid(f"expected a string, not {_shown(value)}")
        body = value.encode()
        size = len(body)
        return prefixes[size] + body if size < 128 else tag + _varint(size) + body

    return write


def _delimited(tag: bytes, convert: Callable[[Any], bytes]) -> _Encode:
    def write(value: Any, depth: int) -> bytes:
        body = convert(value)
        return tag + _varint(len(body)) + body

    return write


def _converter(field: FieldDescriptor) -> Callable[[Any], Any]:
    """Return the function from JSON value to the number that the wire form holds."""
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _double
    if field.type == FieldDescriptor.TYPE_BOOL:
        return _bool
    if field.cpp_type not in _RANGES:
        raise NotImplementedError(f"{field.full_name} has a type that OTLP did not use before")
    low, high = _RANGES[field.cpp_type]
    is_enum, zigzag = field.enum_type is not None, field.type in _ZIGZAG

    def convert(value: Any) -> int:
        if type(value) is str:
            if is_enum:
                raise _Invalid(f"expected the enum's number, not {_shown(value)}")
            value = int(value) if value.isdecimal() and value.isascii() and len(value) < 20 else _integer(value)
        elif type(value) is not int:
            value = _integer(value)
        if not low <= value <= high:
            raise _Invalid(f"{_shown(value)} is not within {low} to {high}")
        number: int = value
        return number if not zigzag else number * 2 if number >= 0 else -number * 2 - 1

    return convert


def _integer(value: Any) -> int:
    """Return the integer that a string, or a number with a fraction or an exponent, stands for."""
    if type(value) is str and len(value) <= _INTEGER_DIGITS and value.isascii():
        if value.removeprefix("-").isdecimal():
            return int(value)
    number = _double(value) if type(value) in (float, str) else math.nan
    if not number.is_integer():
        raise _Invalid(f"expected an integer, not {_shown(value)}")
    return int(number)


def _double(value: Any) -> float:
    if type(value) is float:
        return value
    try:
        if type(value) is int:
            return float(value)
        if type(value) is str:
            if value in _NAMED_NUMBERS:
                return _NAMED_NUMBERS[value]
            if _NUMBER_CHARACTERS.issuperset(value) and math.isfinite(number := float(value)):
                return number
    except (ValueError, OverflowError):
        pass
    raise _Invalid(f"expected a number, not {_shown(value)}")


def _bool(value: Any) -> int:
    if type(value) is not bool:
        raise _Invalid(f"expected true or false, not {_shown(value)}")
    return int(value)


def _identifier(value: Any) -> bytes:
    try:
        content = bytes.fromhex(value)
    except (ValueError, TypeError):
        raise _Invalid(f"expected hexadecimal digits, not {_shown(value)}") from None
    if len(content) * 2 != len(value):  # `fromhex` steps over white space
        raise _Invalid(f"expected hexadecimal digits, not {_shown(value)}")
    return content


def _base64(value: Any) -> bytes:
    if type(value) is not str:
        raise _Invalid(f"expected base64, not {_shown(value)}")
    text = value.translate(_URL_SAFE)
    if "=" not in text:
        text += "=" * (-len(text) % 4)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        raise _Invalid(f"expected base64, not {_shown(value)}") from None


def _shown(value: Any) -> str:
    """Return a value as a message repeats it: its kind, and a short one itself."""
    if value is None:
        return "null"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = repr(value) if isinstance(value, float) else msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _tag(field: FieldDescriptor, wire_type: int) -> bytes:
    return _varint(field.number << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Return a varint; a negative number as protobuf writes it, in 64 bits."""
    if 0 <= value < _SMALL:
        return _VARINTS[value]
    return _long_varint(value & 2**64 - 1)


def _long_varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


_SMALL: Final = 1 << 14
_VARINTS: Final = [_long_varint(size) for size in range(_SMALL)]
"""The lengths of nearly all messages, ready-made."""
_DECODER: Final = msgspec.json.Decoder()


def _tables() -> dict[Signal, _Encode]:
    known: dict[str, _Encode] = {}
    return {signal: _message(signal.request_type.DESCRIPTOR, known) for signal in SIGNALS}


_REQUESTS: Final = _tables()
