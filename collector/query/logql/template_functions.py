"""The functions of templates: Go's own and those that Loki documents, with Loki's arguments and results.

A `Function` says what types its arguments have, because Go converts nothing: `trunc "a" .b` is an error. The letters
are s string, i int, f float64, t time and a anything; a last one in capitals may come any number of times.
"""

from __future__ import annotations

import base64
import binascii
import html
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal, localcontext
from typing import Any, Final, NamedTuple
from urllib.parse import quote_plus, unquote_to_bytes

from collector.errors import InvalidQuery
from collector.query.logql.literals import quote
from collector.query.logql.quantity import Unreadable, read_duration, read_size
from collector.query.logql.template_values import (
    VALUE_BYTES_MAX,
    CallError,
    Int64,
    bounded,
    equal,
    int64,
    is_true,
    less,
    plain,
    printf,
    to_float,
    to_int64,
)
from collector.query.logql.time_layout import ZERO, Moment, read, written, zone_of
from collector.query.regex import compile_regex

JSON_NESTING_MAX: Final = 64
"""How deep a document may nest that `fromJson` reads."""

_SECOND: Final = 1_000_000_000
_EXPANDED = re.compile(r"\$(?:\$|\{(\w+)\}|(\w+))")


class Function(NamedTuple):
    """A function, and the types of its arguments."""

    call: Callable[..., Any]
    types: str

    @property
    def least(self) -> int:
        """How many arguments it takes at least."""
        return sum(letter.islower() for letter in self.types)


def _repeat(count: int, text: str) -> str:
    if count < 0:
        raise CallError("strings: negative Repeat count")
    if count * len(text) > VALUE_BYTES_MAX:
        raise CallError(f"the template makes a text of more than {VALUE_BYTES_MAX} characters")
    return text * count


def _replace(old: str, new: str, text: str, count: int = -1) -> str:
    if (text.count(old) if count < 0 else min(count, len(text) + 1)) * len(new) > VALUE_BYTES_MAX:
        raise CallError(f"the template makes a text of more than {VALUE_BYTES_MAX} characters")
    return text.replace(old, new, count)


def _indent(count: int, text: str) -> str:
    pad = _repeat(count, " ")
    return pad + _replace("\n", "\n" + pad, text)


def _cut(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _trunc(count: int, text: str) -> str:
    raw = text.encode()
    if count < 0 and len(raw) + count > 0:
        return _cut(raw[count:])
    return _cut(raw[:count]) if 0 <= count < len(raw) else text


def _substr(start: int, end: int, text: str) -> str:
    raw = text.encode()
    if start < 0:
        if end < 0 or end > len(raw):
            raise CallError(f"error calling substr: runtime error: slice bounds out of range [:{end}]")
        return _cut(raw[:end])
    if end < 0 or end > len(raw):
        end = len(raw)
    if start > end:
        raise CallError(f"error calling substr: runtime error: slice bounds out of range [{start}:{end}]")
    return _cut(raw[start:end])


def _align(count: int, text: str, *, left: bool) -> str:
    if count < 0 or count == len(text):
        return text
    pad = _repeat(max(0, count - len(text)), " ")
    if left:
        return (text + pad)[:count]
    return (pad + text)[len(pad) + len(text) - count :]


def _title(text: str) -> str:
    out: list[str] = []
    before = " "
    for char in text:
        separates = not (before == "_" or before.isalnum()) if before.isascii() else before.isspace()
        out.append(char.title() if separates else char)
        before = char
    return "".join(out)


def _trim_left(text: str, characters: str) -> str:
    return text.lstrip(characters) if characters else text


def _trim_right(text: str, characters: str) -> str:
    return text.rstrip(characters) if characters else text


def _trim(text: str, characters: str) -> str:
    return text.strip(characters) if characters else text


class Expressions:
    """Regular expressions that templates use: a few are remembered, since most lines use the same."""

    KEPT = 100
    """How many."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}

    def get(self, expression: str) -> Any:
        """Return a compiled expression."""
        found = self._known.get(expression)
        if found is None:
            if len(self._known) >= self.KEPT:
                self._known.clear()
            try:
                found = self._known[expression] = compile_regex(expression, captures=True)
            except InvalidQuery as error:
                raise CallError(f"error parsing regexp: {error}") from None
        return found

    def matches(self, expression: str, text: str) -> list[Any]:
        """Return the matches in a text, one after the other; no empty one right behind another."""
        found: list[Any] = []
        end = -1
        for match in self.get(expression).finditer(text):
            if match.end() > match.start() or match.start() != end:
                found.append(match)
                end = match.end()
        return found

    def replaced(self, expression: str, text: str, new: Callable[[Any], str]) -> str:
        """Return a text with its matches replaced."""
        pieces: list[str] = []
        at = size = 0
        for match in self.matches(expression, text):
            pieces += [text[at : match.start()], new(match)]
            size += len(pieces[-1])
            if size > VALUE_BYTES_MAX:
                raise CallError(f"the template makes a text of more than {VALUE_BYTES_MAX} characters")
            at = match.end()
        return "".join(pieces) + text[at:]


def _expanded(match: Any, new: str) -> str:
    def group(found: re.Match[str]) -> str:
        name = found.group(1) or found.group(2)
        if name is None:
            return "$"
        if name.isdigit():
            place = int(name[:6])
            return (match.group(place) or "") if place <= match.re.groups else ""
        return (match.group(name) or "") if name in match.re.groupindex else ""

    return _EXPANDED.sub(group, new)


def _url_decoded(text: str) -> str:
    bad = re.search(r"%(?![0-9A-Fa-f]{2}).{0,2}", text, re.DOTALL)
    if bad is not None:
        raise CallError(f"error calling urldecode: invalid URL escape {quote(bad.group())}")
    return unquote_to_bytes(text.replace("+", " ")).decode("utf-8", "replace")


def _base64_decoded(text: str) -> str:
    if len(text) % 4 in (2, 3):
        text += "=" * (4 - len(text) % 4)
    try:
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        bad = re.search(r"[^A-Za-z0-9+/]", text)
        return f"illegal base64 data at input byte {bad.start() if bad else len(text) // 4 * 4}"


def _converted(name: str, read_text: Callable[[str], float]) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            return float(read_text(text))
        except Unreadable as error:
            raise CallError(f"error calling {name}: {error}") from None

    return convert


def _unix_to_time(epoch: str) -> Moment:
    scales = {5: 86_400 * _SECOND, 10: _SECOND, 13: 1_000_000, 16: 1000, 19: 1}
    if not re.fullmatch(r"[+-]?[0-9]+", epoch[:40]):
        reason = f"strconv.ParseInt: parsing {quote(epoch[:40])}: invalid syntax"
        raise CallError(f"error calling unixToTime: unable to parse time '{epoch[:40]}': {reason}")
    if len(epoch) not in scales:
        raise CallError(f"error calling unixToTime: unable to parse time '{epoch[:40]}': %!w(<nil>)")
    return Moment(int(epoch) * scales[len(epoch)])


def _date(layout: str, value: Any, now_ns: Callable[[], int]) -> str:
    """Write a time, or seconds since 1970, in a layout; for anything else now, as Loki does."""
    if isinstance(value, Moment):
        return written(Moment(value.ns), layout)
    if isinstance(value, int) and not isinstance(value, bool):
        return written(Moment(value * _SECOND), layout)
    return written(Moment(now_ns()), layout)


def _from_json(text: str) -> Any:
    try:
        value = json.loads(text, parse_constant=_no_constant, parse_int=float)
    except (ValueError, RecursionError, OverflowError):
        return None
    level = [value]
    for _ in range(JSON_NESTING_MAX):
        level = [
            each
            for outer in level
            if isinstance(outer, list | dict)
            for each in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise CallError(f"error calling fromJson: the document nests deeper than {JSON_NESTING_MAX} levels")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _product(first: Any, *others: Any) -> Int64:
    value = to_int64(first)
    for other in others:
        value = int64(value * to_int64(other))
    return value


def _divided(name: str, one: Any, two: Any) -> tuple[int, int]:
    """Return quotient and remainder, towards zero."""
    dividend, divisor = to_int64(one), to_int64(two)
    if divisor == 0:
        raise CallError(f"error calling {name}: runtime error: integer divide by zero")
    quotient = abs(dividend) // abs(divisor)
    quotient = quotient if (dividend < 0) == (divisor < 0) else -quotient
    return quotient, dividend - quotient * divisor


def _decimal(name: str, value: Any) -> Decimal:
    number = to_float(value)
    if not math.isfinite(number):
        raise CallError(f"error calling {name}: Cannot create a Decimal from {plain(number)}")
    return Decimal(repr(number))


def _folded(name: str, combine: Callable[[Decimal, Decimal], Decimal], first: Any, others: tuple[Any, ...]) -> float:
    """Return what floats make together, calculated with decimal digits."""
    with localcontext(prec=1000):
        value = _decimal(name, first)
        for other in others:
            value = combine(value, _decimal(name, other))
        return float(value)


def _quotient(one: Decimal, two: Decimal) -> Decimal:
    if two == 0:
        raise CallError("error calling divf: decimal division by 0")
    return round(one / two, 16)


def _round(value: Any, places: int, on: float = 0.5) -> float:
    try:
        power = math.pow(10, places)
        digit = power * to_float(value)
        down, up = math.floor(digit), math.ceil(digit)
    except (OverflowError, ValueError):
        return to_float(value)
    return (up if math.modf(digit)[0] >= on else down) / power if power else math.nan


def _integral(rounds: Callable[[float], float], value: Any) -> float:
    number = to_float(value)
    return float(rounds(number)) if math.isfinite(number) else number


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, list | dict):
        return len(value)
    raise CallError("error calling len: len of " + ("nil pointer" if value is None else f"type {plain(value)}"))


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise CallError("error calling index: value has another type; should be string")
            value = value.get(key)
        elif isinstance(value, list | str):
            if not isinstance(key, int) or isinstance(key, bool):
                raise CallError("error calling index: cannot index slice/array with another type than int")
            items: Any = value.encode() if isinstance(value, str) else value
            if not 0 <= key < len(items):
                raise CallError(f"error calling index: index out of range: {key}")
            value = items[key]
        else:
            raise CallError("error calling index: index of untyped nil" if value is None else "cannot index")
    return value


def _slice(value: Any, *places: int) -> Any:
    if not isinstance(value, str | list) or len(places) > 2:
        raise CallError("error calling slice: can't slice item")
    items: Any = value.encode() if isinstance(value, str) else value
    start, end = (*places, len(items))[:2] if places else (0, len(items))
    if not 0 <= start <= end <= len(items):
        raise CallError(f"error calling slice: index out of range: {start if start > len(items) else end}")
    piece = items[start:end]
    return _cut(piece) if isinstance(piece, bytes) else piece


def _print(*values: Any) -> str:
    """Put values side by side, with a space between two that are no texts."""
    out: list[str] = []
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            out.append(" ")
        out.append(plain(value))
    return bounded("".join(out))


_ESCAPES = {"\\": "\\\\", "'": "\\'", '"': '\\"', "<": "\\u003C", ">": "\\u003E", "&": "\\u0026", "=": "\\u003D"}


def _javascript(*values: Any) -> str:
    return bounded(
        "".join(
            _ESCAPES.get(char) or (f"\\u{ord(char):04X}" if char < " " or char == "\x7f" else char)
            for char in _print(*values)
        )
    )


def _queried(text: str) -> str:
    return quote_plus(text, safe="-_.~")


def functions(now_ns: Callable[[], int]) -> dict[str, Function]:
    """Return all functions by their names; `and` and `or`, which try no more than they must, are the template's."""
    expressions = Expressions()
    table: dict[str, tuple[Callable[..., Any], str]] = {
        # Go's own
        "not": (lambda value: not is_true(value), "a"),
        "eq": (equal, "aA"),
        "ne": (lambda one, two: not equal(one, two), "aa"),
        "lt": (less, "aa"),
        "le": (lambda one, two: less(one, two) or equal(one, two), "aa"),
        "gt": (lambda one, two: not (less(one, two) or equal(one, two)), "aa"),
        "ge": (lambda one, two: not less(one, two), "aa"),
        "len": (_length, "a"),
        "index": (_index, "aA"),
        "slice": (_slice, "aI"),
        "print": (_print, "A"),
        "println": (lambda *values: bounded(" ".join(map(plain, values)) + "\n"), "A"),
        "printf": (printf, "sA"),
        "html": (lambda *values: bounded(html.escape(_print(*values)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;")), "A"),
        "js": (_javascript, "A"),
        "urlquery": (lambda *values: bounded(_queried(_print(*values))), "A"),
        # texts
        "alignLeft": (lambda count, text: _align(count, text, left=True), "is"),
        "alignRight": (lambda count, text: _align(count, text, left=False), "is"),
        "b64enc": (lambda text: base64.b64encode(text.encode()).decode(), "s"),
        "b64dec": (_base64_decoded, "s"),
        "contains": (lambda part, text: part in text, "ss"),
        "hasPrefix": (lambda part, text: text.startswith(part), "ss"),
        "hasSuffix": (lambda part, text: text.endswith(part), "ss"),
        "default": (lambda other, *given: given[0] if given and (isinstance(given[0], Moment) or given[0]) else other, "aA"),
        "indent": (_indent, "is"),
        "nindent": (lambda count, text: "\n" + _indent(count, text), "is"),
        "lower": (str.lower, "s"),
        "upper": (str.upper, "s"),
        "title": (_title, "s"),
        "repeat": (_repeat, "is"),
        "replace": (_replace, "sss"),
        "substr": (_substr, "iis"),
        "trunc": (_trunc, "is"),
        "trim": (str.strip, "s"),
        "trimAll": (lambda characters, text: _trim(text, characters), "ss"),
        "trimPrefix": (lambda part, text: text.removeprefix(part), "ss"),
        "trimSuffix": (lambda part, text: text.removesuffix(part), "ss"),
        "urlencode": (_queried, "s"),
        "urldecode": (_url_decoded, "s"),
        "fromJson": (_from_json, "s"),
        # texts, as they were called before
        "ToLower": (str.lower, "s"),
        "ToUpper": (str.upper, "s"),
        "Replace": (lambda text, old, new, count: _replace(old, new, text, count), "sssi"),
        "Trim": (_trim, "ss"),
        "TrimLeft": (_trim_left, "ss"),
        "TrimRight": (_trim_right, "ss"),
        "TrimPrefix": (str.removeprefix, "ss"),
        "TrimSuffix": (str.removesuffix, "ss"),
        "TrimSpace": (str.strip, "s"),
        # regular expressions
        "count": (lambda expression, text: len(expressions.matches(expression, text)), "ss"),
        "regexReplaceAll": (
            lambda expression, text, new: expressions.replaced(expression, text, lambda match: _expanded(match, new)),
            "sss",
        ),
        "regexReplaceAllLiteral": (lambda expression, text, new: expressions.replaced(expression, text, lambda _: new), "sss"),
        # numbers
        "int": (lambda value: int(to_int64(value)), "a"),
        "float64": (to_float, "a"),
        "add": (lambda *values: int64(sum(map(to_int64, values))), "A"),
        "sub": (lambda one, two: int64(to_int64(one) - to_int64(two)), "aa"),
        "mul": (_product, "aA"),
        "div": (lambda one, two: int64(_divided("div", one, two)[0]), "aa"),
        "mod": (lambda one, two: int64(_divided("mod", one, two)[1]), "aa"),
        "max": (lambda *values: max(map(to_int64, values)), "aA"),
        "min": (lambda *values: min(map(to_int64, values)), "aA"),
        "addf": (lambda *values: _folded("addf", Decimal.__add__, 0.0, values), "A"),
        "subf": (lambda first, *values: _folded("subf", Decimal.__sub__, first, values), "aA"),
        "mulf": (lambda first, *values: _folded("mulf", Decimal.__mul__, first, values), "aA"),
        "divf": (lambda first, *values: _folded("divf", _quotient, first, values), "aA"),
        "maxf": (lambda *values: max(map(to_float, values)), "aA"),
        "minf": (lambda *values: min(map(to_float, values)), "aA"),
        "ceil": (lambda value: _integral(math.ceil, value), "a"),
        "floor": (lambda value: _integral(math.floor, value), "a"),
        "round": (_round, "aiF"),
        "bytes": (_converted("bytes", read_size), "s"),
        "duration": (_converted("duration", read_duration), "s"),
        "duration_seconds": (_converted("duration_seconds", read_duration), "s"),
        # times
        "now": (lambda: Moment(now_ns()), ""),
        "date": (lambda layout, value: _date(layout, value, now_ns), "sa"),
        "toDate": (lambda layout, text: read(text, layout, zone_of("Local")) or ZERO, "ss"),
        "toDateInZone": (lambda layout, zone, text: read(text, layout, zone_of(zone)) or ZERO, "sss"),
        "unixEpoch": (lambda time: str(time.ns // _SECOND), "t"),
        "unixEpochMillis": (lambda time: str(time.ns // 1_000_000), "t"),
        "unixEpochNanos": (lambda time: str(time.ns), "t"),
        "unixToTime": (_unix_to_time, "s"),
    }  # fmt: skip
    return {name: Function(*entry) for name, entry in table.items()}
