"""A Ringtail in a process of its own, as users run it, for tests that want real ports and real signals.

    with Daemon(tmp_path, "stores.traces.capacity=100") as daemon:
        daemon.grpc, daemon.http, daemon.api        # "127.0.0.1:PORT", chosen by the operating system
        daemon.get("/api/stats")                    # Answer(code, body, headers)

It runs `python -m collector run` on `directory`/data, and is ready when the daemon has said so and `/readyz` agrees.
Leaving the `with` block, or `stop()`, sends SIGTERM and asserts what every orderly stop owes: exit code 0, `stopped` as
the last event, and no warning, error or traceback in its log. `kill()` is SIGKILL, and owes nothing.

A thread reads the daemon's log as it is written, so waiting for an event is waiting for that line, not for a time.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
COMMAND = (sys.executable, "-m", "collector")

START_PATIENCE_S = 60.0
"""How long a start may take before the test fails: two cores, and other tests beside this one."""
STOP_PATIENCE_S = 30.0

ANY_PORT = (
    "receivers.otlp.protocols.grpc.endpoint=127.0.0.1:0",
    "receivers.otlp.protocols.http.endpoint=127.0.0.1:0",
    "api.endpoint=127.0.0.1:0",
    "api.grpc.endpoint=127.0.0.1:0",
)

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon answered. Names of headers are in lower case."""

    code: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        """Return the body of a 200 as JSON."""
        assert self.code == 200, f"{self.code}: {self.body[:500]!r}"
        return json.loads(self.body)


def run_arguments(directory: Path, *settings: str) -> list[str]:
    """Return the arguments that start a daemon on `directory`; later settings win over these."""
    arguments = ["run"]
    for setting in (f"wal.directory={directory}", *ANY_PORT, "telemetry.logs.format=json", *settings):
        arguments += ["--set", setting]
    return arguments


def environment() -> dict[str, str]:
    """Return this process's environment, with this tree importable, and nothing of coverage or pytest's -W in it."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class Daemon:
    """One run of a daemon process, from its start to its end. `directory` outlives it: start another one there."""

    def __init__(
        self,
        directory: Path,
        *settings: str,
        command: Sequence[str] = COMMAND,
        wait: bool = True,
        allow: Collection[str] = (),
        variables: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        files: Sequence[str] = (),
    ) -> None:
        """Start it, and wait until it is ready unless `wait` is False; then call `ready` before using addresses.

        `settings` are `a.b.c=VALUE`, and win over the configuration `files`. `command` is what runs before `run`:
        another entry point, or a broken variant.
        `allow` names events that are warnings or errors, and that this test expects. `variables` are added to its
        environment. `tls` is how it is spoken to, if not in plaintext, and `headers` go into every request.
        """
        self._tls = tls
        self._headers = dict(headers or {})
        self.data = directory / "data"
        self._allow = frozenset(allow)
        self._changed = threading.Condition()
        self._lines: list[str] = []
        self._addresses: dict[str, str] = {}
        self._closed = False
        self._waited = False
        self.process = subprocess.Popen(
            [*command, *run_arguments(self.data, *settings), *(f"--config={file}" for file in files)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**environment(), **(variables or {})},
        )
        self._reader = threading.Thread(target=self._read, name="daemon log", daemon=True)
        self._reader.start()
        if wait:
            try:
                self.ready()
            except BaseException:
                self.kill()
                raise

    # --- its log ------------------------------------------------------------------------------------------

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line.decode(errors="replace").rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def lines(self) -> list[str]:
        """Return the log so far."""
        with self._changed:
            return list(self._lines)

    @property
    def events(self) -> list[Event]:
        """Return the log so far as events; a line that is none, such as a traceback's, is an event without a level."""
        return [_event(line) for line in self.lines]

    def wait_for(self, name: str, **fields: Any) -> Event:
        """Return the first event of this name, and with these fields, waiting for it.

        AssertionError when the daemon ends without it.
        """

        def find() -> Event | None:
            events = (_event(line) for line in self._lines)
            return next((one for one in events if one["event"] == name and fields.items() <= one.items()), None)

        with self._changed:
            in_time = self._changed.wait_for(lambda: self._closed or find() is not None, START_PATIENCE_S)
            found = find()
        if found is not None:
            return found
        reason = f"ended with {self.process.wait(STOP_PATIENCE_S)}" if in_time else "is silent"
        raise AssertionError(f"no event {name!r}; the daemon {reason}:\n" + "\n".join(self.lines[-20:]))

    def troubles(self) -> list[Event]:
        """Return the warnings, errors and tracebacks in its log that the test did not allow."""
        return [
            event
            for event in self.events
            if event.get("level") not in ("debug", "info") and event["event"] not in self._allow
        ]

    # --- talking to it ------------------------------------------------------------------------------------

    def ready(self) -> Self:
        """Wait until it is ready."""
        self.wait_for("ready")
        answer = self.get("/readyz")
        assert answer.code == 200, answer
        return self

    def _address(self, what: str) -> str:
        if what not in self._addresses:
            listening = [event for event in self.events if event["event"] == "listening"]
            self._addresses |= {event["what"]: str(event["address"]) for event in listening}
        if what in self._addresses:
            return self._addresses[what]
        raise AssertionError(f"the daemon does not listen for {what}")

    @property
    def grpc(self) -> str:
        """Return `host:port` of OTLP/gRPC."""
        return self._address("otlp/grpc")

    @property
    def http(self) -> str:
        """Return `host:port` of OTLP/HTTP."""
        return self._address("otlp/http")

    @property
    def api(self) -> str:
        """Return `host:port` of everything that is read."""
        return self._address("api")

    @property
    def queries(self) -> str:
        """The address of the query API over gRPC."""
        return self._address("api/grpc")

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET from the query API; `path` is encoded already."""
        return self.request(self.api, "GET", path, None, headers)

    def request(
        self, address: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request to one of its addresses; `headers` win over its own."""
        return _request(address, method, path, body, {**self._headers, **(headers or {})}, self._tls)

    def export(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> Answer:
        """POST a protobuf request to OTLP/HTTP; `path` is `/v1/traces` and so on."""
        return self.request(
            self.http, "POST", path, body, {"Content-Type": "application/x-protobuf", **(headers or {})}
        )

    def stats(self) -> dict[str, Any]:
        """Return `signals` of `/api/stats`."""
        found: dict[str, Any] = self.get("/api/stats").json()["signals"]
        return found

    # --- ending it ----------------------------------------------------------------------------------------

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send SIGTERM, or another signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end, and return the exit code: minus the signal's number when one ended it."""
        code = self.process.wait(STOP_PATIENCE_S)
        self._reader.join(STOP_PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        self._waited = True
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop it in order, and assert that it was one."""
        self.terminate(number)
        self.stopped()

    def stopped(self) -> None:
        """Wait for the end that a signal has begun, and assert that it was an orderly one."""
        try:
            code = self.wait()
        except subprocess.TimeoutExpired:
            self.kill()
            raise
        log = "\n".join(self.lines[-40:])
        assert code == 0, f"exit code {code}\n{log}"
        assert self.events[-1]["event"] == "stopped", log
        assert self.troubles() == []

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end; nothing to do when it has ended."""
        if self.process.poll() is None:
            self.process.kill()
        self.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._waited:
            return
        if error is None:
            self.stop()
        else:
            # its log is what explains the failure; pytest shows it
            self.kill()
            sys.stderr.write("\n".join(self.lines[-40:]) + "\n")


def _request(
    address: str, method: str, path: str, body: bytes | None, headers: dict[str, str], tls: ssl.SSLContext | None
) -> Answer:
    if tls is None:
        connection = http.client.HTTPConnection(address, timeout=STOP_PATIENCE_S)
    else:
        connection = http.client.HTTPSConnection(address, timeout=STOP_PATIENCE_S, context=tls)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return Answer(response.status, response.read(), {key.lower(): value for key, value in response.getheaders()})
    finally:
        connection.close()


def _event(line: str) -> Event:
    try:
        event = json.loads(line)
    except ValueError:
        event = None
    if isinstance(event, dict) and "event" in event:
        return event
    return {"event": line, "level": None}
