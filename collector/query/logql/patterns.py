"""Pattern expressions: `<ip> - - <_> "<method> <path> <_>"`, literals with captures between them.

A capture is `<name>`, the nameless one `<_>`; everything else is literal. As a parser (`| pattern`), a pattern begins
at the line's beginning, and every capture goes up to the next place of the literal behind it; where that literal is
missing, the capture takes the rest of the line and the later ones are not set. As a filter (`|>`), it must
fit the whole line, and no capture may be empty; names are not allowed there.
"""

from __future__ import annotations

import re

from collector.errors import InvalidQuery

_CAPTURE = re.compile(r"<([A-Za-z_][A-Za-z0-9_]*)>")
_NAMELESS = "_"


class Pattern:
    """A pattern expression."""

    def __init__(self, text: str, at: int | None = None) -> None:
        """Read an expression. Raises InvalidQuery, at the position given, when two captures touch."""
        self._nodes: list[str | bytes] = []
        """Captures by their names, literals as bytes."""
        end = 0
        for found in _CAPTURE.finditer(text):
            if found.start() > end:
                self._nodes.append(text[end : found.start()].encode())
            elif self._nodes:
                raise InvalidQuery(f"found consecutive capture {found.group()!r}: invalid expression", at)
            self._nodes.append(found.group(1))
            end = found.end()
        if end < len(text):
            self._nodes.append(text[end:].encode())
        self.names = [node for node in self._nodes if isinstance(node, str) and node != _NAMELESS]
        """The names of the captures that have one."""

    def literal(self) -> bytes:
        """Return the longest literal: a line that fits has it."""
        return max((node for node in self._nodes if isinstance(node, bytes)), key=len, default=b"")

    def captures(self, line: bytes) -> list[tuple[str, bytes]]:
        """Return the names and texts of the captures that are found at the beginning of a line."""
        found: list[tuple[str, bytes]] = []
        if not line:
            return found
        nodes = self._nodes
        at = place = 0
        if nodes and isinstance(nodes[0], bytes):
            if not line.startswith(nodes[0]):
                return found
            at, place = len(nodes[0]), 1
        while place < len(nodes):
            name = nodes[place]
            assert isinstance(name, str)  # literals and captures take turns
            literal = nodes[place + 1] if place + 1 < len(nodes) else b""
            assert isinstance(literal, bytes)
            end = line.find(literal, at) if literal else -1
            if name != _NAMELESS:
                found.append((name, line[at:] if end < 0 else line[at:end]))
            if end < 0:
                break
            at = end + len(literal)
            place += 2
        return found

    def fits(self, line: bytes) -> bool:
        """Tell whether a whole line fits, with something in each capture."""
        return self.misfit(line) is None

    def misfit(self, line: bytes) -> int | None:
        """Return where a line does not fit: the place of a literal among literals and captures; None if it fits.

        As in Loki, each literal is taken where it first occurs, and that is not thought over when a later one, or the
        line's end, is not where it should be.
        """
        nodes = self._nodes
        if not line or not nodes:
            return None if not line and not nodes else 0
        at = 0
        for place, node in enumerate(nodes):
            if isinstance(node, bytes):
                found = line.find(node, at)
                if found < 0 or (place and found == at):
                    return place
                at = found + len(node)
        return None if isinstance(nodes[-1], str) == (at != len(line)) else len(nodes) - 1


def parser_pattern(text: str, at: int | None = None) -> Pattern:
    """Return the pattern of `| pattern`. Raises InvalidQuery."""
    pattern = Pattern(text, at)
    if not pattern.names:
        raise InvalidQuery("a pattern needs at least one capture such as <name>", at)
    for name in pattern.names:
        if pattern.names.count(name) > 1:
            raise InvalidQuery(f"duplicate capture name ({name}): invalid expression", at)
    return pattern


def filter_pattern(text: str, at: int | None = None) -> Pattern:
    """Return the pattern of `|>` and `!>`. Raises InvalidQuery."""
    pattern = Pattern(text, at)
    if pattern.names:
        raise InvalidQuery(f"named captures are not allowed in a filter: found '<{pattern.names[0]}>'", at)
    return pattern
