"""Texts and words in plain Python, by the protobuf library: what collector/otlp/texts.py and words.py must find."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Any

from collector.otlp import words as module
from collector.otlp.texts import ATTRIBUTE, ATTRIBUTE_OPAQUE, BODY, BODY_NUMBER, BODY_OPAQUE

APART = "".join(chr(code) for first, last in module._APART for code in range(first, last + 1))


def is_word(character: str) -> bool:
    if character.isascii():
        return character.isalnum() or character == "_"
    return character not in APART and not 0x1F000 <= ord(character) <= 0x1FAFF


def fold(character: str) -> str:
    """Simple case folding: one character for one, where Unicode 14 has one in the basic plane."""
    code = ord(character)
    if code in dict(module._ALIKE):
        return chr(dict(module._ALIKE)[code])
    if code > 0xFFFF or code == 0x1C89 or 0xA7CB <= code < 0xA7D0 or 0xA7DA <= code < 0xA7F0 or not is_word(character):
        return character
    if unicodedata.category(character) == "Nl" and not 0x2126 <= code < 0x2184:
        return character
    for folded in (character.casefold(), character.lower()):
        if len(folded) == 1:
            return folded
    return character


def words(text: str) -> list[tuple[int, int, bytes]]:
    """The words of a text: where they are in its UTF-8, and what they are."""
    found = []
    place, begin, folded = 0, 0, ""
    for character in text + " ":
        if is_word(character):
            if not folded:
                begin = place
            folded += fold(character)
        elif folded:
            found.append((begin, place, folded.encode()))
            folded = ""
        place += len(character.encode())
    return found


def of_value(value: Any, kind: int, depth: int = 0) -> Iterator[tuple[int, str] | int]:
    """The texts of an AnyValue with their kind, and flags."""
    opaque = ATTRIBUTE_OPAQUE if kind == ATTRIBUTE else BODY_OPAQUE
    match value.WhichOneof("value"):
        case "string_value":
            yield from of_string(value.string_value, kind, depth)
        case "array_value":
            for member in value.array_value.values:
                yield from of_value(member, kind, depth + 1)
        case "kvlist_value":
            for pair in value.kvlist_value.values:
                if kind == BODY:
                    yield from of_string(pair.key, kind, depth + 1)
                yield from of_value(pair.value, kind, depth + 1)
        case "bytes_value":
            yield opaque
        case None if not depth:
            pass
        case _ if kind == BODY:
            yield BODY_NUMBER


def of_string(text: str, kind: int, depth: int) -> Iterator[tuple[int, str] | int]:
    if text:
        yield kind, text
    if kind == BODY and depth and any(character < " " or character in '"\\' for character in text):
        yield BODY_OPAQUE


def of_record(record: Any) -> tuple[list[tuple[int, str]], int]:
    """The texts of a LogRecord, sorted, and its flags."""
    found = [*of_value(record.body, BODY)]
    for pair in record.attributes:
        found += of_value(pair.value, ATTRIBUTE)
    return _sorted([*found, *((ATTRIBUTE, text) for text in (record.severity_text, record.event_name) if text)])


def of_span(span: Any) -> tuple[list[tuple[int, str]], int]:
    """The texts of a Span, sorted, and its flags."""
    names = (span.name, span.status.message, *(event.name for event in span.events))
    found: list[tuple[int, str] | int] = [(ATTRIBUTE, text) for text in names if text]
    for part in (span, *span.events, *span.links):
        for pair in part.attributes:
            found += of_value(pair.value, ATTRIBUTE)
    return _sorted(found)


def of_container(resource: Any, scope: Any) -> tuple[list[tuple[int, str]], int]:
    """The texts of a resource and a scope, sorted, and their flags."""
    found: list[tuple[int, str] | int] = [(ATTRIBUTE, text) for text in (scope.name, scope.version) if text]
    for pair in (*resource.attributes, *scope.attributes):
        found += of_value(pair.value, ATTRIBUTE)
    return _sorted(found)


def _sorted(found: list[tuple[int, str] | int]) -> tuple[list[tuple[int, str]], int]:
    flags = 0
    texts = []
    for one in found:
        if isinstance(one, int):
            flags |= one
        else:
            texts.append(one)
    return sorted(texts), flags
