"""The fields of a request's header block: which are well-formed (RFC 9113, 8.2 and 8.3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from collector.receivers.http2.frames import Code, ConnectionBroken, StreamBroken

if TYPE_CHECKING:
    from collector.receivers.http2.stream import Fields

R = TypeVar("R")

_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE: Final = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_PSEUDO: Final = frozenset({b":method", b":scheme", b":path", b":authority"})
_OF_A_CONNECTION: Final = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_USUAL: Final = frozenset(
    {b"content-type", b"user-agent", b"grpc-accept-encoding", b"accept-encoding", b"grpc-timeout", b"grpc-encoding"}
)
"""Names that need no look; a saving, no rule."""


BLOCK_BYTES_MAX: Final = 64 * 1024
BLOCK_FRAMES_MAX: Final = 64
"""What one header block may have of both."""
REQUESTS_KEPT: Final = 1024
KEPT_BYTES_MAX: Final = 1024
"""Field lists that are remembered, and their size: an exporter sends the same ones again and again."""


class HeaderBlock:
    """A header block that comes in several frames (RFC 9113, 6.10)."""

    __slots__ = ("_data", "_frames", "ends_stream")

    def __init__(self, ends_stream: bool) -> None:
        """Begin one; `ends_stream` says whether nothing of its stream follows."""
        self._data = bytearray()
        self._frames = 0
        self.ends_stream = ends_stream

    def add(self, part: bytes) -> None:
        """Take what a frame has of it; raise ConnectionBroken when it becomes too large."""
        self._data += part
        self._frames += 1
        if len(self._data) > BLOCK_BYTES_MAX or self._frames > BLOCK_FRAMES_MAX:
            raise ConnectionBroken(Code.ENHANCE_YOUR_CALM, "a header block is too large")

    def whole(self) -> bytes:
        """Return what has come."""
        return bytes(self._data)


class Requests(Generic[R]):
    """Field lists that were found well-formed, and what was decided by them: looking at each field again is a fifth of
    what a small request costs."""

    def __init__(self, decide: Callable[[Fields], R]) -> None:
        """`decide` depends on nothing but the fields, and must not raise."""
        self._decide = decide
        self._known: dict[tuple[tuple[bytes, bytes], ...], tuple[int, R]] = {}

    def find(self, fields: Fields) -> tuple[int, R]:
        """Return what `check_request` does and what was decided; raise what `check_request` does."""
        key = tuple(fields)
        found = self._known.get(key)
        if found is None:
            found = check_request(fields), self._decide(fields)
            if sum(len(name) + len(value) for name, value in fields) <= KEPT_BYTES_MAX:
                if len(self._known) >= REQUESTS_KEPT:
                    self._known.clear()
                self._known[key] = found
        return found


def check_request(fields: Fields) -> int:
    """Return the announced content-length, or -1; raise StreamBroken for fields that no request may have."""
    seen: set[bytes] = set()
    announced = -1
    regular = False
    for name, value in fields:
        if name[:1] == b":":
            if regular or name in seen or name not in _PSEUDO:
                raise StreamBroken(Code.PROTOCOL_ERROR)
            seen.add(name)
        else:
            regular = True
            if name not in _USUAL:
                _check_regular(name, value)
                if name == b"content-length":
                    announced = _content_length(value, announced)
        if _BAD_VALUE.search(value):
            raise StreamBroken(Code.PROTOCOL_ERROR)
    if b":method" not in seen or b":scheme" not in seen or b":path" not in seen or (b":path", b"") in fields:
        raise StreamBroken(Code.PROTOCOL_ERROR)
    return announced


def check_trailers(fields: Fields) -> None:
    """Raise StreamBroken for fields that may not stand behind a request."""
    for name, value in fields:
        _check_regular(name, value)


def _check_regular(name: bytes, value: bytes) -> None:
    if not _NAME.fullmatch(name) or name in _OF_A_CONNECTION or (name == b"te" and value != b"trailers"):
        raise StreamBroken(Code.PROTOCOL_ERROR)


def _content_length(value: bytes, before: int) -> int:
    length = int(value) if value.isdigit() and len(value) < 16 else -1
    if length < 0 or before not in (-1, length):
        raise StreamBroken(Code.PROTOCOL_ERROR)
    return length
