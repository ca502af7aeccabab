r"""What every match of a regular expression contains: texts that it must have, taken from the expression.

`order (placed|refused) by \\d+` matches only lines that have "order ", "placed" or "refused", and " by ".

An expression is read as RE2 does, but for what is rare: where this reader is not sure it says nothing. Case is left to
who uses the texts: an expression may be blind to it in any part.
"""

from __future__ import annotations

import re
from typing import Final

DEPTH_MAX: Final = 50
"""Groups within groups that are looked into."""
TEXTS_MAX: Final = 64
"""Alternatives of one requirement; one with more is left out."""

Required = list[tuple[str, ...]]
"""All of these: a text out of each must be there."""

_REPEAT: Final = re.compile(r"\{(\d+)(,\d*)?\}")
_OPENING: Final = re.compile(r"\((?:\?(?:P?<[A-Za-z_0-9]+>|[ims-]*:))?")
_FLAGS: Final = re.compile(r"\(\?[ims-]+\)")
_CLASS: Final = re.compile(r"\[\^?\]?(?:\[:\^?[a-z]+:\]|\\.|[^\]\\])*\]", re.DOTALL)
_CLASSES: Final = frozenset("dDsSwWbBAz")  # of an escape: a class of characters, or a place
_CONTROLS: Final = {"n": "\n", "t": "\t", "r": "\r"}


class _Unsure(Exception):
    """The expression has something that this reader does not know."""


def required(expression: str) -> Required:
    """Return what any match of an expression contains; nothing when that is not known."""
    reader = _Reader(expression)
    try:
        found = reader.alternation(0)
    except _Unsure:
        return []
    return found if reader.at == len(expression) else []


class _Reader:
    def __init__(self, expression: str) -> None:
        self._text = expression
        self.at = 0

    def alternation(self, depth: int) -> Required:
        """Read branches up to the end of the group."""
        if depth > DEPTH_MAX:
            raise _Unsure
        branches = [self._branch(depth)]
        while self._text.startswith("|", self.at):
            self.at += 1
            branches.append(self._branch(depth))
        if len(branches) == 1:
            return branches[0]
        if not all(branches):
            return []
        texts = tuple(text for branch in branches for text in max(branch, key=_shortest))
        return [texts] if len(texts) <= TEXTS_MAX else []

    def _branch(self, depth: int) -> Required:
        """Read one thing after the other up to `|` or the end of the group."""
        found: Required = []
        run = ""  # of characters that follow each other
        while self.at < len(self._text) and self._text[self.at] not in "|)":
            inner = self._atom(depth)
            least, repeated = self._repetition()
            if isinstance(inner, str) and not repeated:
                run += inner
                continue
            if isinstance(inner, str) and least:
                run += inner
            if run:
                found.append((run,))
                run = ""
            if not isinstance(inner, str) and least:
                found += inner
        if run:
            found.append((run,))
        return found

    def _atom(self, depth: int) -> str | Required:
        """Read one thing: a character, or what a group or class requires."""
        text, at = self._text, self.at
        character = text[at]
        if character == "(":
            flags = _FLAGS.match(text, at)
            if flags is not None:
                self.at = flags.end()
                return []
            opening = _OPENING.match(text, at)
            assert opening is not None
            self.at = opening.end()
            if text.startswith("?", self.at):
                raise _Unsure
            found = self.alternation(depth + 1)
            if not text.startswith(")", self.at):
                raise _Unsure
            self.at += 1
            return found
        if character == "[":
            found_class = _CLASS.match(text, at)
            if found_class is None:
                raise _Unsure
            self.at = found_class.end()
            return []
        if character == "\\":
            return self._escape()
        self.at += 1
        if character in "^$.":
            return []
        if character in "*+?" or ord(character) > 0xFFFF:
            raise _Unsure
        return character

    def _escape(self) -> str | Required:
        escaped = self._text[self.at + 1 : self.at + 2]
        self.at += 2
        if escaped in _CONTROLS:
            return _CONTROLS[escaped]
        if escaped in _CLASSES:
            return []
        if not escaped or escaped.isalnum() or not escaped.isascii():
            raise _Unsure
        return escaped

    def _repetition(self) -> tuple[int, bool]:
        """Read how often what was just read must be there: (at least once or not, whether anything was said)."""
        text, least, repeated = self._text, 1, False
        while self.at < len(text) and text[self.at] in "*+?{":
            if text[self.at] == "{":
                count = _REPEAT.match(text, self.at)
                if count is None:
                    break
                least = min(least, int(count[1][:6]))
                self.at = count.end()
            else:
                is_not_greedy = text[self.at] == "?" and repeated
                least = least if text[self.at] == "+" or is_not_greedy else 0
                self.at += 1
            repeated = True
        return least, repeated


def _shortest(texts: tuple[str, ...]) -> int:
    return min(map(len, texts))
