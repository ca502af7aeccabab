"""Which endpoint gets which record, when there are several.

By trace id, with rendezvous hashing: every endpoint has a score for every trace, and the best that answers gets it. So a
trace stays with its endpoint whoever exports it, and when one goes away only its own traces move, evenly to the others.
Logs go with their trace, or if they have none with their service; data points with their service, so that a series stays
whole. Endpoints are known by what is written in the configuration, in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from collector.otlp.records import Ref, regroup
from collector.otlp.wire import hash_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from collector.exporters.base import Batch
    from collector.otlp.block import Block

_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_HIGH: Final = np.uint64(0x9E3779B97F4A7C15)


class Share(NamedTuple):
    """What one endpoint gets of a batch."""

    endpoint: int
    payload: bytes
    offsets: NDArray[np.int64]
    """Of its records, ascending."""


def seeds(names: Sequence[str]) -> NDArray[np.uint64]:
    """Return a number for each endpoint, which its name alone decides."""
    return np.array([hash_key(name.encode()) for name in names], np.uint64)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of splitmix64: every bit of the result depends on every bit of the number."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * _MIX[0]
    numbers = (numbers ^ (numbers >> np.uint64(27))) * _MIX[1]
    return np.asarray(numbers ^ (numbers >> np.uint64(31)))


def keys_of(block: Block) -> NDArray[np.uint64]:
    """Return for each record of a block the number that its endpoint is chosen by."""
    service: NDArray[Any] = block.column("service")
    if "trace_id" not in block.records.layout.columns:
        return _mixed(service.astype(np.uint64))
    ids = block.column("trace_id")
    traces = _mixed(ids[:, 0] * _HIGH + ids[:, 1])
    return np.where((ids[:, 0] | ids[:, 1]) == 0, _mixed(service.astype(np.uint64)), traces)


def choose(keys: NDArray[np.uint64], numbers: NDArray[np.uint64], answering: Sequence[int]) -> NDArray[np.intp]:
    """Return for each key the best of the endpoints that answer."""
    among = np.array(answering, np.intp)
    scores = np.stack([_mixed(keys ^ _mixed(numbers[one : one + 1])[0]) for one in answering])
    return np.asarray(among[np.argmax(scores, axis=0)])


def shares(
    batch: Batch, numbers: NDArray[np.uint64], answering: Sequence[int], delivered: NDArray[np.int64]
) -> list[Share]:
    """Divide a batch among the endpoints that answer; records at offsets that were delivered are left out.

    For a thread: some 2 µs a record.
    """
    found: dict[int, list[Ref]] = {}
    for block in batch.blocks:
        offsets = np.arange(block.base_offset, block.end_offset)
        rows = np.flatnonzero(~np.isin(offsets, delivered)) if delivered.size else np.arange(block.count)
        chosen = choose(keys_of(block)[rows], numbers, answering)
        times = block.column("time")
        for row, endpoint in zip(rows.tolist(), chosen.tolist(), strict=True):
            found.setdefault(endpoint, []).append(Ref(int(times[row]), block.base_offset + row, block, row))
    return [
        Share(endpoint, regroup(refs), np.array([ref.offset for ref in refs], np.int64))
        for endpoint, refs in sorted(found.items())
    ]
