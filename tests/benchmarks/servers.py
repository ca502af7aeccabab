"""What is measured: Ringtail as users run it, rotel's agent, which receives and throws away, and the limit.

Both run as processes of their own on loopback, on ports that the operating system chose. Ringtail runs on its
defaults (`wal.sync: always`, every index) but for addresses, the data directory, a smaller retention, so that a long
run does not fill the disk, and compaction, which would fall into one sample and not into another.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Protocol

from collector import __version__

START_PATIENCE_S = 60.0
STOP_PATIENCE_S = 30.0
POLL_S = 0.002
RETENTION = "256MiB"

SETTINGS = (
    "wal.sync=always",
    f"wal.retention.max_bytes={RETENTION}",
    "wal.compaction.enabled=false",
    "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
    "receivers.otlp.protocols.http.endpoint=127.0.0.1:0",
    "api.endpoint=127.0.0.1:0",
    "api.grpc.endpoint=127.0.0.1:0",
    "telemetry.logs.format=json",
)


class Server(Protocol):
    """A running server, ready for requests when it is made."""

    name: str
    pid: int
    addresses: dict[str, str]
    """`host:port` of each transport."""
    ready_s: float
    """Seconds from the start of the process until it was ready."""

    def stop(self) -> None:
        """End the process and wait for it."""
        ...


class _Process:
    """A child process with its output in a file."""

    def __init__(self, command: list[str], directory: Path, environment: dict[str, str]) -> None:
        self._output = directory / "output"
        with self._output.open("wb") as output:
            self.started = time.perf_counter()
            self.child = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=directory)

    def lines(self) -> list[str]:
        """Return what has been written so far, whole lines only."""
        return self._output.read_text(errors="replace").rpartition("\n")[0].splitlines()

    def wait_a_little(self) -> None:
        """Wait before the next look; RuntimeError when the process has ended or takes too long to be ready."""
        if self.child.poll() is not None or time.perf_counter() - self.started > START_PATIENCE_S:
            self.stop()
            raise RuntimeError(f"{self.child.args} did not start:\n" + "\n".join(self.lines()[-20:]))
        time.sleep(POLL_S)

    def stop(self) -> None:
        """End the process, by force if it takes too long."""
        self.child.terminate()
        try:
            self.child.wait(STOP_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()


class Ringtail:
    """The daemon of this tree, on a data directory of its own. `api` is `host:port` of everything that is read."""

    name = "ringtail"

    def __init__(self, directory: Path, settings: tuple[str, ...] = ()) -> None:
        """Start it on `directory`, which is empty; ready when it has said so."""
        command = [sys.executable, "-m", "collector", "run", "--set", f"wal.directory={directory / 'data'}"]
        for setting in (*SETTINGS, *settings):
            command += ["--set", setting]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        self._process = _Process(command, directory, environment)
        self.pid = self._process.child.pid
        while (listening := self._listening()) is None:
            self._process.wait_a_little()
        self.ready_s = time.perf_counter() - self._process.started
        http = listening["otlp/http"]
        self.addresses = {"grpc": listening["otlp/grpc"], "http": http, "json": http}
        self.api = listening["api"]

    def _listening(self) -> dict[str, str] | None:
        """Return the addresses once the daemon is ready."""
        events = [json.loads(line) for line in self._process.lines() if line.startswith("{")]
        if not any(event["event"] == "ready" for event in events):
            return None
        return {event["what"]: event["address"] for event in events if event["event"] == "listening"}

    def get(self, path: str) -> bytes:
        """GET from the query API; spaces and quotes in `path` are encoded."""
        url = f"http://{self.api}{urllib.parse.quote(path, safe='/?&=%')}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def statistics(self) -> dict[str, Any]:
        """Return `signals` of `/api/stats`."""
        found: dict[str, Any] = json.loads(self.get("/api/stats"))["signals"]
        return found

    def stop(self) -> None:
        """Stop it in order."""
        self._process.stop()

    @classmethod
    def version(cls) -> str:
        """Return the version of this tree."""
        return __version__


class Unindexed(Ringtail):
    """The same without the keyword index of log records."""

    name = "unindexed"

    def __init__(self, directory: Path, settings: tuple[str, ...] = ()) -> None:
        """Start it on `directory`, which is empty."""
        super().__init__(directory, (*settings, "stores.logs.keyword_index=false"))


class Rotel:
    """rotel's agent with its blackhole exporter for all signals."""

    name = "rotel"

    def __init__(self, directory: Path, settings: tuple[str, ...] = ()) -> None:
        """Start it; ready when it accepts connections on both ports."""
        self.addresses = {"grpc": f"127.0.0.1:{_free_port()}", "http": f"127.0.0.1:{_free_port()}"}
        command = [
            str(self._binary()),
            "start",
            f"--otlp-grpc-endpoint={self.addresses['grpc']}",
            f"--otlp-http-endpoint={self.addresses['http']}",
            "--exporter=blackhole",
            *settings,
        ]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ROTEL_")}
        self._process = _Process(command, directory, environment)
        self.pid = self._process.child.pid
        while not all(map(_accepts, self.addresses.values())):
            self._process.wait_a_little()
        self.ready_s = time.perf_counter() - self._process.started

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    @classmethod
    def version(cls) -> str | None:
        """Return the version of the installed distribution; None when there is none."""
        try:
            return importlib.metadata.version("rotel") if cls._binary().exists() else None
        except importlib.metadata.PackageNotFoundError:
            return None

    @classmethod
    def _binary(cls) -> Path:
        return Path(str(importlib.metadata.distribution("rotel").locate_file("rotel/rotel-agent")))


class Limit:
    """The program of `limit.py`."""

    name = "limit"

    def __init__(self, directory: Path, settings: tuple[str, ...] = ()) -> None:
        """Start it on `directory`; ready when it has told its port."""
        command = [sys.executable, "-m", "tests.benchmarks.limit", str(directory / "data"), *settings]
        environment = dict(os.environ)
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        self._process = _Process(command, directory, environment)
        self.pid = self._process.child.pid
        while not (lines := self._process.lines()):
            self._process.wait_a_little()
        self.addresses = {"http": f"127.0.0.1:{lines[0]}"}
        self.ready_s = time.perf_counter() - self._process.started

    def stop(self) -> None:
        """Stop it."""
        self._process.stop()

    @classmethod
    def version(cls) -> str:
        """Return nothing: it has none."""
        return ""


def _free_port() -> int:
    """Return a port that nobody listens on: rotel does not tell which one it got for port 0."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 1.0).close()
    except OSError:
        return False
    return True
