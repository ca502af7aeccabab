"""Groups of a block, told apart by what they say and not by where they stand.

A block that was merged from requests of one record each has as many groups as records, and nearly all of them repeat
one resource, one scope, one metric. Whoever reads a group with the protobuf library asks here first which groups are
alike, and reads one of each kind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from collector.query import match

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from collector.otlp.block import Block


def groups_of(block: Block, rows: NDArray[np.intp]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the groups of ascending rows, each once and ascending, and for each row its group's place among them."""
    if block.groups.count == 1:
        return np.zeros(min(1, len(rows)), np.uint32), np.zeros(len(rows), np.intp)
    groups = block.column("group")[rows]
    changes = np.ones(len(groups), np.bool_)
    np.not_equal(groups[1:], groups[:-1], out=changes[1:])
    return groups[changes], np.cumsum(changes) - 1


def alike(block: Block, groups: NDArray[Any], *parts: str) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Tell groups with the same bytes in all these parts (`resource`, `scope`, `name`, …) from others.

    Returns a code for each group, and for each code the place of the first group that has it.
    """
    if len(groups) == 1:
        return np.zeros(1, np.intp), np.zeros(1, np.intp)
    extents = [
        (block.group_column(f"{part}_start")[groups], block.group_column(f"{part}_length")[groups]) for part in parts
    ]
    return match.distinct(block.payload, *extents)
