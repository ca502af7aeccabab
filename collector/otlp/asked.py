"""What a query asks of a backend, in plain values: which records can be of use to it, narrowed as far as is certain.

As terms.py for the keyword indexes, this says less than the query asks and never more: whoever reads by it looks at every
record again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

END_OF_TIME = 2**64 - 1


class Attributed(NamedTuple):
    """An attribute with one of some values, or with an array that has one of them."""

    where: str
    """`resource`, `record`, or `either`."""
    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hints:
    """What a query demands of every record that it looks at, beside time and key. Empty: nothing is known."""

    services: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Of spans or metrics."""
    named: Callable[[str], bool] | None = None
    """Tells of a metric's name whether the query can be about it: for who knows all names. None: it may be any."""
    texts: tuple[tuple[bytes, ...], ...] = ()
    """Of each element, one text stands in the record, byte by byte: in a string or a key of it."""
    attributes: tuple[Attributed, ...] = ()
    since_ns: int = 0
    """Records before this time are of no use, if they are in a backend."""


NOTHING = Hints()
"""No hints."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Records that fit all of this; empty tuples ask nothing."""

    start_ns: int = 0
    end_ns: int = END_OF_TIME
    """Main times, both inclusive."""
    newest_first: bool = True
    trace_ids: tuple[bytes, ...] = ()
    services: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    named: Callable[[str], bool] | None = None
    severities: tuple[int, ...] = ()
    texts: tuple[tuple[bytes, ...], ...] = ()
    attributes: tuple[Attributed, ...] = ()
