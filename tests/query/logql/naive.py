"""LogQL's stages in their plainest form: one line at a time, one character at a time, nothing shared with the evaluator.

It takes syntax trees and knows what Loki does with them. Templates are a table of a few with their meaning written in
Python; what templates can do is for the golden scripts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from collector.query.logql import ast

TEMPLATES: dict[str, Callable[[dict[str, str], str], str]] = {
    "x": lambda labels, line: "x",
    "{{.a}}": lambda labels, line: labels.get("a", ""),
    "<{{.a}}|{{.level}}>": lambda labels, line: f"<{labels.get('a', '')}|{labels.get('level', '')}>",
    "{{__line__}}!": lambda labels, line: line + "!",
    "{{if .a}}{{.a}}{{else}}none{{end}}": lambda labels, line: labels.get("a") or "none",
    "{{.a_b | upper}}": lambda labels, line: labels.get("a_b", "").upper(),
    "{{range $k, $v := .}}{{$k}},{{end}}": lambda labels, line: "".join(f"{name}," for name in sorted(labels)),
    '{{int .a | div 10}}{{"\\x1b"}}[0m': lambda labels, line: quotient(labels.get("a", "")) + "\x1b[0m",
}
"""Templates that the naive evaluator knows."""


def quotient(text: str) -> str:
    """Return ten by a number."""
    number = int(text) if text.isdigit() else 0
    if not number:
        raise ArithmeticError
    return str(10 // number)


@dataclass
class Line:
    """A line and its labels: each name once, with its category."""

    text: str
    base: frozenset[str]
    labels: dict[str, tuple[str, str]]
    """Name to (category, text)."""
    seen: set[str] = field(default_factory=set)
    error: str = ""
    details: bool = False

    def get(self, name: str) -> str | None:
        """Return a label's text."""
        return self.labels[name][1] if name in self.labels else None

    def set(self, name: str, text: str) -> None:
        """Set a parsed label."""
        self.labels[name] = ("parsed", text)
        self.seen.add(name)

    def name(self, name: str) -> str:
        """Return the name that a parsed label gets."""
        taken = name in self.base or self.labels.get(name, ("",))[0] == "metadata"
        return name + "_extracted" if taken else name

    def offer(self, name: str, text: str) -> None:
        """Set a parsed label that was not parsed before."""
        if self.name(name) not in self.seen:
            self.set(self.name(name), text)

    def everything(self) -> dict[str, str]:
        """Return all labels, without the details of errors, whose words are not the naive evaluator's."""
        labels = {name: text for name, (_, text) in self.labels.items()}
        return labels | ({"__error__": self.error} if self.error else {})


class Gone(Exception):
    """The line is filtered out."""


def run(stages: tuple[ast.Stage, ...], line: Line) -> bool:
    """Run a line through stages; tell whether it is left."""
    try:
        for stage in stages:
            STAGES[type(stage)](stage, line)
    except Gone:
        return False
    return True


# JSON


class Broken(Exception):
    """JSON that goes wrong."""


def spaces(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    if at == len(text):
        raise Broken
    return at


def quoted(text: str, at: int) -> int:
    """Return the place of the closing quote of the string that begins before `at`."""
    while at < len(text):
        if text[at] == "\\":
            at += 1
        elif text[at] == '"':
            return at
        at += 1
    raise Broken


def closing(text: str, at: int) -> int:
    """Return the place behind the bracket that closes the one at `at`."""
    pair = {"{": "}", "[": "]"}[text[at]]
    opening, level = text[at], 0
    while at < len(text):
        if text[at] == '"':
            at = quoted(text, at + 1)
        elif text[at] == opening:
            level += 1
        elif text[at] == pair:
            level -= 1
            if not level:
                return at + 1
        at += 1
    raise Broken


def token(text: str, at: int) -> tuple[str, str, int]:
    """Return a value's kind, its text as written, and where it ends."""
    at = spaces(text, at)
    if text[at] == '"':
        end = quoted(text, at + 1)
        return "string", text[at + 1 : end], end + 1
    if text[at] in "{[":
        end = closing(text, at)
        return "object" if text[at] == "{" else "array", text[at:end], end
    end = at
    while end < len(text) and text[end] not in " \t\r\n,}]":
        end += 1
    word = text[at:end]
    if word in ("true", "false") or word[:1] in tuple("-0123456789"):
        return "scalar", word, end
    if word == "null":
        return "null", word, end
    raise Broken


def unescaped(text: str) -> str:
    """Return a JSON string's text; empty where an escape is wrong. The tests have no surrogates."""
    if re.fullmatch(r'(?:[^\\]|\\["\\/bfnrt]|\\u(?![dD][89A-Fa-f])[0-9A-Fa-f]{4})*', text, re.DOTALL) is None:
        return ""
    letters = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}

    def one(found: re.Match[str]) -> str:
        code = found.group(1)
        return chr(int(code[1:], 16)) if code[0] == "u" else letters.get(code, code)

    return re.sub(r"\\(u[0-9A-Fa-f]{4}|.)", one, text, flags=re.DOTALL)


def members(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield an object's (key, kind, value as written), a broken value, too; then raise Broken where it goes wrong."""
    at = spaces(text, 0)
    if text[at] != "{":
        raise Broken
    at = spaces(text, at + 1)
    while text[at] != "}":
        if text[at] != '"':
            raise Broken
        end = quoted(text, at + 1)
        key = text[at + 1 : end]
        if "\\" in key:
            key = unescaped(key)
            if not key:
                raise Broken
        at = spaces(text, end + 1)
        if text[at] != ":":
            raise Broken
        try:
            kind, value, at = token(text, at + 1)
        except Broken:
            yield key, "broken", ""
            raise
        yield key, kind, value
        at = spaces(text, at)
        if text[at] == "}":
            return
        if text[at] != ",":
            raise Broken
        at = spaces(text, at + 1)


def label(keys: list[str]) -> str:
    parts = [re.sub("[^A-Za-z0-9_]", "_", key.strip()) for key in keys if key.strip()]
    name = "_".join(parts)
    return "_" + name if name[:1].isdigit() else name


def flat(text: str, keys: list[str]) -> Iterator[tuple[str, str]]:
    for key, kind, value in members(text):
        if kind == "object":
            yield from flat(value, [*keys, key])
        elif kind in ("string", "scalar") and label([*keys, key]):
            yield label([*keys, key]), unescaped(value) if kind == "string" else value


def json_stage(stage: ast.Json, line: Line) -> None:
    if stage.extractions:
        return json_paths(stage, line)
    try:
        for name, text in flat(line.text, []):
            line.offer(name, text)
    except Broken:
        line.error, line.details = "JSONParserErr", True
    return None


def json_paths(stage: ast.Json, line: Line) -> None:
    if not line.text:
        return
    if line.text[0] not in '"{[':
        line.error = "JSONParserErr"
        return
    missing = []
    for each in stage.extractions:
        path: list[str | int] = []
        for step in re.findall(r'\[("[^"]*"|[0-9]+)\]|([A-Za-z_]\w*)', each.path):
            path.append(step[1] or (step[0][1:-1] if step[0][0] == '"' else int(step[0])))
        try:
            kind, value = at_path(line.text, path)
        except Broken:
            missing.append(each.label)
            continue
        except ValueError:
            line.error, line.details = "JSONParserErr", True
            missing.append(each.label)
            continue
        text = unescaped(value) if kind in ("string", "array") else "" if kind == "null" else value
        line.set(line.name(each.label), text)
    for name in missing:
        if line.get(name) is None:
            line.set(name, "")


def at_path(text: str, path: list[str | int]) -> tuple[str, str]:
    """Return what stands at a path. Raises Broken where there is nothing, ValueError where it is broken."""
    step, *rest = path
    kind, value = "", ""
    if isinstance(step, str):
        named = next((each[1:] for each in members(text) if each[0] == step), None)
        if named is None:
            raise Broken
        kind, value = named
        if kind == "broken":
            raise ValueError
    else:
        kind, value = elements(text)[step : step + 1][0] if step < len(elements(text)) else ("", "")
        if not kind:
            raise Broken
    if not rest:
        return kind, value
    return at_path(value if kind != "string" else f'"{value}"', rest)


def elements(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    try:
        at = spaces(text, 0)
        if text[at] != "[":
            return []
        at = spaces(text, at + 1)
        while text[at] != "]":
            kind, value, at = token(text, at)
            found.append((kind, value))
            at = spaces(text, at)
            if text[at] != ",":
                break
            at += 1
    except Broken:
        pass
    return found


def unpack(stage: ast.Unpack, line: Line) -> None:
    if not line.text:
        return
    found: list[tuple[str, str]] = []
    entry = None
    try:
        for key, kind, value in members(line.text):
            if kind == "string" and key == "_entry":
                entry = unescaped(value)
                if value and not entry:
                    raise Broken
            elif kind == "string" and line.name(key) not in line.seen:
                found.append((label([line.name(key)]), unescaped(value)))
        if line.text[0] != "{":
            raise Broken
    except Broken:
        line.error, line.details = "JSONParserErr", True
        return
    if entry is not None:
        line.text = entry
        for name, text in found:
            if name:
                line.set(name, text)


# logfmt


def pairs(text: str, strict: bool) -> Iterator[tuple[str, str] | None]:
    """Yield (key, value); None for a word that is wrong, after which strict parsing ends."""
    at = 0
    while True:
        while at < len(text) and text[at] <= " ":
            at += 1
        if at == len(text):
            return
        word = re.compile(r'[^\x00- ="]*').match(text, at)
        assert word is not None
        key, at = word.group(), word.end()
        after = text[at : at + 1]
        value: str | None = ""
        if after == '"' or (after == "=" and not key):
            value = None
        elif after == "=":
            if text[at + 1 : at + 2] == '"':
                end = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL).match(text, at + 1)
                if end is None:
                    yield None
                    return
                at = end.end()
                body = end.group(1)
                yield (
                    (key, unescaped(body.replace("\\'", "'")))
                    if unescaped(body.replace("\\'", "'")) or not body
                    else None
                )
                if strict and not unescaped(body.replace("\\'", "'")) and body:
                    return
                continue
            word = re.compile(r'[^\x00- ="]*').match(text, at + 1)
            assert word is not None
            value, at = word.group(), word.end()
            if text[at : at + 1] in ("=", '"'):
                value = None
        if value is None:
            yield None
            if strict:
                return
            while at < len(text) and text[at] > " ":
                at += 1
        else:
            yield key, value


def logfmt(stage: ast.Logfmt, line: Line) -> None:
    fields = {each.label: each.path for each in stage.extractions}
    for name in fields:
        if line.name(name) == name:
            line.set(name, "")
    failed = False
    for pair in pairs(line.text, stage.strict):
        if pair is None:
            failed = True
            continue
        key, text = label([pair[0]]), pair[1]
        if not key:
            continue
        if not fields:
            if text or stage.keep_empty:
                line.offer(key, text)
            continue
        if key not in fields and key in line.seen:
            continue
        wanted = [name for name, path in fields.items() if path == key] or [name for name in fields if name == key]
        stop = False
        for name in wanted:
            if line.name(name) != name and line.name(name) in line.seen:
                stop = True
                break
            line.set(line.name(name), text)
        if stop:
            break
    if stage.strict and (failed or any(pair is None for pair in pairs(line.text, strict=False))):
        line.error, line.details = "LogfmtParserErr", True


# Other parsers


def pattern(stage: ast.Pattern, line: Line) -> None:
    nodes = re.split(r"<([A-Za-z_]\w*)>", stage.pattern)
    rest = line.text
    if not rest or not rest.startswith(nodes[0]):
        return
    rest = rest[len(nodes[0]) :]
    for name, literal in zip(nodes[1::2], nodes[2::2], strict=True):
        before, found, after = rest.partition(literal) if literal else (rest, "", "")
        if name != "_":
            line.offer(name, before)
        if not found:
            return
        rest = after


def regexp(stage: ast.Regexp, line: Line) -> None:
    found = re.search(stage.pattern, line.text)
    if found is not None:
        for name, text in found.groupdict().items():
            line.offer(name, text or "")


# Filters


def line_filter(stage: ast.LineFilter, line: Line) -> None:
    def has(operand: ast.LineOperand) -> bool:
        if operand.address:
            return has_address(line.text, operand.value)
        if "~" in stage.op:
            return re.search(operand.value, line.text, re.DOTALL) is not None
        if ">" in stage.op:
            return fits(operand.value, line.text)
        return operand.value in line.text

    if any(map(has, stage.operands)) == stage.op.startswith("!"):
        raise Gone


def fits(text: str, line: str) -> bool:
    """Each capture is something without the literal that follows it."""
    nodes = re.split("<_>", text)
    if len(nodes) == 1 or not line:
        return line == text if len(nodes) == 1 and not text else pattern_of_literal(text, line)
    if nodes[0]:
        at = line.find(nodes[0])
        if at < 0:
            return False
        line = line[at + len(nodes[0]) :]
    for node in nodes[1:]:
        if not node:
            return line != ""
        at = line.find(node)
        if at <= 0:
            return False
        line = line[at + len(node) :]
    return line == ""


def pattern_of_literal(text: str, line: str) -> bool:
    """A pattern that is one literal: the line ends with it, where it occurs first."""
    return "<_>" not in text and text in line and line.endswith(text) and line.find(text) + len(text) == len(line)


def has_address(text: str, wanted: str) -> bool:
    at = 0
    while at < len(text):
        four = at + 3 < len(text) and text[at] in "0123456789" and "." in text[at + 1 : at + 4]
        six = re.match(r"::[0-9A-Fa-f]|[0-9A-Fa-f]{1,4}:", text[at:])
        if four or six:
            span = re.match("[0-9.]+" if four else "[0-9A-Fa-f:.]+", text[at:])
            assert span is not None
            if in_range(span.group(), wanted):
                return True
            at += len(span.group())
        at += 1
    return False


def in_range(text: str, wanted: str) -> bool:
    try:
        address: Any = ip_address(text)
    except ValueError:
        return False
    if "/" in wanted:
        return address in ip_network(wanted, strict=False)
    low, _, high = wanted.partition("-")
    first, last = ip_address(low), ip_address(high or low)
    return address.version == first.version and int(first) <= int(address) <= int(last)


UNITS = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
SIZES = {"": 1, "b": 1, "kb": 1000, "k": 1000, "kib": 1024, "mb": 10**6, "mib": 1 << 20}


def number_of(node: ast.LabelFilter, text: str) -> float:
    """Return what a text compares as. Raises ValueError. Covers what the tests write, not more."""
    if isinstance(node, ast.NumberFilter):
        if text != text.strip() or text.lower().startswith(("+nan", "-nan")) or not text.isascii():
            raise ValueError
        return float(text)
    if isinstance(node, ast.DurationFilter):
        found = re.fullmatch(r"-?(?:[0-9]+(?:\.[0-9]+)?(?:ns|us|ms|s|m|h))+", text)
        if found is None and text not in ("0", "-0"):
            raise ValueError
        total = sum(float(count) * UNITS[unit] for count, unit in re.findall(r"([0-9.]+)([a-z]+)", text))
        return -total if text.startswith("-") else total
    found = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", text, re.IGNORECASE)
    if found is None or found.group(2).lower() not in SIZES:
        raise ValueError
    return int(float(found.group(1)) * SIZES[found.group(2).lower()])


def meets(node: ast.LabelFilter, line: Line) -> bool:
    if isinstance(node, ast.And):
        met = [meets(term, line) for term in node.terms]  # each is tried
        return all(met)
    if isinstance(node, ast.Or):
        return any(meets(term, line) for term in node.terms)
    if isinstance(node, ast.Matcher):
        text = line.error if node.label == "__error__" else line.get(node.label) or ""
        return matches(node, text)
    text_or_none = line.get(node.label)
    if isinstance(node, ast.AddressFilter):
        if line.error:
            return True
        return text_or_none is not None and has_address(text_or_none, node.value) != (node.op == "!=")
    if text_or_none is None:
        return False
    try:
        number = number_of(node, text_or_none)
    except ValueError:
        if not line.error:
            line.error, line.details = "LabelFilterErr", True
        return True
    value = node.value
    return {
        "==": number == value,
        "!=": number != value,
        ">": number > value,
        ">=": number >= value,
        "<": number < value,
        "<=": number <= value,
    }[node.op]


def matches(matcher: ast.Matcher, text: str) -> bool:
    equal = re.fullmatch(matcher.value, text) is not None if "~" in matcher.op else matcher.value == text
    return equal != matcher.op.startswith("!")


def label_filter(stage: ast.LabelStage, line: Line) -> None:
    if not meets(stage.condition, line):
        raise Gone


# Stages that write


def line_format(stage: ast.LineFormat, line: Line) -> None:
    try:
        line.text = TEMPLATES[stage.template](with_details(line), line.text)
    except ArithmeticError:
        line.error, line.details = "TemplateFormatErr", True


def with_details(line: Line) -> dict[str, str]:
    return line.everything() | ({"__error_details__": "?"} if line.details else {})


def label_format(stage: ast.LabelFormat, line: Line) -> None:
    seen: dict[str, str] | None = None
    for each in stage.assignments:
        if not each.template:
            text = line.get(each.source)
            if text is not None:
                line.set(each.label, text)
                del line.labels[each.source]
            continue
        seen = with_details(line) if seen is None else seen
        try:
            line.set(each.label, TEMPLATES[each.source](seen, line.text))
        except ArithmeticError:
            line.error, line.details = "TemplateFormatErr", True


def decolorize(stage: ast.Decolorize, line: Line) -> None:
    line.text = re.sub("\x1b\\[[0-9;]*m", "", line.text)


def drop(stage: ast.Drop, line: Line) -> None:
    for each in stage.labels:
        name = each if isinstance(each, str) else each.label
        if name == "__error__":
            if isinstance(each, str) or matches(each, line.error):
                line.error = ""
        elif name in line.labels and (isinstance(each, str) or matches(each, line.labels[name][1])):
            del line.labels[name]


def keep(stage: ast.Keep, line: Line) -> None:
    line.labels = {
        name: (kind, text)
        for name, (kind, text) in line.labels.items()
        if any(each == name if isinstance(each, str) else each.label == name and matches(each, text) for each in stage.labels)
    }  # fmt: skip


STAGES: dict[type, Callable[[Any, Line], None]] = {
    ast.LineFilter: line_filter,
    ast.LabelStage: label_filter,
    ast.Json: json_stage,
    ast.Logfmt: logfmt,
    ast.Pattern: pattern,
    ast.Regexp: regexp,
    ast.Unpack: unpack,
    ast.LineFormat: line_format,
    ast.LabelFormat: label_format,
    ast.Decolorize: decolorize,
    ast.Drop: drop,
    ast.Keep: keep,
}
