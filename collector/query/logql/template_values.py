"""Values in templates as Go sees and writes them: truth, comparison, conversion, and what fmt prints.

Go's types are Python's: string str, int int, int64 `Int64`, float64 float, bool bool, nil None, slices list, maps dict,
time.Time `Moment`. int and int64 are kept apart because Go's functions do: `repeat (add 1 2) "x"` is an error.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any, Final

from collector.query.logql.literals import quote
from collector.query.logql.quantity import Unreadable, read_number
from collector.query.logql.time_layout import Moment

VALUE_BYTES_MAX: Final = 1 << 20
"""Characters of a text that a template makes, in one place or in all."""

_VERB = re.compile(r"%([-+# 0]*)(\*|[0-9]+)?(?:\.(\*|[0-9]*))?(.|$)", re.DOTALL)
_WIDTH_MAX: Final = 10_000
_INTEGER = re.compile(r"([+-]?)(0[xX][0-9A-Fa-f]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"([-+]?[0-9]*)(\.[0-9]*)?")


class CallError(Exception):
    """A template does what cannot be done; the message is Go's."""


class Int64(int):
    """A whole number of Go's type int64."""


class LabelMap(dict[str, str]):
    """A line's labels, of Go's type map[string]string: one that is absent is empty."""

    def get(self, name: str, default: str | None = "") -> str:  # type: ignore[override]  # nothing else is asked for
        """Return a label's text."""
        return super().get(name) or default or ""


def int64(number: int) -> Int64:
    """Return a number as int64, which wraps around."""
    return Int64((number + 2**63) % 2**64 - 2**63)


def type_name(value: Any) -> str:
    """Return what Go calls a value's type."""
    for kind, name in (
        (bool, "bool"),
        (Int64, "int64"),
        (int, "int"),
        (float, "float64"),
        (str, "string"),
        (list, "[]interface {}"),
        (LabelMap, "map[string]string"),
        (dict, "map[string]interface {}"),
        (Moment, "time.Time"),
    ):
        if isinstance(value, kind):
            return name
    return "<nil>"


def is_true(value: Any) -> bool:
    """Tell whether a value counts as true: it is neither zero nor empty."""
    return isinstance(value, Moment) or bool(value)


def bounded(text: str) -> str:
    """Return a text that is not too long."""
    if len(text) > VALUE_BYTES_MAX:
        raise CallError(f"the template makes a text of more than {VALUE_BYTES_MAX} characters")
    return text


def shown(value: Any) -> str:
    """Return what `{{ value }}` puts out."""
    return "<no value>" if value is None else plain(value)


def plain(value: Any) -> str:
    """Return a value as fmt's %v."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return float_text(value)
    if value is None:
        return "<nil>"
    if isinstance(value, Moment):
        return str(value)
    if isinstance(value, list):
        return f"[{' '.join(map(plain, value))}]"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{name}:{plain(each)}' for name, each in sorted(value.items()))}]"
    return str(int(value))


def float_text(value: float, form: str = "g", precision: int = -1) -> str:
    """Return a float as strconv.FormatFloat: in the form e, f or g, -1 for as many digits as it takes."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if precision >= 0 and form in "ef":
        text = f"{value:.{precision}{form}}"
    elif precision >= 0:
        text = f"{value:.{max(precision, 1)}g}"
    else:
        sign, digits, exponent = Decimal(repr(value)).as_tuple()
        assert isinstance(exponent, int)  # finite
        kept = "".join(map(str, digits)).rstrip("0") or "0"
        power = len(digits) + exponent - 1 if value else 0
        if form == "f" or (form == "g" and -4 <= power < 6):
            text = f"{Decimal(repr(value)):f}"
            text = text.rstrip("0").rstrip(".") if "." in text else text
        else:
            fraction = f".{kept[1:]}" if len(kept) > 1 else ""
            text = f"{'-' if sign else ''}{kept[0]}{fraction}e{'-' if power < 0 else '+'}{abs(power):02}"
    return text


def to_int64(value: Any) -> Int64:
    """Return a number as the mathematical functions take it; 0 for what is none."""
    if isinstance(value, str):
        found = _DECIMAL.fullmatch(value) if "." in value else None
        if found is not None:
            value = found.group(1) if found.group(1) not in ("", "+", "-") else "0"
        whole = _INTEGER.fullmatch(value[:70])
        if whole is None:
            return Int64(0)
        sign, digits = whole.groups()
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        number = int(digits, 8) if octal else int(digits, 0)
        number = -number if sign == "-" else number
        return Int64(number) if -(2**63) <= number < 2**63 else Int64(0)
    if isinstance(value, float):
        return int64(int(value)) if math.isfinite(value) else Int64(-(2**63))
    if isinstance(value, bool | int):
        return int64(int(value))
    return Int64(0)


def to_float(value: Any) -> float:
    """Return a number as the mathematical functions on floats take it; 0 for what is none."""
    if isinstance(value, str):
        try:
            return read_number(value)
        except Unreadable:
            return 0.0
    if isinstance(value, bool | int | float):
        return float(value)
    return 0.0


def printf(form: str, *values: Any) -> str:
    """Return what fmt.Sprintf makes."""
    rest = list(values)
    total = 0

    def put(found: re.Match[str]) -> str:
        nonlocal total
        text = _verb(found, rest)
        total += len(text)
        if total > VALUE_BYTES_MAX:
            raise CallError(f"the template makes a text of more than {VALUE_BYTES_MAX} characters")
        return text

    text = _VERB.sub(put, form)
    if rest:
        text += f"%!(EXTRA {', '.join(f'{type_name(each)}={plain(each)}' for each in rest)})"
    return bounded(text)


def _verb(found: re.Match[str], rest: list[Any]) -> str:
    flags, width_text, precision_text, verb = found.groups()
    width = _star(width_text, rest)
    precision = _star(precision_text, rest) if precision_text is not None else None
    if width is not None and width < 0:
        flags, width = flags + "-", -width
    if verb == "%":
        return "%"
    if not verb:
        return "%!(NOVERB)"
    if max(width or 0, precision or 0) > _WIDTH_MAX:
        return "%!(BADWIDTH)" if (width or 0) > _WIDTH_MAX else "%!(BADPREC)"
    if not rest:
        return f"%!{verb}(MISSING)"
    value = rest.pop(0)
    text, is_number = _formatted(verb, flags, precision, value)
    if width is None or len(text) >= width:
        return text
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags and (is_number or verb in "sqvxX"):
        sign = text[:1] if is_number and text[:1] in ("-", "+", " ") else ""
        return sign + text[len(sign) :].rjust(width - len(sign), "0")
    return text.rjust(width)


def _star(text: str | None, rest: list[Any]) -> int | None:
    if text == "*":
        return int(rest.pop(0)) if rest and isinstance(rest[0], int) else 0
    return None if text is None else int(text[:6] or 0)


def _formatted(verb: str, flags: str, precision: int | None, value: Any) -> tuple[str, bool]:
    """Return a value in a verb's form, and whether it is a number to be filled with zeros behind its sign."""
    if verb == "T":
        return type_name(value), False
    if verb == "v" and not isinstance(value, float) and (not isinstance(value, int) or isinstance(value, bool)):
        text = quote(value) if "#" in flags and isinstance(value, str) else plain(value)
        return text[:precision] if isinstance(value, str) else text, False
    if isinstance(value, str | list | dict | Moment) and verb in "sqxX":
        return _texts(verb, precision, value), False
    if isinstance(value, bool) and verb == "t":
        return plain(value), False
    if isinstance(value, int) and not isinstance(value, bool) and verb in "vdxXobcqU":
        return _whole(verb, flags, value), verb not in "cqU"
    if isinstance(value, float) and verb in "veEfFgG":
        form = {"v": "g", "F": "f"}.get(verb, verb).lower()
        shortest = -1 if form == "g" else 6
        text = float_text(value, form, shortest if precision is None else precision)
        return _signed(text.upper() if verb in "EG" and math.isfinite(value) else text, flags), math.isfinite(value)
    if value is None:
        return f"%!{verb}(<nil>)", False
    return f"%!{verb}({type_name(value)}={plain(value)})", False


def _texts(verb: str, precision: int | None, value: Any) -> str:
    if isinstance(value, list):
        return f"[{' '.join(_texts(verb, precision, each) for each in value)}]"
    text = value if isinstance(value, str) else plain(value)
    if verb in "xX":
        digits = text.encode()[:precision].hex()
        return digits.upper() if verb == "X" else digits
    return quote(text[:precision]) if verb == "q" else text[:precision]


def _whole(verb: str, flags: str, value: int) -> str:
    number = int(value)
    if verb == "c":
        return chr(number) if 0 <= number <= 0x10FFFF else "\ufffd"
    if verb == "q":
        return f"'{chr(number)}'" if 0 <= number <= 0x10FFFF else "'\ufffd'"
    if verb == "U":
        return f"U+{number:04X}"
    prefix = {"x": "0x", "X": "0X", "o": "0", "b": "0b"}.get(verb, "") if "#" in flags else ""
    digits = f"{abs(number):{'d' if verb == 'v' else verb}}"
    return _signed(("-" if number < 0 else "") + prefix + digits, flags)


def _signed(text: str, flags: str) -> str:
    if text[:1] in ("-", "+"):
        return text
    return ("+" if "+" in flags else " " if " " in flags else "") + text


def kind_of(value: Any) -> str:
    """Return the kind by which values compare: only those of one kind do."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    if isinstance(value, float):
        return "float"
    return "string" if isinstance(value, str) else "time" if isinstance(value, Moment) else ""


def equal(first: Any, *others: Any) -> bool:
    """Tell whether the first value is one of the others."""
    if not others:
        raise CallError("missing argument for comparison")
    for other in others:
        if first is None or other is None:
            if first is other:
                return True
            continue
        one, two = kind_of(first), kind_of(other)
        if not one or not two:
            raise CallError(f"non-comparable type {plain(first)}: {type_name(first)}")
        if one != two:
            raise CallError("incompatible types for comparison")
        if first == other:
            return True
    return False


def less(one: Any, two: Any) -> bool:
    """Tell whether one value comes before the other."""
    if kind_of(one) not in ("int", "float", "string") or kind_of(two) not in ("int", "float", "string"):
        raise CallError("invalid type for comparison")
    if kind_of(one) != kind_of(two):
        raise CallError("incompatible types for comparison")
    return bool(one < two)
