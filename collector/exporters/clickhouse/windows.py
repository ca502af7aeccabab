"""A time range in parts, newest or oldest first, each asked for by itself.

Tables are not sorted by time, so a server that is asked for everything in that order sorts everything before it gives the first
row; who reads often stops after the first block. So parts are asked for one after the other, each of about as many rows as a few
blocks. How long that is, is first reckoned from the table's rows and range as if they came evenly, and then from what came: four
times as long after few rows, half as long after many. A search for what is rare takes some ten statements, however large the
table is.

Parts begin and end with whole seconds, as there are tables that have no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from collector.exporters.base import PIECE_RECORDS

if TYPE_CHECKING:
    from collector.exporters.base import Wanted

FEW: Final = PIECE_RECORDS
"""Rows of a part; fewer, and the next one is longer."""
MANY: Final = 8 * PIECE_RECORDS
"""The same; more, and it is shorter."""
_SECOND_NS: Final = 10**9


class Held(NamedTuple):
    """What a server knows of tables without looking into them."""

    rows: int
    first_ns: int
    last_ns: int


class Windows:
    """The parts for one question, as an iterator; `came` is told what each had."""

    def __init__(self, wanted: Wanted, held: Held) -> None:
        self._wanted = wanted
        self._low = max(held.first_ns, wanted.start_ns) // _SECOND_NS
        self._high = min(held.last_ns, wanted.end_ns) // _SECOND_NS + 1
        held_s = (held.last_ns - held.first_ns) // _SECOND_NS + 1
        self._length = max(1, 2 * FEW * held_s // max(1, held.rows))
        self._begun = self._ended = False

    def came(self, rows: int) -> None:
        """Tell how many rows the last part had."""
        if rows < FEW:
            self._length *= 4
        elif rows > MANY:
            self._length = max(1, self._length // 2)

    def __iter__(self) -> Windows:
        """Return itself."""
        return self

    def __next__(self) -> tuple[int, int]:
        """Return the next part, in ns, both ends inclusive. The first and the last reach to the ends of what is wanted."""
        if self._ended:
            raise StopIteration
        newest_first = self._wanted.newest_first
        start_ns, end_ns = self._wanted.start_ns, self._wanted.end_ns
        self._ended = self._high - self._low <= self._length
        edge = self._high - self._length if newest_first else self._low + self._length
        if newest_first:
            if self._begun:
                end_ns = self._high * _SECOND_NS - 1
            if not self._ended:
                start_ns = edge * _SECOND_NS
            self._high = edge
        else:
            if self._begun:
                start_ns = self._low * _SECOND_NS
            if not self._ended:
                end_ns = edge * _SECOND_NS - 1
            self._low = edge
        self._begun = True
        return start_ns, end_ns
