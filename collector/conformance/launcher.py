"""A Ringtail that the kit starts itself, in a directory of its own, on ports that the operating system chooses.

A black box here, too: a process with a command line, whose log tells where it listens.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import deque
from typing import Any, Final

import yaml

from collector.errors import Unavailable

START_S: Final = 60.0
STOP_S: Final = 30.0
_LINES_KEPT: Final = 50
_COMMAND: Final = (sys.executable, "-m", "collector")
_ANY_PORT: Final = (
    "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
    "receivers.otlp.protocols.http.endpoint=127.0.0.1:0",
    "api.endpoint=127.0.0.1:0",
    "api.grpc.endpoint=127.0.0.1:0",
    "telemetry.logs.format=json",
)


class Ringtail:
    """One run of the daemon."""

    def __init__(self, directory: str, settings: tuple[str, ...] = ()) -> None:
        """Start it on a data directory, and return when it is ready; Unavailable when it does not start."""
        arguments = [*_COMMAND, "run"]
        for one in (f"wal.directory={directory}", *_ANY_PORT, *settings):
            arguments += ["--set", one]
        self.addresses: dict[str, str] = {}
        """`host:port` of `otlp/grpc`, `otlp/http` and `api`."""
        self._lines: deque[str] = deque(maxlen=_LINES_KEPT)
        self._settled = threading.Event()
        self._ready = False
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            arguments, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        self._reader = threading.Thread(target=self._read, name="log of the server under test", daemon=True)
        self._reader.start()
        if not self._settled.wait(START_S) or not self._ready:
            self.kill()
            raise Unavailable("the server under test did not start: " + "; ".join(self._lines))

    def _read(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as lines:
            for line in lines:
                text = line.decode(errors="replace").rstrip("\n")
                self._lines.append(text)
                event = _event(text)
                if event.get("event") == "listening":
                    self.addresses[event["what"]] = event["address"]
                elif event.get("event") == "ready":
                    self._ready = True
                    self._settled.set()
        self._settled.set()

    def terminate(self) -> None:
        """Ask it to stop, with SIGTERM."""
        self._process.terminate()

    def wait(self) -> int | None:
        """Return the exit code, or None when it does not end in time."""
        try:
            code = self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(STOP_S)
        return code

    def kill(self) -> None:
        """End it at once, with SIGKILL."""
        self._process.kill()
        self.wait()

    def stop(self) -> None:
        """Stop it in order, or by force when that takes too long."""
        self.terminate()
        if self.wait() is None:
            self.kill()


def default_ports() -> dict[str, int]:
    """Return the ports of a Ringtail without any settings, by protocol."""
    found = subprocess.run(  # noqa: S603 - our own command
        [*_COMMAND, "print-config"], capture_output=True, check=True, timeout=START_S
    )
    protocols = yaml.safe_load(found.stdout)["receivers"]["otlp"]["protocols"]
    return {name: int(protocols[name]["endpoint"].rpartition(":")[2]) for name in ("grpc", "http")}


def _event(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
