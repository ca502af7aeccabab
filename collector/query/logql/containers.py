"""Containers that queries of a store have met: what a resource and a scope say is read once, not by each query anew.

A query that is answered out of twenty blocks would else spend half its time on decoding the same sixteen resources.
Shared by worker threads: each operation is one on a dictionary, and what two of them read at once is read twice.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collector.query.logql.labels import Container
    from collector.store import Memo

_OTHER: Final = re.compile(r"[^0-9A-Za-z]+")

CONTAINERS_MAX: Final = 10_000
"""Containers that are remembered; then all are forgotten."""
NAMES_MAX: Final = 10_000
"""Attribute keys whose label names are remembered; likewise."""
_BYTES: Final = 2000
"""Of the interpreter's objects, for a container of ten labels; and what comes with its text, twice."""


def label_name(key: str) -> str:
    """Return the label name of an attribute key."""
    reserved = len(key) > 4 and key.startswith("__") and key.endswith("__")
    name = _OTHER.sub("_", key[2:-2] if reserved else key) or "_"
    if reserved:
        return f"__{name}__"
    return f"key_{name}" if name[0].isdigit() else name


class Names(dict[bytes, str]):
    """The label names of attribute keys, made when they are asked for: by `names[key]`, and in no other way."""

    def __missing__(self, key: bytes) -> str:
        if len(self) >= NAMES_MAX:
            self.clear()
        name = self[key] = label_name(key.decode())
        return name


class Containers:
    """Containers by the bytes of their parts, and label names."""

    def __init__(self, memo: Memo | None = None) -> None:
        """Remember nothing yet. With a memo, it tells how many bytes there may be."""
        self._memo = memo
        self._found: dict[tuple[bytes, ...], Container] = {}
        self.names = Names()
        """The label names of attribute keys."""
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
