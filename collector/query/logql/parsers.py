"""Stages that parse a line into labels: what each takes out of one line.

A parser writes into a `Target`: a `row.Row`, or a row of a batch (`parsing.py`). Names that the stream or the structured
metadata has get the suffix `_extracted`. `json`, `logfmt`, `pattern`, `regexp` and `unpack` leave alone what was parsed
out of the line before, by an earlier stage or under the same name further left; the expressions of `json a="b"` and
`logfmt a="b"` always set their labels, and set them empty where there is nothing.

What fails sets `__error__`: JSONParserErr, or LogfmtParserErr with `--strict`; what was found before the fault stays.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from collector.errors import InvalidQuery
from collector.query.logql import ast, members, pairs
from collector.query.logql.escapes import json_text, logfmt_text, plain_text
from collector.query.logql.patterns import parser_pattern
from collector.query.regex import compile_regex

if TYPE_CHECKING:
    from collections.abc import Sequence

JSON_ERROR: Final = "JSONParserErr"
LOGFMT_ERROR: Final = "LogfmtParserErr"

JSON_FAULTS: Final = [
    "",
    "Value looks like object, but can't find closing '}' symbol",
    "Malformed JSON error",
    "Value is array, but can't find closing ']' symbol",
    "Value is string, but can't find closing '\"' symbol",
    "Encountered an invalid escape sequence in a string",
    "Unknown value type",
    f"the objects nest deeper than {members.NESTING_MAX} levels",
]
"""What is wrong with a line that should be JSON, by the status that `members` has for it."""

_NOT_AN_OBJECT: Final = "expecting json object(6), but it is not"
_PACKED: Final = b"_entry"
_NO_LETTER = re.compile(r"[^A-Za-z0-9_]")
_PATH_STEP = re.compile(r'\[\s*(?:"([^"\]]*)"?|([0-9]+))\s*\]\s*|(?:(?<!^)\.\s*|^)([A-Za-z_][A-Za-z0-9_]*)\s*')
_FIELD = re.compile(r'\s*(?:([A-Za-z_][A-Za-z0-9_]*)|"([^"\]]*)["\]]?)\s*')

PATH_STEPS_MAX = 64
"""Steps of a path into JSON."""


class Target(Protocol):
    """A line's labels, as far as a parser has to do with them."""

    def takes(self, name: str) -> str:
        """Return the name under which a parser sets a label: with the suffix where the line has one like it."""
        ...

    def has_extracted(self, name: str) -> bool:
        """Tell whether a label of that name was ever parsed out of the line."""
        ...

    def get(self, name: str) -> str | None:
        """Return a label's text, or None if it is absent."""
        ...

    def set(self, name: str, text: str) -> None:
        """Set a parsed label."""
        ...

    def fail(self, error: str, details: str) -> None:
        """Note a fault. Without details, earlier ones stay."""
        ...


class Parser(Protocol):
    """A stage that parses lines."""

    def parse(self, line: bytes, target: Target) -> bytes:
        """Set what is in the line; return the line, which `unpack` changes."""
        ...


def parser_of(stage: ast.Json | ast.Logfmt | ast.Pattern | ast.Regexp | ast.Unpack) -> Parser:
    """Return a stage's parser. Raises InvalidQuery."""
    match stage:
        case ast.Json():
            return JsonPaths(stage) if stage.extractions else Json()
        case ast.Logfmt():
            return LogfmtFields(stage) if stage.extractions else Logfmt(stage.strict, stage.keep_empty)
        case ast.Pattern():
            return Pattern(stage)
        case ast.Regexp():
            return Regexp(stage)
        case ast.Unpack():
            return Unpack()


def label_form(key: str) -> str:
    """Return a key as a label's name: trimmed, `_` for every character that names do not have."""
    key = key.strip()
    return _NO_LETTER.sub("_", "_" + key if key[:1] in tuple("0123456789") else key)


def logfmt_fault(status: int, byte: int, place: int) -> str:
    """Return what is wrong with a line that should be logfmt; see `pairs.logfmt_status`."""
    reason = {
        1: f"unexpected {chr(byte)!r}",
        2: "invalid key",
        3: "unterminated quoted value",
        4: "invalid quoted value",
    }[status]
    return f"logfmt syntax error at pos {place + 1} : {reason}"


def _offer(target: Target, name: str, text: str) -> None:
    """Set a label unless one of its name was parsed before."""
    name = target.takes(name)
    if not target.has_extracted(name):
        target.set(name, text)


def _one(line: bytes) -> tuple[bytes, np.ndarray, np.ndarray]:
    return line, np.zeros(1, np.uint32), np.array([len(line)], np.uint32)


class Json:
    """`| json`: every member that is a text, a number or a truth value; those of nested objects under joined names."""

    def parse(self, line: bytes, target: Target) -> bytes:
        """See `Parser.parse`."""
        found, status = members.json_members(line)
        for name, kind, start, length in found:
            raw = line[start : start + length]
            _offer(target, name.decode(), json_text(raw) if kind == members.ESCAPED else plain_text(raw))
        if status:
            target.fail(JSON_ERROR, JSON_FAULTS[status])
        return line


class JsonPaths:
    """`| json a="b.c[0]"`: what stands at paths; objects and arrays as they are written."""

    def __init__(self, stage: ast.Json) -> None:
        """Read the paths. Raises InvalidQuery."""
        self.paths = [(each.label, json_path(each.path, stage.at)) for each in stage.extractions]

    def parse(self, line: bytes, target: Target) -> bytes:
        """See `Parser.parse`."""
        if not line:
            return line
        if line[:1] not in (b'"', b"{", b"["):
            target.fail(JSON_ERROR, "")
            return line
        missing = []
        for label, path in self.paths:
            kinds, starts, lengths, statuses = members.json_path(*_one(line), path)
            if statuses[0]:
                target.fail(JSON_ERROR, JSON_FAULTS[statuses[0]])
            if kinds[0] == members.NONE:
                missing.append(label)
            else:
                raw = line[int(starts[0]) : int(starts[0]) + int(lengths[0])]
                target.set(target.takes(label), path_text(int(kinds[0]), raw))
        for label in missing:
            if target.get(label) is None:
                target.set(label, "")
        return line


def path_text(kind: int, raw: bytes) -> str:
    """Return the text of what stands at a path."""
    if kind == members.NULL:
        return ""
    return json_text(raw) if kind in (members.ESCAPED, members.ARRAY) else plain_text(raw)


def json_path(text: str, at: int) -> list[bytes | int]:
    """Return the steps of a path such as `a.b[0]["c d"]`. Raises InvalidQuery."""
    path: list[bytes | int] = []
    rest = text.strip()
    end = 0
    while end < len(rest):
        step = _PATH_STEP.match(rest, end)
        if step is None or len(path) == PATH_STEPS_MAX:
            raise InvalidQuery(f"cannot parse expression [{text[:100]}]: unexpected {rest[end : end + 10]!r}", at)
        key, index, field = step.groups()
        if index is not None and len(index) > 9:
            raise InvalidQuery(f"cannot parse expression [{text[:100]}]: an index that is too large", at)
        path.append(int(index) if index is not None else (key if key is not None else field).encode())
        end = step.end()
    if not path:
        raise InvalidQuery("cannot parse expression []: a path into JSON is empty", at)
    return path


class Logfmt:
    """`| logfmt`: every pair; with `keep_empty` also those without a value."""

    def __init__(self, strict: bool, keep_empty: bool) -> None:
        self.strict = strict
        self.keep_empty = keep_empty

    def parse(self, line: bytes, target: Target) -> bytes:
        """See `Parser.parse`."""
        for name, kind, start, length in pairs.logfmt_members(line, self.strict):
            if length or self.keep_empty:
                raw = line[start : start + length]
                _offer(target, name.decode(), logfmt_text(raw) if kind == members.ESCAPED else plain_text(raw))
        _strict_fault(self.strict, line, target)
        return line


def _strict_fault(strict: bool, line: bytes, target: Target) -> None:
    if strict:
        status, byte, place = (int(each[0]) for each in pairs.logfmt_status(*_one(line)))
        if status:
            target.fail(LOGFMT_ERROR, logfmt_fault(status, byte, place))


class LogfmtFields:
    """`| logfmt a="b", c`: some pairs, under other names."""

    def __init__(self, stage: ast.Logfmt) -> None:
        """Read the names. Raises InvalidQuery."""
        self._strict = stage.strict
        self._fields = {each.label: _field(each.path, stage.at) for each in stage.extractions}
        self._names = {name.encode() for name in (*self._fields, *self._fields.values())}

    def parse(self, line: bytes, target: Target) -> bytes:
        """See `Parser.parse`. As Loki does it, a pair that has a wanted label's own name sets it, too."""
        for label in self._fields:
            if target.takes(label) == label:
                target.set(label, "")
        for raw_name, kind, start, length in pairs.logfmt_members(line, self._strict):
            if raw_name not in self._names:
                continue
            name = raw_name.decode()
            if name not in self._fields and target.has_extracted(name):
                continue
            labels = [label for label, field in self._fields.items() if field == name] or [name]
            raw = line[start : start + length]
            text = logfmt_text(raw) if kind == members.ESCAPED else raw.decode("utf-8", "replace")
            if "\ufffd" in text:
                text = ""
            if not self._set(target, labels, text):
                break
        _strict_fault(self._strict, line, target)
        return line

    @staticmethod
    def _set(target: Target, labels: Sequence[str], text: str) -> bool:
        for label in labels:
            name = target.takes(label)
            if name != label and target.has_extracted(name):
                return False  # Loki looks no further
            target.set(name, text)
        return True


def _field(text: str, at: int) -> str:
    found = _FIELD.fullmatch(text)
    if found is None:
        raise InvalidQuery(f"cannot parse expression [{text[:100]}]: not the name of a field", at)
    key, quoted = found.groups()
    return str(key if key is not None else quoted)


class Pattern:
    """`| pattern "<ip> <_>"`: the captures that have a name."""

    def __init__(self, stage: ast.Pattern) -> None:
        """Read the pattern. Raises InvalidQuery."""
        self._pattern = parser_pattern(stage.pattern, stage.at)

    def parse(self, line: bytes, target: Target) -> bytes:
        """See `Parser.parse`."""
        for name, raw in self._pattern.captures(line):
            _offer(target, name, raw.decode("utf-8", "replace"))
        return line


class Regexp:
    """`| regexp "(?P<name>re)"`: the groups that have a name."""

    def __init__(self, stage: ast.Regexp) -> None:
        """Compile the expression. Raises InvalidQuery."""
        compiled = compile_regex(stage.pattern, stage.at, captures=True)
        if not compiled.groupindex:
            raise InvalidQuery("at least one named capture must be supplied", stage.at)
        self._search = compiled.search
        self._names = [(place, label_form(name)) for name, place in compiled.groupindex.items()]
        self._names.sort()

    def parse(self, line: bytes, target: Target) -> bytes:
        """See `Parser.parse`."""
        found = self._search(line)
        if found is not None:
            for place, name in self._names:
                if name:
                    _offer(target, name, (found.group(place) or b"").decode("utf-8", "replace"))
        return line


class Unpack:
    """`| unpack`: what Promtail's pack stage has packed: the texts of an object, and the line in its `_entry`."""

    def parse(self, line: bytes, target: Target) -> bytes:
        """See `Parser.parse`."""
        if not line:
            return line
        if line[:1] != b"{":
            target.fail(JSON_ERROR, _NOT_AN_OBJECT)
            return line
        found, status = members.json_top(line)
        labels: list[tuple[str, str]] = []
        entry: bytes | None = None
        for key, kind, start, length in found:
            raw = line[start : start + length]
            if kind not in (members.PLAIN, members.ESCAPED):
                continue
            if key == _PACKED:
                entry = json_text(raw).encode() if kind == members.ESCAPED else raw
                if raw and not entry:
                    target.fail(JSON_ERROR, JSON_FAULTS[members.BAD_ESCAPE])
                    return line
                continue
            name = target.takes(key.decode("utf-8", "replace"))
            if not target.has_extracted(name):
                labels.append((label_form(name), json_text(raw) if kind == members.ESCAPED else plain_text(raw)))
        if status:
            target.fail(JSON_ERROR, JSON_FAULTS[status])
            return line
        if entry is None:
            return line
        for name, text in labels:
            if name:
                target.set(name, text)
        return entry
