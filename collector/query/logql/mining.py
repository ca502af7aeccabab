"""Patterns: what the lines of a query have in common, as texts with `<_>` where they differ; mined when they are asked for.

Lines are cut into words, white space and punctuation. Lines with equally many pieces and the same first word are compared with
each other, as in Drain (He, Zhu, Zheng, Lyu: "Drain: an online log parsing approach with fixed depth tree", 2017): a line
joins the cluster with which at least `SIMILAR` of its words agree, and where they do not agree the cluster has a wildcard; else it
begins a cluster. Pieces with a digit may differ without being counted as different, because they mostly are numbers, times or ids; where all
of a cluster agree, they stay. Adjacent wildcards are one.

A pattern is what the line filter `|>` reads, and finds its lines. The filter takes each literal where it first occurs, so a pattern
that says where texts stand is not enough: where a literal occurs before its place in one of the lines, it becomes part of a wildcard.
Without it the literals behind it occur no later than at their places, so this ends with a pattern that finds all its lines.

Bounded: `LINES_MAX` lines of `CHARS_MAX` characters, the newest; `CLUSTERS_MAX` clusters, of which the one that was not seen for longest makes room for a new one;
`PIECES_MAX` pieces of a line, behind which it ends in a wildcard. Patterns tells what was not looked at, and what was left out.
Cost: about 9 µs for a line of 250 bytes.
"""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from collector.query.logql.levels import LEVEL
from collector.query.logql.patterns import filter_pattern
from collector.query.logql.source import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.query.deadline import Deadline
    from collector.query.logql.source import Source
    from collector.store import View

LINES_MAX: Final = 50_000
CHARS_MAX: Final = 32 << 20
"""Lines that are looked at, and their characters."""
CLUSTERS_MAX: Final = 300
"""Clusters at a time, and so patterns of an answer, levels aside: Loki's own number."""
LINE_CHARS_MAX: Final = 3000
PIECES_MAX: Final = 200
"""Characters and pieces of a line that are looked at."""
SIMILAR: Final = 0.5
"""Which part of the words must agree."""
KNOWN_MAX: Final = 10_000
"""Forms of lines whose cluster is remembered; then they are all forgotten."""

WILDCARD: Final = "<_>"
_PIECES: Final = re.compile(r"\s+|[^\s=,;()\[\]{}<>\"'|]+|.")
_DIGIT: Final = re.compile(r"[0-9]")


class Pattern(NamedTuple):
    """One pattern, of lines of one level."""

    text: str
    level: str
    samples: list[tuple[int, int]]
    """(Unix ns of the interval's begin, lines), by time."""

    @property
    def lines(self) -> int:
        """How many lines there are of it."""
        return sum(count for _, count in self.samples)


class Patterns(NamedTuple):
    """What was found."""

    patterns: list[Pattern]
    """The most frequent first."""
    lines: int
    """How many lines were looked at."""
    since_ns: int | None
    """The oldest time that was looked at in full, when LINES_MAX or CHARS_MAX ended it; None: all lines of the range."""
    left_out: int
    """Lines that are in no pattern, because their cluster made room for others."""


@dataclass(slots=True, eq=False)
class _Cluster:
    pieces: list[str]
    places: dict[int, str]
    """The pieces with digits that all lines so far agree in."""
    counts: Counter[tuple[str, int]] = field(default_factory=Counter)
    lines: set[str] = field(default_factory=set)
    """Each as far as it is looked at, and a character more."""

    def text(self, check: Callable[[], None]) -> str:
        """Return the pattern. `check` is called now and then, and may raise."""
        parts: list[str] = []  # literals and wildcards in turn
        for is_wildcard, pieces in groupby(self.pieces, WILDCARD.__eq__):
            parts.append(WILDCARD if is_wildcard else "".join(pieces))
        is_certain = WILDCARD not in parts
        while not is_certain:
            check()
            is_certain = True
            pattern = filter_pattern("".join(parts))
            for line in self.lines:
                place = pattern.misfit(line.encode())
                if place is not None:
                    parts[place - 1 : place + 2] = [WILDCARD]
                    is_certain = False
                    break
        return "".join(parts)


class Miner:
    """Clusters lines."""

    def __init__(self) -> None:
        self._clusters: OrderedDict[int, _Cluster] = OrderedDict()
        self._groups: dict[tuple[int, str], list[int]] = {}
        self._keys: dict[int, tuple[int, str]] = {}
        self._known: dict[tuple[str, ...], int] = {}
        self._next = 0
        self.left_out = 0
        """Lines of clusters that made room for others."""

    def add(self, line: str, level: str, interval: int) -> None:
        """Take a line that lies in an interval."""
        pieces = _PIECES.findall(line[:LINE_CHARS_MAX])
        if len(pieces) > PIECES_MAX or len(line) > LINE_CHARS_MAX:
            pieces[PIECES_MAX - 1 :] = [WILDCARD]
        # A bracket would be read as a wildcard's begin.
        pieces = [WILDCARD if piece == "<" else piece for piece in pieces]
        digits = [place for place, piece in enumerate(pieces) if _DIGIT.search(piece)]
        form = list(pieces)
        for place in digits:
            form[place] = WILDCARD
        key = tuple(form)
        number = self._known.get(key)
        if number is None or number not in self._clusters:
            number = self._find(form, pieces, digits)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[key] = number
        cluster = self._clusters[number]
        self._clusters.move_to_end(number)
        for place in [place for place, piece in cluster.places.items() if pieces[place] != piece]:
            del cluster.places[place]
            cluster.pieces[place] = WILDCARD
        cluster.counts[level, interval] += 1
        cluster.lines.add(line[: LINE_CHARS_MAX + 1])

    def _find(self, form: list[str], pieces: list[str], digits: list[int]) -> int:
        """Return the cluster of a line that has a new form; it may be a new one."""
        first = next((piece for piece in form if not piece.isspace()), "")
        key = (len(form), first)
        group = self._groups.setdefault(key, [])
        words = sum(not piece.isspace() for piece in form)
        best, best_same = -1, 0
        for number in group:
            cluster = self._clusters[number]
            same = sum(
                mine == other and not mine.isspace() for mine, other in zip(cluster.pieces, pieces, strict=True)
            ) + sum(cluster.pieces[place] == WILDCARD for place in digits)
            if same > best_same:
                best, best_same = number, same
        if best >= 0 and best_same >= SIMILAR * words:
            cluster = self._clusters[best]
            for place, (mine, other) in enumerate(zip(cluster.pieces, pieces, strict=True)):
                if mine not in (other, WILDCARD):
                    cluster.pieces[place] = WILDCARD
                    cluster.places.pop(place, None)
            return best
        self._make_room()
        number = self._next
        self._next += 1
        self._clusters[number] = _Cluster(list(pieces), {place: pieces[place] for place in digits})
        self._keys[number] = key
        self._groups.setdefault(key, []).append(number)
        return number

    def _make_room(self) -> None:
        if len(self._clusters) < CLUSTERS_MAX:
            return
        number, cluster = self._clusters.popitem(last=False)
        self.left_out += cluster.counts.total()
        group = self._groups[self._keys[number]]
        group.remove(number)
        if not group:
            del self._groups[self._keys[number]]
        del self._keys[number]

    def patterns(self, check: Callable[[], None] = lambda: None) -> list[Pattern]:
        """Return what was found, the most frequent first. `check` is called now and then, and may raise."""
        merged: dict[tuple[str, str], Counter[int]] = {}
        for cluster in self._clusters.values():
            text = cluster.text(check)
            for (level, interval), count in cluster.counts.items():
                merged.setdefault((text, level), Counter())[interval] += count
        found = [Pattern(text, level, sorted(counts.items())) for (text, level), counts in merged.items()]
        return sorted(found, key=lambda one: (-one.lines, one.text, one.level))


def mine(deadline: Deadline, view: View, source: Source, start_ns: int, end_ns: int, step_ns: int) -> Patterns:
    """Return the patterns of the newest lines with start_ns <= time <= end_ns. Raises QueryTimeout."""
    miner = Miner()
    statistics = Statistics()
    looked_at = chars = 0
    since: int | None = None
    for piece in source.pieces(view, start_ns, end_ns, deadline):
        batch = source.batch(piece, view, deadline, statistics)
        if not batch.rows.size:
            continue
        times = batch.block.column("time")[batch.rows].tolist()
        chars += int(np.minimum(batch.lines.sizes(), LINE_CHARS_MAX).sum())
        if looked_at + len(times) > LINES_MAX or chars > CHARS_MAX:
            since = max(times) + 1
            break
        looked_at += len(times)
        levels = batch.column(LEVEL)
        for line, time, code in zip(batch.lines.all(), times, levels.codes.tolist(), strict=True):
            miner.add(line.decode(errors="replace"), levels.values[code], time // step_ns * step_ns)
    return Patterns(miner.patterns(deadline.check), looked_at, since, miner.left_out)
