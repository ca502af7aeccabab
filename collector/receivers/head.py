"""The head of an HTTP/1.1 request, up to its empty line, parsed by llhttp (httptools). No I/O.

llhttp refuses what two readers could understand in two ways: two lengths, a length and chunks, folded or bare-LF
lines. The body is not its business: a head is fed up to its last byte and no further, so that the caller knows
where the body begins and can read it straight into place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import httptools

from collector.errors import Malformed
from collector.otlp.status import head_too_large

HEAD_BYTES_MAX: Final = 32 * 1024
"""Bytes of the request line and all headers."""

_END = b"\r\n\r\n"
TLS_HANDSHAKE: Final = b"\x16\x03"
"""What a connection begins with that speaks TLS."""
_HTTP_2 = b"PRI "
_WANTED = frozenset(
    {
        b"access-control-request-headers",
        b"access-control-request-method",
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"host",
        b"origin",
        b"transfer-encoding",
        b"x-scope-orgid",
    }
)


@dataclass(frozen=True, slots=True)
class Request:
    """What a complete head says."""

    method: bytes
    path: bytes
    """The target without query, and without scheme and host when a proxy has left them there."""
    media_type: str
    """The media type of the body in lower case, without parameters; empty when absent."""
    encoding: str
    """The content encoding in lower case; empty when absent."""
    length: int
    """The body's length in bytes as announced; 0 when it is not."""
    chunked: bool
    """Whether the body comes in chunks."""
    keep_alive: bool
    """Whether the client lets the connection stay open. HTTP/1.0's way of asking for that is not served."""
    expects_continue: bool
    """Whether the client waits for `100 Continue` before it sends the body."""
    host: bytes
    """The host that is asked, with its port; empty when absent."""
    authorization: bytes
    """The Authorization header; empty when absent."""
    tenant: str
    """What X-Scope-OrgID says; empty when absent."""
    origin: str
    """The web page's origin, when a browser sends; else empty."""
    preflight: str | None
    """The headers that a browser asks leave to send, if it does nothing but ask; else None."""


class Head:
    """One request's head, while it is read."""

    __slots__ = (
        "_fields",
        "_keep_alive",
        "_parser",
        "_size",
        "_start",
        "_tail",
        "_target",
        "_version",
        "begun",
        "complete",
    )

    def __init__(self) -> None:
        """Expect a request line."""
        self.begun = False
        """Whether anything but empty lines has come, which some clients send after a body."""
        self.complete = False
        """Whether the empty line that ends the head has come."""
        self._keep_alive = False
        self._version = ""
        self._fields: dict[bytes, bytes] = {}
        self._target = b""
        self._start = b""  # the first bytes fed, for the hint about HTTP/2
        self._tail = b""  # the last bytes fed, among which the empty line may have begun
        self._size = 0
        self._parser: Any = httptools.HttpRequestParser(self)

    def feed(self, data: bytes, at: int) -> int:
        """Read from `data[at:]`; return where the head ends, or `len(data)` when it goes on.

        Raises Malformed, and Refused for a head over `HEAD_BYTES_MAX`.
        """
        end = self._find_end(data, at)
        stop = end if end >= 0 else len(data)
        self._size += stop - at
        if self._size > HEAD_BYTES_MAX:
            raise head_too_large(f"the request line and headers are larger than {HEAD_BYTES_MAX} bytes")
        piece = data[at:stop]
        self.begun = self.begun or bool(piece.strip(b"\r\n"))
        if len(self._start) < len(_HTTP_2):
            self._start = (self._start + piece)[: len(_HTTP_2)]
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            # An offer to change the protocol, which a server may leave aside: the request stands as it is.
            pass
        except httptools.HttpParserError as error:
            self._require_version()
            hint = ""
            if self._start == _HTTP_2:
                hint = "; HTTP/2 is not served here, and OTLP/gRPC has its own port, usually 4317"
            elif self._start.startswith(TLS_HANDSHAKE):
                hint = "; this is TLS, which is not spoken here"
            raise Malformed(f"not a valid HTTP/1.1 request: {error}{hint}") from error
        self._require_version()
        # Empty lines before a request end no head: the search for its end begins anew behind them.
        self._tail = b"" if end >= 0 else (self._tail + piece)[-3:]
        return stop

    def _require_version(self) -> None:
        """Refuse HTTP/0.9, which has neither version nor headers: its request is over at the end of its line."""
        if self.complete and self._version not in ("1.0", "1.1"):
            raise Malformed("not a valid HTTP/1.1 request: the request line names no version that is served")

    def _find_end(self, data: bytes, at: int) -> int:
        """Return where the empty line ends, or -1."""
        tail = self._tail
        if tail:
            found = (tail + data[at : at + 3]).find(_END)
            if found >= 0:
                return at + found + len(_END) - len(tail)
        found = data.find(_END, at)
        return found + len(_END) if found >= 0 else -1

    # --- called by the parser -----------------------------------------------------------------------------

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; of two with one name, the values are joined as HTTP says."""
        name = name.lower()
        if name in _WANTED:
            before = self._fields.get(name)
            self._fields[name] = value if before is None else before + b", " + value

    def on_headers_complete(self) -> None:
        """Note the end. Asked any later, the parser may have forgotten about the connection."""
        self.complete = True
        self._version = self._parser.get_http_version()
        self._keep_alive = self._parser.should_keep_alive()

    # --- what it says -------------------------------------------------------------------------------------

    def request(self) -> Request:
        """Return what the complete head says; once. Raises Malformed when it leaves open where its request ends."""
        parser, self._parser = self._parser, None  # which refers to this object: nothing else would part them
        fields = self._fields
        old = self._version == "1.0"
        coding = fields.get(b"transfer-encoding")
        if coding is not None and (coding.strip().lower() != b"chunked" or old):
            raise Malformed("Transfer-Encoding may only be chunked, in HTTP/1.1")
        path, host = self._target, fields.get(b"host", b"").strip()
        if not path.startswith(b"/") and b"://" in path:
            host, _, path = path.partition(b"://")[2].partition(b"/")
            path = b"/" + path
        return Request(
            method=bytes(parser.get_method()),
            path=path.partition(b"?")[0],
            media_type=self._text(b"content-type").partition(";")[0].strip(),
            encoding=self._text(b"content-encoding"),
            length=int(fields.get(b"content-length", b"0")),
            chunked=coding is not None,
            keep_alive=self._keep_alive and not old,
            expects_continue=fields.get(b"expect", b"").lower() == b"100-continue",
            host=host,
            authorization=fields.get(b"authorization", b"").strip(),
            origin=fields.get(b"origin", b"").decode("latin-1").strip(),
            preflight=self._preflight(parser.get_method()),
            tenant=fields.get(b"x-scope-orgid", b"").decode("latin-1").strip(),
        )

    def _preflight(self, method: bytes) -> str | None:
        if method != b"OPTIONS" or b"access-control-request-method" not in self._fields:
            return None
        return self._fields.get(b"access-control-request-headers", b"").decode("latin-1").strip()

    def _text(self, name: bytes) -> str:
        value = self._fields.get(name)
        return value.decode("latin-1").strip().lower() if value is not None else ""
