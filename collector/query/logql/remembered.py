"""Remembered labels: what some labels were in the ring's records when a query last asked, by offset.

A record's labels before any pipeline never change, whatever becomes of its block. So a label that a metric query groups
or filters by is kept as one array over the ring's offsets, a code for each record and a dictionary of texts; the next
query reads what came since. The stream (its index labels) and the size of the line are kept in the same way. Counting a
million lines by level then touches three arrays and no payload.

A label with more than `DISTINCT_MAX` texts (a trace id) is not remembered.

Memory: 1, 2 or 4 bytes for each record of the ring and label, in all what the memo may hold (memory.py gives it a share
of the process' limit, and forgets it when memory is short); the label that was not asked for longest goes first. Shared
by worker threads, under a lock: an array is made by one of them, and the others wait for it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.query.by_offset import ByOffset, merged
from collector.query.logql.column import ABSENT, KINDS, compact
from collector.query.logql.known import SIZE, STREAM, Known
from collector.query.logql.labels import Container, Records
from collector.query.logql.levels import told
from collector.query.logql.original import Original

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.store import Memo, View

DISTINCT_MAX: Final = 32_768
"""Texts of a label, or streams, that are remembered."""
TEXT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of them."""
FILL_SHARE: Final = 8
"""Records that are read for the next query are at most so many times those that this one looks at."""

_ENTRY_BYTES: Final = 250  # of the interpreter's objects, for each text


class _Full(Exception):
    """A field has more values than are remembered."""


class _Field(ByOffset):
    """One remembered field."""

    def __init__(self, name: str, first: int) -> None:
        super().__init__(np.uint32 if name == SIZE else np.uint8, first)
        self.name = name
        self.usable = True
        self._places: dict[Any, int] = {}
        self._values: list[str] = [""]
        self._kinds: list[int] = [ABSENT]
        self._streams: list[Container] = []
        self._text_bytes = 0

    @property
    def nbytes(self) -> int:
        return super().nbytes + self._text_bytes + _ENTRY_BYTES * len(self._places)

    def known(self) -> Known:
        """Return the field as it is now."""
        codes = self.between(self.first, self.end)
        kinds = np.array(self._kinds, np.uint8)
        return Known(self.first, self.end, codes, list(self._values), kinds, list(self._streams))

    def add(self, layer: Original, records: Records) -> None:
        """Take the records that follow. Raises _Full."""
        if self.name == SIZE:
            self.append(layer.lines.sizes())
        elif self.name == STREAM:
            codes, containers = records.containers(layer.block, layer.rows)
            numbers = [self._stream(container.stream) for container in containers]
            self.append(np.array(numbers, np.int64)[codes], max(numbers, default=0))
        else:
            entry = layer.entry(self.name)
            used, places = compact(entry.codes * KINDS + entry.kinds, len(entry.values) * KINDS)
            numbers = [self._text(entry.values[pair // KINDS], pair % KINDS) for pair in used.tolist()]
            self.append(np.array(numbers, np.int64)[places], max(numbers, default=0))

    def _stream(self, stream: dict[str, str]) -> int:
        key = tuple(sorted(stream.items()))
        number = self._places.get(key)
        if number is None:
            number = len(self._streams)
            self._note(key, number, sum(len(name) + len(text) + 2 * _ENTRY_BYTES for name, text in key))
            stream = dict(key)
            self._streams.append(Container(stream, {}, told(stream)))
        return number

    def _text(self, text: str, kind: int) -> int:
        if kind == ABSENT:
            return 0
        number = self._places.get((kind, text))
        if number is None:
            number = len(self._values)
            self._note((kind, text), number, len(text))
            self._values.append(text)
            self._kinds.append(kind)
        return number

    def _note(self, key: Any, number: int, size: int) -> None:
        self._places[key] = number
        self._text_bytes += size
        if len(self._places) > DISTINCT_MAX or self._text_bytes > TEXT_BYTES_MAX:
            raise _Full


class Remembered:
    """The remembered fields of one store's ring."""

    def __init__(self, memo: Memo) -> None:
        """Remember nothing yet; the memo tells how many bytes there may be."""
        self._memo = memo
        self._lock = threading.Lock()
        self._fields: OrderedDict[str, _Field] = OrderedDict()

    @property
    def nbytes(self) -> int:
        """The bytes of all fields."""
        return sum(field.nbytes for field in tuple(self._fields.values()))

    def peek(self, names: Iterable[str]) -> dict[str, Known]:
        """Return what is remembered of some labels, as it is, without those of which nothing is."""
        with self._lock:
            fields = [self._fields[name] for name in names if name in self._fields]
            return {field.name: field.known() for field in fields if field.usable and field.end > field.first}

    def known(self, deadline: Deadline, view: View, names: Iterable[str], wanted: int) -> dict[str, Known] | None:
        """Return labels, STREAM and SIZE over all that the view can read of the ring's blocks (`reach`), at least.

        `wanted` is how many records the query looks at, about: it does not read many times as many for others. None when
        a field cannot be remembered, or it is not worth it.
        """
        first, end = reach(view)
        with self._lock:
            names = tuple(dict.fromkeys(names))
            for name in names:
                field = self._fields.get(name)
                if field is None or (field.usable and (field.end < first or field.first == field.end)):
                    self._fields[name] = _Field(name, first)
                self._fields.move_to_end(name)
            fields = [self._fields[name] for name in names]
            missing = max((end - field.end for field in fields), default=0)
            if not all(field.usable and field.first <= first for field in fields) or missing > FILL_SHARE * wanted:
                return None
            try:
                if not self._fill(deadline, view, names, first):
                    return None
                return {name: self._fields[name].known() for name in names}
            finally:
                self._keep_to_bounds()

    def _keep_to_bounds(self) -> None:
        """Forget what was not asked for longest, as long as it is too much."""
        for name in list(self._fields):
            if max(self.nbytes, self._memo.nbytes) <= self._memo.bytes_max:
                return
            if self._fields[name].nbytes:
                del self._fields[name]

    def _fill(self, deadline: Deadline, view: View, names: Sequence[str], first: int) -> bool:
        """Read what came since; False when a label has too many texts."""
        anew: set[str] = set()
        for name in names:
            self._fields[name].forget_before(first)
        while pending := [name for name in names if self._fields[name].end < view.ring.next_offset]:
            begin = min(self._fields[name].end for name in pending)
            records = Records()
            records.remember(view.memo)
            for block in merged(view.ring.blocks, begin):
                deadline.check()
                for name in self._take(deadline, view, block, pending, records):
                    # A dictionary fills up with texts of records that are gone: then it is made anew, once.
                    field = self._fields[name] = _Field(name, first)
                    if name in anew:
                        field.usable = False
                        return False
                    anew.add(name)
        return True

    def _take(self, deadline: Deadline, view: View, block: Block, names: Sequence[str], records: Records) -> list[str]:
        """Have fields take the records of a block that follow; return the names of those that are full."""
        layers: dict[int, Original] = {}
        end = min(block.end_offset, view.ring.next_offset)
        full = []
        for name in names:
            field = self._fields[name]
            if not block.base_offset <= field.end < end:
                continue
            at = field.end - block.base_offset
            if at not in layers:
                layers[at] = Original(block, np.arange(at, end - block.base_offset), records, deadline)
            try:
                field.add(layers[at], records)
            except _Full:
                full.append(name)
        return full


def reach(view: View) -> tuple[int, int]:
    """Return the first offset of the ring's blocks that a view can read, and the one after the last."""
    ring = view.ring
    if not ring.blocks:
        return ring.next_offset, ring.next_offset
    return max(view.first_offset, ring.blocks[0].base_offset), ring.next_offset
