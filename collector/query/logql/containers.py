"""Containers that queries of a store have met: what a resource and a scope say is read once, not by each query anew.

A query that is answered out of twenty blocks would else spend half its time on decoding the same sixteen resources.
Shared by worker threads: each operation is one on a dictionary, and what two of them read at once is read twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collector.query.logql.labels import Container
    from collector.store import Memo

CONTAINERS_MAX: Final = 10_000
"""Containers that are remembered; then all are forgotten."""
NAMES_MAX: Final = 10_000
"""Attribute keys whose label names are remembered; likewise."""
_BYTES: Final = 2000
"""Of the interpreter's objects, for a container of ten labels; and what comes with its text, twice."""


class Containers:
    """Containers by the bytes of their parts, and label names by the keys of attributes."""

    def __init__(self, memo: Memo | None = None) -> None:
        """Remember nothing yet. With a memo, it tells how many bytes there may be."""
        self._memo = memo
        self._found: dict[tuple[bytes, ...], Container] = {}
        self._names: dict[bytes, str] = {}
        self._bytes = 0

    @property
    def nbytes(self) -> int:
        """About how much of memory it holds, in bytes."""
        return self._bytes

    def get(self, key: tuple[bytes, ...]) -> Container | None:
        """Return a container, if it is known."""
        return self._found.get(key)

    def add(self, key: tuple[bytes, ...], container: Container) -> Container:
        """Remember a container; return it."""
        size = _BYTES + 3 * sum(map(len, key))
        is_full = self._memo is not None and self._bytes + size > self._memo.bytes_max // 4
        if len(self._found) >= CONTAINERS_MAX or is_full:
            self._found.clear()
            self._bytes = 0
        self._bytes += size
        self._found[key] = container
        return container

    def name(self, key: bytes) -> str | None:
        """Return the label name of an attribute's key, if it is known."""
        return self._names.get(key)

    def add_name(self, key: bytes, name: str) -> str:
        """Remember a label name; return it."""
        if len(self._names) >= NAMES_MAX:
            self._names.clear()
        self._names[key] = name
        return name
