"""OTLP/JSON the plain way: the standard library reads the text, and a protobuf message is filled field by field.

It knows the same rules as `collector/otlp/json` (see there) and shares nothing with it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from decimal import Decimal
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor as F

from collector.otlp.signals import Signal

DEPTH: Final = 100
_IDS = ("trace_id", "span_id", "parent_span_id")
_DECIMAL = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_BASE64 = re.compile("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}(?:==)?|[A-Za-z0-9+/]{3}=?)?")
_RANGES = {
    F.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    F.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    F.CPPTYPE_UINT32: (0, 2**32 - 1),
    F.CPPTYPE_UINT64: (0, 2**64 - 1),
    F.CPPTYPE_ENUM: (-(2**31), 2**31 - 1),
}


class Refused(Exception):
    """The text is no request."""


class Number(str):
    """A number as it is written."""

    __slots__ = ()


def parse(signal: Signal, text: bytes) -> Any:
    """Return the request that a text stands for; raise Refused when it is none."""
    try:
        tree = json.loads(
            text.decode(),
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=_object,
        )
        _check_text(tree)
    except (ValueError, RecursionError) as error:
        raise Refused(str(error)) from error
    request = signal.request_type()
    _fill(request, tree, 0)
    return request


def _refuse_constant(name: str) -> None:
    raise Refused(name)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, value in pairs:
        _check_text(key)
        _check_text(value)
    return dict(pairs)


def _check_text(value: Any) -> None:
    """Refuse a lone surrogate; objects have been checked already."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, list):
        for item in value:
            _check_text(item)


def _fill(message: Any, value: Any, depth: int) -> None:
    if not isinstance(value, dict) or depth > DEPTH:
        raise Refused("no object, or too deep")
    given = {key for key, item in value.items() if item is not None}
    for oneof in message.DESCRIPTOR.oneofs:
        if len(given & {field.json_name for field in oneof.fields}) > 1:
            raise Refused("two of a oneof")
    for field in message.DESCRIPTOR.fields:
        if field.json_name in given:
            _set(message, field, value[field.json_name], depth)


def _set(message: Any, field: Any, value: Any, depth: int) -> None:
    if field.is_repeated:
        if not isinstance(value, list):
            raise Refused("no array")
        target = getattr(message, field.name)
        for item in value:
            if field.message_type is not None:
                _fill(target.add(), item, depth + 1)
            else:
                target.append(_scalar(field, item))
    elif field.message_type is not None:
        target = getattr(message, field.name)
        target.SetInParent()
        _fill(target, value, depth + 1)
    else:
        setattr(message, field.name, _scalar(field, value))


def _scalar(field: Any, value: Any) -> Any:
    if field.type == F.TYPE_BOOL:
        if not isinstance(value, bool):
            raise Refused("no truth value")
        return value
    if field.type == F.TYPE_DOUBLE:
        return _double(value)
    if field.cpp_type in _RANGES:
        return _integer(field, value)
    if not isinstance(value, str) or isinstance(value, Number):
        raise Refused("no string")
    if field.type == F.TYPE_STRING:
        return value
    return _hexadecimal(value) if field.name in _IDS else _base64(value)


def _double(value: Any) -> float:
    if not isinstance(value, Number) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if not isinstance(value, str) or not _DECIMAL.fullmatch(value) or not math.isfinite(number := float(value)):
        raise Refused("no number")
    return number


def _integer(field: Any, value: Any) -> int:
    if not isinstance(value, str) or (field.enum_type is not None and not isinstance(value, Number)):
        raise Refused("no integer")
    found = _DECIMAL.fullmatch(value)
    if found is None:
        raise Refused("no number")
    sign, whole, fraction, exponent = found.groups(default="")
    digits = (whole + fraction).rstrip("0")
    if not digits.strip("0"):
        return 0
    power = int(exponent or 0) + len(whole) - len(digits)
    if not 0 <= power <= 30 or len(digits.lstrip("0")) > 30:
        raise Refused("no integer, or a very large one")
    number = int(Decimal(f"{sign}{digits}e{power}"))
    low, high = _RANGES[field.cpp_type]
    if not low <= number <= high:
        raise Refused("out of range")
    return number


def _hexadecimal(value: str) -> bytes:
    if not re.fullmatch("(?:[0-9a-fA-F]{2})*", value):
        raise Refused("no hexadecimal")
    return bytes.fromhex(value)


def _base64(value: str) -> bytes:
    text = value.replace("-", "+").replace("_", "/")
    if not _BASE64.fullmatch(text):
        raise Refused("no base64")
    return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
