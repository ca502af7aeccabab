"""Small files that change under a running daemon: certificates, tokens, passwords.

A file is looked at by its contents, at an interval. That costs a read of a few kilobytes, and unlike times and sizes it
misses nothing: neither a second change within a clock tick, nor the swap of a symbolic link by which Kubernetes
replaces a secret.
"""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Final

from collector.errors import Malformed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

FILE_BYTES_MAX: Final = 1024 * 1024
"""Bytes of one such file."""


def read_bytes(path: str) -> bytes:
    """Return a file's contents; raise Malformed, naming the file, when it cannot be read or is too large."""
    try:
        with open(path, "rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise Malformed(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) > FILE_BYTES_MAX:
        raise Malformed(f"{path}: is larger than {FILE_BYTES_MAX} bytes")
    return data


def read_lines(path: str) -> list[tuple[int, str]]:
    """Return a text file's lines with their numbers, without empty ones and comments; raise Malformed."""
    try:
        text = read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{path}: is not UTF-8 text: at byte {error.start}") from None
    lines = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


class Watched:
    """Files that belong together."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = tuple(paths)
        self._seen: tuple[bytes, ...] | None = None

    def changed(self) -> bool:
        """Tell whether any of them is not what it was when this was last asked; so it is the first time.

        A file that cannot be read is one that has other contents.
        """
        now = tuple(_digest(path) for path in self._paths)
        if now == self._seen:
            return False
        self._seen = now
        return True


def _digest(path: str) -> bytes:
    try:
        return hashlib.sha256(read_bytes(path)).digest()
    except Malformed as error:
        return str(error).encode(errors="replace")


class Interval:
    """Calls a function again and again, on the event loop."""

    def __init__(self, seconds: float, function: Callable[[], None]) -> None:
        """Begin; the first call comes after `seconds`."""
        self._seconds = seconds
        self._function = function
        self._timer = asyncio.get_running_loop().call_later(seconds, self._go)

    def _go(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._go)
        self._function()

    def stop(self) -> None:
        """Call it no more."""
        self._timer.cancel()
