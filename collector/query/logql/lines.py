"""The lines of many records at once: where they lie in a buffer, which is the payload as long as it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from opentelemetry.proto.common.v1 import common_pb2

from collector.query import levels, match
from collector.query.logql.labels import value_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block

_TYPES = np.arange(match.EMPTY + 1)
_IS_DOCUMENT = ~np.isin(_TYPES, (match.ABSENT, match.STRING, match.EMPTY))  # as a body: not text


class Lines:
    """Lines, each a slice of one buffer."""

    def __init__(self, buffer: bytes | bytearray, starts: NDArray[Any], lengths: NDArray[Any]) -> None:
        """Take where each line starts, and its length (u32, bytes)."""
        self.buffer = buffer
        self.starts = starts
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.starts)

    def narrowed(self, mask: NDArray[np.bool_]) -> Lines:
        """Return the lines that the mask names."""
        return Lines(self.buffer, self.starts[mask], self.lengths[mask])

    def sizes(self) -> NDArray[np.int64]:
        """Return the lines' lengths in bytes."""
        return self.lengths.astype(np.int64)

    def line(self, place: int) -> bytes:
        """Return one line."""
        start = int(self.starts[place])
        return bytes(memoryview(self.buffer)[start : start + int(self.lengths[place])])

    def all(self) -> list[bytes]:
        """Return every line."""
        view = memoryview(self.buffer)
        return [
            bytes(view[start : start + length])
            for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True)
        ]

    def contain(self, needle: bytes) -> NDArray[np.bool_]:
        """Tell for each line whether the needle occurs in it."""
        return match.contains(self.buffer, self.starts, self.lengths, needle)

    def levels(self) -> NDArray[np.uint8]:
        """Return the code of the level that each line tells, an index of `levels.LEVELS`."""
        return levels.levels(self.buffer, self.starts, self.lengths)

    def meet(self, predicate: Callable[[bytes], bool]) -> NDArray[np.bool_]:
        """Tell for each line whether its bytes meet the predicate."""
        return np.fromiter(map(predicate, self.all()), np.bool_, len(self.starts))


def lines_of(texts: Sequence[bytes]) -> Lines:
    """Return lines that are these bytes. Together they may have at most 4 GiB."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    starts = np.cumsum(lengths) - lengths
    return Lines(b"".join(texts), starts.astype(np.uint32), lengths.astype(np.uint32))


def body_lines(block: Block, rows: NDArray[np.intp]) -> Lines:
    """Return the lines that the bodies of a block's records are: where they lie, if all of them are texts."""
    starts, lengths = block.column("body_start")[rows], block.column("body_length")[rows]
    values = match.any_value(block.payload, starts, lengths)
    lines = Lines(block.payload, values.start, values.length)
    documents = _IS_DOCUMENT[values.type]
    if not documents.any():
        return lines
    texts = lines.all()
    for place in np.flatnonzero(documents).tolist():
        start, length = int(starts[place]), int(lengths[place])
        body = common_pb2.AnyValue.FromString(bytes(memoryview(block.payload)[start : start + length]))
        texts[place] = value_text(body).encode()
    return lines_of(texts)
