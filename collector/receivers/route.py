"""What the head of an HTTP request decides by itself: where the request goes, in which form, and why it may not.

Nothing here depends on who sends the request, nor on its body, nor on what changes while the daemon runs (a limit, a
credential, a tenant). So a decision is made once for equal heads, and kept with the head's bytes: an exporter sends the
same few again and again, and reading them and deciding anew is half of what a small request costs in Python.

What speaks against a request is kept as an exception that was never raised, so that it refers to no frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from collector.errors import RingtailError, Unsupported
from collector.otlp.status import unknown_path, wrong_method
from collector.receivers.encoding import check_encoding
from collector.receivers.response import JSON, PROTOBUF

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.receivers.cors import Cors
    from collector.receivers.export import Receiver
    from collector.receivers.head import Request
    from collector.security.hosts import HostGuard

ROUTES_KEPT: Final = 256
HEAD_BYTES_KEPT: Final = 1024
"""Heads that are remembered, and their size."""
ENDLESS: Final = 2**63
"""The length of a body that tells its end itself."""

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Route:
    """The decision on one head."""

    request: Request
    receiver: Receiver | None
    """Where it goes; without one and without a fault it is greeted."""
    unread: int
    """The length of its body; `ENDLESS` when that comes in chunks."""
    is_json: bool
    """Whether the body is JSON; what is answered is so unless it is protobuf."""
    encoding: str
    """The body's content encoding; empty for none, and for identity."""
    is_bodiless: bool
    """Whether the answer has headers only."""
    cors_headers: str
    """What an answer tells a browser, as header lines."""
    preflight: str | None
    """The header lines of the answer to a browser that asks what it may send; None for any other request."""
    foreign: RingtailError | None
    """Why the request is refused whoever sends it."""
    fault: RingtailError | None
    """Why the request is refused to who may send."""


class Routes:
    """The routes of one listener. Owned by the event loop's thread."""

    def __init__(
        self,
        receivers: Mapping[bytes, Receiver],
        compressions: Sequence[str],
        cors: Cors | None,
        hosts: HostGuard | None,
    ) -> None:
        """Take receivers by path, the encodings that a body may have, and which pages and hosts are let in."""
        self.receivers = receivers
        self._compressions = compressions
        self._cors = cors or None
        self._hosts = hosts
        self._kept: dict[bytes, Route] = {}

    def find(self, data: bytes, at: int) -> tuple[Route | None, int]:
        """Return the route of the head that begins at `data[at:]` and where it ends, or None and `at`."""
        end = data.find(_END, at, at + HEAD_BYTES_KEPT) + len(_END)
        route = self._kept.get(data[at:end]) if end >= len(_END) else None
        return (None, at) if route is None else (route, end)

    def keep(self, head: bytes, route: Route) -> None:
        """Remember the route of a head that came in one piece."""
        if len(head) <= HEAD_BYTES_KEPT:
            if len(self._kept) >= ROUTES_KEPT:
                self._kept.clear()
            self._kept[head] = route

    def decide(self, request: Request) -> Route:
        """Return the route of a request."""
        receiver = self.receivers.get(request.path)
        cors = self._cors
        preflight = None
        if cors is not None and request.preflight is not None and receiver is not None:
            preflight = cors.preflight(request.origin, request.preflight)
        return Route(
            request=request,
            receiver=receiver,
            unread=ENDLESS if request.chunked else request.length,
            is_json=request.media_type != PROTOBUF,
            encoding=request.encoding if request.encoding != "identity" else "",
            is_bodiless=request.method == b"HEAD",
            cors_headers=cors.headers(request.origin) if cors is not None else "",
            preflight=preflight,
            foreign=_fault(self._check_host, request),
            fault=_fault(self._check, request),
        )

    def _check_host(self, request: Request) -> None:
        if self._hosts is not None:
            self._hosts.require(request.host)

    def _check(self, request: Request) -> None:
        """Raise what is wrong with the head of a request that is for us."""
        media_type, method, path = request.media_type, request.method, request.path
        if path not in self.receivers:
            if path == b"/" and method in (b"GET", b"HEAD"):
                return
            paths = b", ".join(self.receivers).decode()
            raise unknown_path(f"nothing is received at {path[:200].decode('latin-1')!r}; the paths are {paths}")
        if method != b"POST":
            raise wrong_method(f"{method.decode()} is not allowed here; POST an export request", "POST")
        if media_type not in (PROTOBUF, JSON):
            raise Unsupported(f"Content-Type {media_type[:100]!r} is not supported; use {PROTOBUF} or {JSON}")
        check_encoding(request.encoding, self._compressions)


def _fault(check: Callable[[Request], None], request: Request) -> RingtailError | None:
    """Return what a check raises."""
    try:
        check(request)
    except RingtailError as error:
        return error.with_traceback(None)
    return None
