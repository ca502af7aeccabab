"""Writes OTLP/JSON in all the ways that mean the same: white space, order, escapes, numbers, junk in between."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from random import Random
from typing import Any

from google.protobuf.descriptor import FieldDescriptor as F

IDS = ("trace_id", "span_id", "parent_span_id")
_SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\b": "\\b", "\f": "\\f", "/": "\\/"}
_JUNK = (
    "null", "true", "false", "0", "-0.5e-3", "1e999", '""', '"\\ud83d\\ude00"', "[]", "{}", '[{"a":[1,{"b":"]}"}]}]',
    '{"":{"x":[null,[]]}}', '"é\\u0000"', "123456789012345678901234567890",
)  # fmt: skip
_UNKNOWN = ("trace_id", "scope_spans", "Key", "value ", "", "kin", "kindd", "later", "名")
_MISFITS = ("1e999", "[1]", '{"a":1}', '"x"', "true", '[{"resource":5}]', '{"values":[{"stringValue":5}]}')


class Speller:
    """Writes messages; `chance` decides how. `plain` is compact and in order, as exporters write."""

    def __init__(self, chance: Random, *, plain: bool = False) -> None:
        self._chance = chance
        self._plain = plain

    def request(self, message: Any) -> bytes:
        return (self._blank() + self._message(message) + self._blank()).encode()

    def _sometimes(self, probability: float) -> bool:
        return not self._plain and self._chance.random() < probability

    def _blank(self) -> str:
        return (
            "".join(self._chance.choices(" \t\r\n", k=self._chance.choice((1, 3, 20)))) if self._sometimes(0.1) else ""
        )

    def _message(self, message: Any) -> str:
        members = [(field.json_name, self._field(field, value)) for field, value in message.ListFields()]
        names = {field.json_name for field in message.DESCRIPTOR.fields}
        if not self._plain:
            self._chance.shuffle(members)
        for _ in range(self._chance.randint(1, 3) if self._sometimes(0.1) else 0):
            members.insert(self._chance.randint(0, len(members)), self._junk(members, names))
        written = [f"{self._key(name)}{self._blank()}:{self._blank()}{value}{self._blank()}" for name, value in members]
        return "{" + self._blank() + f",{self._blank()}".join(written) + "}"

    def _junk(self, members: list[tuple[str, str]], names: set[str]) -> tuple[str, str]:
        """Return a member that changes nothing: unknown, null, or void because the same key comes again."""
        chance = self._chance
        absent = sorted(names - {name for name, _ in members})
        if absent and chance.random() < 0.3:
            return chance.choice(absent), "null"
        unknown = chance.choice([name for name in _UNKNOWN if name not in names])
        given = [name for name, _ in members]
        single = [i for i, name in enumerate(given) if given.count(name) == 1]
        if single and chance.random() < 0.5:
            name, value = members.pop(chance.choice(single))
            members.append((name, value))
            void = chance.choice((*_JUNK, *_MISFITS, value))
            members.insert(chance.randrange(len(members)), (name, void))
        return unknown, chance.choice(_JUNK)

    def _key(self, name: str) -> str:
        return self.text(name) if self._sometimes(0.05) else json.dumps(name, ensure_ascii=False)

    def text(self, text: str) -> str:
        """Write a string, any character escaped or not."""
        if self._plain:
            return json.dumps(text, ensure_ascii=False)
        rate = self._chance.choice((0, 0, 0.1, 1))
        return '"' + "".join(self._character(character, rate) for character in text) + '"'

    def _character(self, character: str, rate: float) -> str:
        chance = self._chance
        if character in _SHORT and (chance.random() < 0.5 or character != "/"):
            return _SHORT[character]
        if character < " " or chance.random() < rate:
            units = character.encode("utf-16-be").hex()
            units = units.upper() if chance.random() < 0.5 else units
            return "".join("\\u" + units[i : i + 4] for i in range(0, len(units), 4))
        return character

    def _field(self, field: Any, value: Any) -> str:
        if not field.is_repeated:
            return self._value(field, value)
        items = [self._blank() + self._value(field, item) + self._blank() for item in value]
        return "[" + self._blank() + ",".join(items) + "]"

    def _value(self, field: Any, value: Any) -> str:
        if field.message_type is not None:
            return self._message(value)
        if field.type == F.TYPE_STRING:
            return self.text(value)
        if field.type == F.TYPE_BYTES:
            return self.text(self._hexadecimal(value) if field.name in IDS else self._base64(value))
        if field.type == F.TYPE_BOOL:
            return "true" if value else "false"
        if field.type == F.TYPE_DOUBLE:
            return self._double(value)
        return self._integer(value, may_be_text=field.enum_type is None)

    def _hexadecimal(self, value: bytes) -> str:
        return "".join(c.upper() if self._sometimes(0.3) else c for c in value.hex())

    def _base64(self, value: bytes) -> str:
        text = base64.b64encode(value).decode()
        text = text.replace("+", "-").replace("/", "_") if self._sometimes(0.5) else text
        return text.rstrip("=") if self._sometimes(0.5) else text

    def _integer(self, value: int, *, may_be_text: bool) -> str:
        chance = self._chance
        written = str(value)
        if value and self._sometimes(0.2):
            zeros = len(written) - len(written.rstrip("0"))
            written = chance.choice((
                f"{written}.0", f"{written}.000000000000000000000000", f"{written}e0", f"{written}00E-2",
                f"{written[: len(written) - zeros]}e+{zeros}", f"{written}{'0' * 30}e-0030",
            ))  # fmt: skip
        if not may_be_text or self._sometimes(0.3):
            return written
        if self._sometimes(0.2) and value >= 0:
            written = chance.choice(("+", "00", "0000000000000000000000000")) + written
        return self.text(written)

    def _double(self, value: float) -> str:
        if value != value or value in (float("inf"), float("-inf")):
            return self.text("NaN" if value != value else "Infinity" if value > 0 else "-Infinity")
        exact = Decimal(value)
        written = self._chance.choice((repr(value), f"{value:.17g}", f"{value:.30e}", f"{exact:f}", f"{exact:E}"))
        written = repr(value) if self._plain else written
        return self.text(written) if self._sometimes(0.3) else written
