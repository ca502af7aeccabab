r"""What a log query demands of every record, byte by byte, for backends (otlp/asked.py).

Only line filters that see the line as it came say something, and of those that mind the case: `|= "text"`, `|> "…"`, and
`|~ "…"` without flags. A line is a body's text, or JSON that is made of the body; so a text is passed on only as far as
it stands in the record whichever it is: without what JSON adds between values, or writes for characters (`\n`, `\u001b`),
numbers and truth values. Bytes become base64: what looks like a part of that is not passed on, and an ordinary word that
happens to be one is not found in a backend's records.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from collector.otlp.asked import Hints
from collector.query.logql import ast
from collector.query.required import required

if TYPE_CHECKING:
    from collections.abc import Iterator

ALTERNATIVES_MAX: Final = 16
"""Texts of which one must be there; of more nothing is said."""
HINTS_MAX: Final = 16
"""Texts that are passed on."""
LENGTH_MIN: Final = 3
"""Shorter pieces tell too little."""

_BETWEEN: Final = re.compile(r'["\\{}\[\]:,\x00-\x1f]+')
"""What JSON may have put between values, or writes in another way."""
_OF_ESCAPE: Final = re.compile(r"(?:u?0{0,2}[01])?[0-9a-f]|[nrtbf]")
"""What may be the rest of an escape that began before a text."""
_ORDINARY: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+|.*[^A-Za-z0-9+/=].*", re.DOTALL)
_CONSTANTS: Final = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
_NUMBER: Final = frozenset("0123456789eE+-.")


def hints_of(query: ast.LogQuery) -> Hints:
    """Return what is certain of every record of which a query leaves a line."""
    found: list[tuple[bytes, ...]] = []
    for stage in query.stages:
        if isinstance(stage, ast.LineFilter):
            found += _of_filter(stage)
        elif isinstance(stage, ast.Unpack | ast.LineFormat | ast.Decolorize):
            break
    return Hints(texts=tuple(dict.fromkeys(found))[:HINTS_MAX])


def _of_filter(stage: ast.LineFilter) -> Iterator[tuple[bytes, ...]]:
    """Yield what a filter demands: of each element one text."""
    if stage.op[0] == "!" or any(operand.address for operand in stage.operands):
        return
    demanded = [list(_of_operand(stage.op, operand.value)) for operand in stage.operands]
    if len(demanded) == 1:
        yield from demanded[0]
    elif all(demanded):
        one_of = tuple(text for texts in demanded for text in max(texts, key=_tells))
        if len(one_of) <= ALTERNATIVES_MAX:
            yield one_of


def _of_operand(op: str, value: str) -> Iterator[tuple[bytes, ...]]:
    if op == "|=":
        texts: list[tuple[str, ...]] = [(value,)]
    elif op == "|>":
        texts = [(text,) for text in value.split("<_>")]
    elif "(?" in value:
        return
    else:
        texts = required(value)
    for one_of in texts:
        pieces = [certain(text) for text in one_of]
        if all(pieces) and len(pieces) <= ALTERNATIVES_MAX:
            yield tuple(piece.encode() for piece in pieces)


def certain(text: str) -> str:
    """Return the longest part of a text that a record has whose line has the text; empty for none."""
    longest = ""
    for piece in _BETWEEN.split(text):
        escape = _OF_ESCAPE.match(piece)
        rest = piece[escape.end() :] if escape is not None else piece
        if len(rest) > max(len(longest), LENGTH_MIN - 1) and _is_of_a_string(rest):
            longest = rest
    return longest


def _is_of_a_string(text: str) -> bool:
    """Tell whether a text stands in a string or a key, and is no part of a number, a truth value, or of base64."""
    if _NUMBER.issuperset(text) or any(text in constant for constant in _CONSTANTS):
        return False
    return _ORDINARY.fullmatch(text) is not None


def _tells(texts: tuple[bytes, ...]) -> int:
    return min(map(len, texts))
