"""How queries are asked: GET over one connection that stays open, by a plain socket that costs little beside the answer."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import numpy as np

from tests.benchmarks.process import cpu_time_ns

PATIENCE_S = 310.0
_READ_BYTES = 256 * 1024


class Refused(Exception):
    """The answer is not 200: `code`, and what it says."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")
        self.code = code


class Asker:
    """One connection to a query API."""

    def __init__(self, address: str) -> None:
        self._address = address
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, target: str, accept: str = "") -> bytes:
        """Return the answer's body; raise Refused if it is an error. `target` is encoded."""
        headers = f"Accept: {accept}\r\n" if accept else ""
        self._socket.sendall(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n".encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")
        )
        parts, missing = [body], length - len(body)
        while missing > 0:
            parts.append(self._receive())
            missing -= len(parts[-1])
        body = b"".join(parts)
        code = int(head.split(b" ", 2)[1])
        if code != 200:
            raise Refused(code, body[:200].decode(errors="replace").strip())
        return body

    def _receive(self) -> bytes:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            raise ConnectionError(f"{self._address} closed the connection")
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def target(path: str, **parameters: str | int) -> str:
    """Return a path with parameters, encoded."""
    pairs = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in parameters.items())
    return f"{path}?{pairs}" if pairs else path


@dataclass(frozen=True, slots=True)
class Times:
    """How long answers took, in ms of wall time, and what they cost the server, in ms of CPU time each."""

    p50: float
    p99: float
    count: int
    cpu: float = 0.0
    p95: float = 0.0
    worst: float = 0.0

    @classmethod
    def of(cls, taken: list[float], cpu_ms: float = 0.0) -> Times:
        """Make it of times in ms; `cpu_ms` is of all together."""
        p50, p95, p99 = np.percentile(taken, (50, 95, 99)).tolist()
        return cls(p50, p99, len(taken), cpu_ms / len(taken), p95, max(taken))


def timed(ask: Callable[[], None], pid: int, seconds: float, least: int, most: int) -> Times:
    """Ask again and again for so many seconds, `least` to `most` times; three times as long at most, if that is twice.

    What comes first does not count: a tenth of `least`.
    """
    taken: list[float] = []
    begin = cpu_time_ns(pid)
    end = time.perf_counter() + seconds
    for turn in range(most):
        if turn == max(1, least // 10):
            taken, begin = [], cpu_time_ns(pid)
        started = time.perf_counter()
        ask()
        taken.append((time.perf_counter() - started) * 1000)
        now = time.perf_counter()
        if (len(taken) >= least and now > end) or (turn > 0 and now > end + 2 * seconds > end):
            break
    return Times.of(taken, (cpu_time_ns(pid) - begin) / 1e6)


def files_of(directory: Path) -> Iterator[Path]:
    """Yield every file below a directory."""
    return (path for path in directory.rglob("*") if path.is_file())


def forget_pages(directory: Path) -> None:
    """Have the kernel forget what it has cached of the files below a directory, of these only."""
    for path in files_of(directory):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
