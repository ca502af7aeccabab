# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""OTLP's fields by their JSON names, from the protobuf descriptors: what drives the reading and writing of OTLP/JSON.

A field that a newer opentelemetry-proto brings is understood without a change here. Each message type has an
entry for its beginning and, behind it, one for each field in the order of field numbers. Entry 0 is no field.
"""

import cython
from cython.cimports.collector.otlp.json.fields import *  # noqa: F403
from cython.cimports.libc.stdint import uint8_t, uint16_t, uint64_t
from cython.cimports.libc.string import memcpy, memset

from collector.otlp.signals import SIGNALS

_fields = cython.declare(Field[FIELDS])
_messages = cython.declare(Message[MESSAGES])
_next = cython.declare(uint16_t[FIELDS])
_requests = cython.declare(cython.int[8])
_words = cython.declare(cython.p_const_char[WORDS])

NAMES: list = [""] * FIELDS
"""The JSON name of each entry."""
_kept_words: list = []  # what _words points into

_NO_KEY = cython.declare(uint64_t, 0xFFFFFFFFFFFFFFFF)  # what its mask takes is never 0
_IDENTIFIERS = ("trace_id", "span_id", "parent_span_id")


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def all_fields() -> cython.pointer(cython.const[Field]):
    return _fields


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def all_messages() -> cython.pointer(cython.const[Message]):
    return _messages


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def all_words() -> cython.pointer(cython.p_const_char):
    """Return the names of the values of enums, in quotes."""
    return _words


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def request_of(code: cython.int) -> cython.int:
    return _requests[code]


@cython.cfunc
@cython.nogil
@cython.exceptval(check=False)
def usual_order() -> cython.pointer(cython.const[uint16_t]):
    """Return for each entry the field that comes next in the order of field numbers."""
    return _next


def _form(field) -> tuple:
    """Return a field's kind, its wire type, and how far an integer goes below and above 0."""
    if field.message_type is not None:
        return MESSAGE, 2, 0, 0
    if field.type == field.TYPE_STRING:
        return STRING, 2, 0, 0
    if field.type == field.TYPE_BYTES:
        return (HEXADECIMAL if field.name in _IDENTIFIERS else BASE64), 2, 0, 0
    if field.type == field.TYPE_BOOL:
        return BOOL, 0, 0, 1
    if field.type == field.TYPE_DOUBLE:
        return DOUBLE, 1, 0, 0
    if field.type == field.TYPE_ENUM:
        return ENUM, 0, 2**31, 2**31 - 1
    bits = 32 if field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_UINT32) else 64
    is_signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64)
    reach = (2 ** (bits - 1), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)
    if field.type in (field.TYPE_SINT32, field.TYPE_SINT64):
        return ZIGZAG, 0, *reach
    if field.type in (field.TYPE_FIXED32, field.TYPE_SFIXED32):
        return FIXED32, 5, *reach
    if field.type in (field.TYPE_FIXED64, field.TYPE_SFIXED64):
        return FIXED64, 1, *reach
    if field.type in (field.TYPE_INT32, field.TYPE_INT64, field.TYPE_UINT32, field.TYPE_UINT64):
        return VARINT, 0, *reach
    raise RuntimeError(f"{field.full_name} has a type that OTLP did not use before")


def _add_field(entry: cython.int, field, child: cython.int) -> None:
    made: cython.pointer(Field) = cython.address(_fields[entry])
    kind, wire_type, lowest, highest = _form(field)
    key: bytes = b'"' + field.json_name.encode() + b'"'
    numeric = kind not in (MESSAGE, STRING, HEXADECIMAL, BASE64)
    tag: int = field.number << 3 | (2 if field.is_repeated and numeric else wire_type)
    written: bytes = b""
    while tag > 127:
        written += bytes((tag & 127 | 128,))
        tag >>= 7
    written += bytes((tag,))
    if len(key) > KEY_BYTES or len(written) > 4:
        raise RuntimeError(f"{field.full_name} does not fit the table of fields")
    memcpy(made.key, cython.cast(cython.p_char, key), len(key))
    memset(made.mask, 255, len(key))
    made.key_length = len(key)
    memcpy(cython.address(made.tag), cython.cast(cython.p_char, written), len(written))
    made.tag_length = len(written)
    made.kind = kind
    made.lowest = lowest
    made.highest = highest
    made.repeated = field.is_repeated
    made.child = child
    made.is_pair = kind == MESSAGE and field.message_type.full_name == "opentelemetry.proto.common.v1.KeyValue"
    made.explicit = field.has_presence
    if kind == ENUM:
        _add_words(made, field.enum_type)
    NAMES[entry] = field.json_name


@cython.cfunc
def _add_words(made: cython.pointer(Field), enum) -> cython.void:
    """Keep the names of the values from 0 on; what lies behind a gap has none."""
    value: cython.int = 0
    word: bytes
    made.words = len(_kept_words)
    while value in enum.values_by_number:
        if len(_kept_words) >= WORDS:
            raise RuntimeError(f"{enum.full_name} does not fit the table of names")
        word = b'"' + enum.values_by_number[value].name.encode() + b'"'
        _kept_words.append(word)
        _words[made.words + value] = word
        value += 1
    made.word_count = value


def _add_message(number: cython.int, first: cython.int, descriptor, number_of) -> None:
    made: cython.pointer(Message) = cython.address(_messages[number])
    oneofs: list = [oneof for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    entry: cython.int
    slot: cython.int
    key: bytes
    made.first = first
    made.count = len(descriptor.fields)
    _fields[first].mask[0] = _NO_KEY
    if len(descriptor.fields) >= MESSAGE_FIELDS or first + len(descriptor.fields) >= FIELDS or len(oneofs) > ONEOFS:
        raise RuntimeError(f"{descriptor.full_name} does not fit the table of fields")
    for i, field in enumerate(sorted(descriptor.fields, key=lambda field: field.number), 1):
        entry = first + i
        if field.number >= MESSAGE_FIELDS:
            raise RuntimeError(f"{field.full_name} does not fit the table of fields")
        made.place[cython.cast(cython.int, field.number)] = i
        _add_field(entry, field, number_of(field.message_type) if field.message_type is not None else 0)
        key = field.json_name.encode()
        slot = slot_of(cython.cast(cython.pointer(uint8_t), cython.cast(cython.p_char, key)), len(key))
        _next[entry - 1] = entry
        _next[entry] = entry
        _fields[entry].chained = made.slot[slot]
        made.slot[slot] = entry
        if field.containing_oneof in oneofs:
            made.oneofs[oneofs.index(field.containing_oneof)] |= 1 << i


def _fill_tables() -> None:
    _fields[0].mask[0] = _NO_KEY
    numbers: dict = {}
    order: list = []

    def number_of(descriptor) -> int:
        if descriptor.full_name not in numbers:
            numbers[descriptor.full_name] = len(numbers)
            order.append(descriptor)
        return numbers[descriptor.full_name]

    for signal in SIGNALS:
        _requests[signal.code] = number_of(signal.request_type.DESCRIPTOR)
    first: cython.int = 1
    for descriptor in order:  # grows while it is walked
        if numbers[descriptor.full_name] >= MESSAGES:
            raise RuntimeError(f"{descriptor.full_name} does not fit the table of fields")
        _add_message(numbers[descriptor.full_name], first, descriptor, number_of)
        first += len(descriptor.fields) + 1


_fill_tables()
