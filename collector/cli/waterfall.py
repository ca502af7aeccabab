"""A trace as a waterfall: a tree of spans, each with its bar on a common axis of time. No I/O.

Spans hang under the span that their parent id names. What names one that is not there is a root beside the others, and
said to be; so is the earliest span of a circle. Where span ids stand twice, children hang under the first. Children are in
the order of their start. Traces may be deep: nothing here recurses, and beyond `DEPTH_SHOWN` the tree grows no wider.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import click

from collector.cli.terminal import duration, escaped, fitted, moment

DEPTH_SHOWN: Final = 20
NAME_SHARE, SERVICE_WIDTH, DURATION_WIDTH, BAR_MIN = 0.42, 16, 8, 10
"""Of a line: the part for the tree, and columns of the rest."""

Style = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Bar:
    """One span, as it is drawn. Times in ns."""

    span_id: str
    parent_id: str
    name: str
    service: str
    start: int
    end: int
    is_error: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """A span in the tree. `lines` says for each level above it whether a later sibling follows there."""

    bar: Bar
    lines: tuple[bool, ...]
    is_orphan: bool = False


@dataclass(frozen=True, slots=True)
class Signs:
    """What is drawn with."""

    more: str
    last: str
    below: str
    full: str
    tick: str


UNICODE: Final = Signs("├ ", "└ ", "│ ", "█", "▏")
ASCII: Final = Signs("|-", "`-", "| ", "=", "|")


def placed(bars: Sequence[Bar]) -> Iterator[Placed]:
    """Yield every span once, parents before their children."""
    first: dict[str, int] = {}
    for at, bar in enumerate(bars):
        first.setdefault(bar.span_id, at)
    order = sorted(range(len(bars)), key=lambda at: (bars[at].start, at))
    children: dict[int, list[int]] = {}
    roots = []
    for at in order:
        parent = first.get(bars[at].parent_id, -1) if bars[at].parent_id else -1
        if parent in (-1, at):
            roots.append(at)
        else:
            children.setdefault(parent, []).append(at)
    seen: set[int] = set()
    for root in [*roots, *order]:
        stack: deque[tuple[int, tuple[bool, ...]]] = deque([(root, ())])
        while stack:
            at, lines = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            yield Placed(bars[at], lines, is_orphan=not lines and bool(bars[at].parent_id))
            under = [one for one in children.get(at, ()) if one not in seen]
            last = under[-1] if under else -1
            above = lines[-DEPTH_SHOWN + 1 :]
            stack.extend((one, (*above, one != last)) for one in reversed(under))


def waterfall(
    trace_id: str,
    bars: Sequence[Bar],
    width: int,
    signs: Signs,
    error: Style,
    dim: Style,
    *,
    missing: str = "",
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[str]:
    """Yield the lines of a trace's picture; `error` and `dim` colour what is one, and what is less important.

    `missing` says what is known not to be there. `notes` are lines to write under spans, by their ids (of several spans with
    one id under the first): escaped and coloured already.
    """
    notes = dict(notes or {})
    begin, end = min(bar.start for bar in bars), max(bar.end for bar in bars)
    tree = list(placed(bars))
    errors, orphans = sum(bar.is_error for bar in bars), sum(one.is_orphan for one in tree)
    services = len({bar.service for bar in bars})
    head = [
        f"trace {escaped(trace_id)}",
        moment(begin),
        duration(max(0, end - begin)),
        _count(len(bars), "span"),
        _count(services, "service"),
    ]
    yield "  ".join([*head, error(_count(errors, "error"))] if errors else head)
    if missing:
        yield error(escaped(missing))
    if orphans:
        yield error(f"parts are missing: {_count(orphans, 'span')} with a parent that is not here, marked ?")
    yield ""
    wide = max(20, int(width * NAME_SHARE))
    room = max(BAR_MIN, width - wide - SERVICE_WIDTH - DURATION_WIDTH - 6)
    for one in tree:
        bar = one.bar
        indent = _indent(one.lines, signs)
        marks = ("? " if one.is_orphan else "") + ("! " if bar.is_error else "")
        name = fitted(indent + marks + escaped(bar.name), wide)
        service = fitted(escaped(bar.service), SERVICE_WIDTH)
        took = duration(max(0, bar.end - bar.start)).rjust(DURATION_WIDTH)
        drawn = _drawn(bar, begin, end, room, signs)
        yield f"{error(name) if bar.is_error else name}  {dim(service)}  {took}  {error(drawn) if bar.is_error else drawn}".rstrip()
        below = "".join(signs.below if more else "  " for more in one.lines)
        if bar.is_error and bar.message:
            yield dim(below) + error(f"  ! {escaped(bar.message)}")
        for note in notes.pop(bar.span_id, ()):
            yield f"{dim(below)}  {note}"


def _indent(lines: tuple[bool, ...], signs: Signs) -> str:
    if not lines:
        return ""
    return "".join(signs.below if more else "  " for more in lines[:-1]) + (signs.more if lines[-1] else signs.last)


def _drawn(bar: Bar, begin: int, end: int, room: int, signs: Signs) -> str:
    whole = max(1, end - begin)
    left = min(room - 1, (bar.start - begin) * room // whole)
    size = (max(bar.start, bar.end) - bar.start) * room // whole
    return " " * left + (signs.full * min(size, room - left) if size else signs.tick)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def in_red(text: str) -> str:
    """Colour an error."""
    return click.style(text, fg="red")


def in_grey(text: str) -> str:
    """Colour what is less important."""
    return click.style(text, dim=True)
