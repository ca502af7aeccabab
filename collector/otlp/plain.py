"""OTLP's values as plain JSON, for answers that people and programs read rather than replay.

Texts, truth values, whole numbers (exact, also beyond 2^53), lists and objects are what they are; bytes are base64, doubles
that JSON has no number for are the words that protobuf writes, and a value that is not there is None. Of keys that occur
twice the first counts. As deep as OTLP may nest, which the scanner bounds.
"""

from __future__ import annotations

import base64
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable


def plain(value: Any) -> Any:
    """Return an AnyValue as what `json` and `msgspec` write."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "int_value":
            return value.int_value
        case "double_value":
            return plain_number(value.double_value)
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case "array_value":
            return [plain(one) for one in value.array_value.values]
        case "kvlist_value":
            return plain_pairs(value.kvlist_value.values)
        case _:
            return None


def plain_pairs(pairs: Iterable[Any]) -> dict[str, Any]:
    """Return KeyValues as an object, in their order."""
    found: dict[str, Any] = {}
    for pair in pairs:
        if pair.key not in found:
            found[pair.key] = plain(pair.value)
    return found


def plain_number(value: float) -> float | str:
    """Return a double, or its word: NaN, Infinity, -Infinity."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
