"""A small HTTP/1.1 client on a raw socket: it sends any bytes, and reads answers strictly.

Libraries repair what they send; here a body may be cut short, chunked by hand, announced and held back, or pipelined.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Self
from urllib.parse import urlsplit

from collector.conformance.check import NoAnswer

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of one answer that are read."""
_STEP: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Response:
    """One answer. Names of headers are in lower case."""

    code: int
    headers: Mapping[str, str]
    body: bytes
    interim: Sequence[int] = field(default=())
    """The 1xx codes that came before it."""

    @property
    def media_type(self) -> str:
        """The Content-Type without parameters, in lower case; empty when there is none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def words(self) -> str:
        """Say what it is."""
        said = f"{self.code}, {self.headers.get('content-type') or 'no Content-Type'}, {len(self.body)} bytes"
        return f"{said}: {shown(self.body)}" if self.body else said


def shown(data: bytes, length: int = 80) -> str:
    """Return bytes as a report repeats them: text as text, cut short."""
    text = data[: length + 1].decode("utf-8", "backslashreplace")
    text = "".join(one if one.isprintable() else "·" for one in text)
    return repr(text if len(text) <= length else text[:length] + "…")


class HttpClient:
    """Where OTLP/HTTP is received."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout_s: float) -> None:
        """Take `http://host:port` or https, with a prefix of the paths or without."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        self.prefix = parts.path.rstrip("/")
        self.timeout_s = timeout_s
        self._headers = dict(headers)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None

    def with_headers(self, headers: Mapping[str, str]) -> HttpClient:
        """Return a client of the same endpoint that sends other headers."""
        scheme = "http" if self._tls is None else "https"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return HttpClient(f"{scheme}://{host}:{self.port}{self.prefix}", headers, self.timeout_s)

    def open(self) -> HttpConnection:
        """Return a new connection."""
        try:
            made = socket.create_connection((self.host, self.port), self.timeout_s)
            if self._tls is not None:
                made = self._tls.wrap_socket(made, server_hostname=self.host)
        except OSError as error:
            raise NoAnswer(f"no connection to {self.host}:{self.port}: {error}") from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return HttpConnection(made)

    def head(self, method: str, path: str, headers: Mapping[str, str]) -> bytes:
        """Return a request's head; a header that is given as empty text is left out."""
        fields = {"Host": f"{self.host}:{self.port}", **self._headers, **headers}
        lines = [
            f"{method} {self.prefix}{path} HTTP/1.1",
            *(f"{name}: {text}" for name, text in fields.items() if text),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def request(
        self, path: str, body: bytes, media_type: str = PROTOBUF, method: str = "POST", **headers: str
    ) -> bytes:
        """Return a whole request. Header names are written with `_` for `-`."""
        fields = {"Content-Type": media_type, "Content-Length": str(len(body))}
        fields.update({name.replace("_", "-"): text for name, text in headers.items()})
        return self.head(method, path, fields) + body

    def chunked(self, path: str, pieces: Sequence[bytes], media_type: str = PROTOBUF, **headers: str) -> bytes:
        """Return a whole request whose body comes in these chunks."""
        fields = {"Content-Type": media_type, "Transfer-Encoding": "chunked"}
        fields.update({name.replace("_", "-"): text for name, text in headers.items()})
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece)
        return self.head("POST", path, fields) + chunks + b"0\r\n\r\n"

    def exchange(self, request: bytes, method: str = "POST") -> Response:
        """Send a request on a connection of its own and return the answer, which may come before all is sent."""
        with self.open() as connection:
            connection.send_until_answered(request)
            return connection.response(method)

    def post(self, path: str, body: bytes, media_type: str = PROTOBUF, **headers: str) -> Response:
        """POST a body on a connection of its own."""
        return self.exchange(self.request(path, body, media_type, **headers))


class HttpConnection:
    """One connection."""

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._came = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise NoAnswer(f"the connection broke while a request was sent: {error}") from error

    def send_until_answered(self, data: bytes) -> None:
        """Send bytes, but stop when the server answers or closes before it has all of them."""
        if isinstance(self._socket, ssl.SSLSocket):
            self.send(data)
            return
        view = memoryview(data)
        try:
            while view:
                readable, writable, _ = select.select(
                    [self._socket], [self._socket], [], self._socket.gettimeout() or 10.0
                )
                if readable or not writable:
                    return
                view = view[self._socket.send(view[: 4 * _STEP]) :]
        except OSError:
            return  # an answer may be there all the same

    def quiet(self, seconds: float) -> bool:
        """Tell whether nothing comes, not even the end, for so long."""
        return not self._came and not select.select([self._socket], [], [], seconds)[0]

    def response(self, method: str = "POST") -> Response:
        """Read one answer, with the 1xx ones before it."""
        interim: list[int] = []
        while True:
            head = self._until(b"\r\n\r\n").decode("latin-1")
            lines = head.split("\r\n")
            words = lines[0].split(" ", 2)
            if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
                raise NoAnswer(f"no HTTP/1.1 answer: {shown(head.encode())}")
            code = int(words[1])
            if code >= 200 or code == 101:
                break
            interim.append(code)
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, _, text = line.partition(":")
            headers[name.strip().lower()] = text.strip()
        return Response(code, headers, self._body(code, method, headers), tuple(interim))

    def interim(self) -> int:
        """Read one 1xx answer and return its code; the final answer's if that comes at once."""
        line = self._until(b"\r\n\r\n")
        words = line.split(b" ", 2)
        return int(words[1]) if len(words) > 1 and words[1].isdigit() else 0

    def _body(self, code: int, method: str, headers: Mapping[str, str]) -> bytes:
        if method == "HEAD" or code in (204, 304):
            return b""
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return self._chunks()
        length = headers.get("content-length")
        if length is None:
            return self._rest()
        if not length.isdigit():
            raise NoAnswer(f"Content-Length is {length!r}")
        return self._exactly(int(length))

    def _chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            size = int(self._until(b"\r\n").partition(b";")[0], 16)
            if not size:
                while self._until(b"\r\n"):
                    pass
                return b"".join(pieces)
            pieces.append(self._exactly(size))
            self._until(b"\r\n")

    def _more(self) -> bool:
        try:
            piece = self._socket.recv(_STEP)
        except TimeoutError as error:
            raise NoAnswer("no answer in time") from error
        except OSError as error:
            raise NoAnswer(f"the connection broke before an answer: {error}") from error
        self._came += piece
        if len(self._came) > ANSWER_BYTES_MAX:
            raise NoAnswer(f"an answer of more than {ANSWER_BYTES_MAX} bytes")
        return bool(piece)

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._came:
            if not self._more():
                raise NoAnswer("the connection was closed without an answer")
        found, _, self._came = self._came.partition(mark)
        return found

    def _exactly(self, length: int) -> bytes:
        while len(self._came) < length:
            if not self._more():
                raise NoAnswer(f"the connection was closed inside an answer of {length} bytes")
        found, self._came = self._came[:length], self._came[length:]
        return found

    def _rest(self) -> bytes:
        while self._more():
            pass
        found, self._came = self._came, b""
        return found
