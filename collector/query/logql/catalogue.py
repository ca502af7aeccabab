"""What streams there are: label names, their values, label sets, and how much each selector selects.

All of it from containers (`streams.py`): no record is decoded. A stream counts if it has a line in the time range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from collector.errors import QueryLimit
from collector.query.logql import ast
from collector.query.logql.source import Selection
from collector.query.logql.streams import stream_lines

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from collector.query.deadline import Deadline
    from collector.store import View

Item = TypeVar("Item")
Labels = tuple[tuple[str, str], ...]

STREAMS_MAX = 100_000
"""Distinct streams, or values of a label, that one answer may name."""


class Volume(NamedTuple):
    """How much a selector selects."""

    streams: int
    blocks: int
    entries: int
    bytes: int


def streams(
    deadline: Deadline, view: View, selectors: Sequence[ast.Selector], start_ns: int, end_ns: int
) -> list[dict[str, str]]:
    """Return the streams that any of the selectors selects (all, if there is none), sorted."""
    found: set[Labels] = set()
    for stream in _selected(deadline, view, selectors, start_ns, end_ns):
        _add(found, _labels(stream))
    return [dict(labels) for labels in sorted(found)]


def label_names(
    deadline: Deadline, view: View, selectors: Sequence[ast.Selector], start_ns: int, end_ns: int
) -> list[str]:
    """Return the names of the selected streams' labels, sorted."""
    return sorted({name for stream in _selected(deadline, view, selectors, start_ns, end_ns) for name in stream})


def label_values(
    deadline: Deadline, view: View, selectors: Sequence[ast.Selector], start_ns: int, end_ns: int, name: str
) -> list[str]:
    """Return the values of a label of the selected streams, sorted; none if there is no such label."""
    found: set[str] = set()
    for stream in _selected(deadline, view, selectors, start_ns, end_ns):
        if name in stream:
            _add(found, stream[name])
    return sorted(found)


def volume(deadline: Deadline, view: View, selector: ast.Selector, start_ns: int, end_ns: int) -> Volume:
    """Return how many streams, blocks, lines and bytes of lines a selector selects."""
    found: set[Labels] = set()
    blocks = entries = size = 0
    for lines in stream_lines(deadline, view, Selection(selector), start_ns, end_ns, sizes=True):
        blocks += lines.blocks
        entries += len(lines.codes)
        size += int(lines.sizes.sum(dtype=np.int64))
        for number in lines.used():
            _add(found, _labels(lines.streams[number].stream))
    return Volume(len(found), blocks, entries, size)


def _selected(
    deadline: Deadline, view: View, selectors: Sequence[ast.Selector], start_ns: int, end_ns: int
) -> Iterator[dict[str, str]]:
    """Yield the labels of selected streams, one of them possibly many times."""
    selections = [Selection(selector) for selector in selectors] or [Selection(ast.Selector(()))]
    everything = selections[0] if len(selections) == 1 else Selection(ast.Selector(()))
    for lines in stream_lines(deadline, view, everything, start_ns, end_ns, sizes=False):
        for number in lines.used():
            container = lines.streams[number]
            if any(selection.has(container) for selection in selections):
                yield container.stream


def _labels(stream: dict[str, str]) -> Labels:
    return tuple(sorted(stream.items()))


def _add(found: set[Item], item: Item) -> None:
    found.add(item)
    if len(found) > STREAMS_MAX:
        raise QueryLimit(f"there are more than {STREAMS_MAX} streams or values; select fewer, or a shorter time")
