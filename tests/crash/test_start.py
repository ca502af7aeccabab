"""Starts that cannot be: one line that says what is in the way, an exit code, and nothing touched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import google_crc32c
import pytest

from collector.otlp.signals import SIGNALS, TRACES
from tests.crash.journal import Request
from tests.crash.reading import ask
from tests.crash.writers import payload
from tests.daemon import COMMAND, Daemon, environment, run_arguments
from tests.e2e.requirements import require
from tests.wal.test_format import FIXTURES

PATIENCE_S = 30


def refused(directory: Path, *settings: str, prefix: tuple[str, ...] = ()) -> str:
    """Start a daemon that must not come up; return the one line that it writes."""
    quiet = ("telemetry.logs.format=console", "telemetry.logs.level=error")
    run = subprocess.run(
        [*prefix, *COMMAND, *run_arguments(directory, *quiet, *settings)],
        capture_output=True,
        timeout=PATIENCE_S,
        env=environment(),
        check=False,
    )
    assert run.returncode == 1, run.stderr.decode()
    assert run.stdout == b""
    (line,) = run.stderr.decode().splitlines()
    assert "cannot start" in line
    validated = subprocess.run(
        [*prefix, *COMMAND, "validate", *run_arguments(directory, *quiet, *settings)[1:]],
        capture_output=True,
        timeout=PATIENCE_S,
        env=environment(),
        check=False,
    )
    assert validated.returncode == 1, validated.stderr.decode()
    told = [one for one in validated.stderr.decode().splitlines() if one.startswith("cannot start: ")]
    assert len(told) == 1
    assert told[0].removeprefix("cannot start: ") in line
    return line


def contents(directory: Path) -> dict[str, bytes]:
    """Return every file under a directory."""
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_a_second_daemon_on_the_same_directory(tmp_path: Path) -> None:
    request = Request(TRACES, 1, 3)
    with Daemon(tmp_path) as daemon:
        assert daemon.export(TRACES.http_path, payload(request)).code == 200
        before = contents(daemon.data)
        line = refused(daemon.data, "telemetry.logs.level=info")
        assert f"{daemon.data}/LOCK is held by process {daemon.process.pid}" in line
        assert contents(daemon.data) == before
        assert ask(daemon, request) == list(request.ids)
        assert daemon.export(TRACES.http_path, payload(Request(TRACES, 2, 1))).code == 200
    with Daemon(tmp_path) as daemon:
        assert ask(daemon, request) == list(request.ids)


def test_the_directory_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("mine")
    line = refused(tmp_path / "data")
    assert str(tmp_path / "data") in line
    assert "directory" in line.lower()
    assert (tmp_path / "data").read_text() == "mine"


def test_the_directory_may_not_be_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o555)
    without: tuple[str, ...] = ()
    if os.geteuid() == 0:
        # root may write anywhere, but for these capabilities
        require("setpriv")
        without = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
    line = refused(data, prefix=without)
    assert str(data) in line
    assert "Permission denied" in line
    assert list(data.iterdir()) == []


@pytest.mark.parametrize(
    "key", ["receivers.otlp.protocols.grpc.endpoint", "receivers.otlp.protocols.http.endpoint", "api.endpoint"]
)
def test_a_port_in_use(tmp_path: Path, key: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused(tmp_path / "data", f"{key}={address}")
        assert address in line
        assert "in use" in line.lower()
    # what the failed start left behind is no obstacle
    with Daemon(tmp_path):
        pass


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_directory_of_an_earlier_release(tmp_path: Path, version: str) -> None:
    """What is in it is read, and the log goes on. The payloads of v1 are no requests, which costs no start."""
    shutil.copytree(FIXTURES / version, tmp_path / "data")
    counts = {"v1": 13, "v2": 48}
    with Daemon(tmp_path, allow={"records damaged"}) as daemon:
        assert daemon.stats()["traces"]["log"]["next_offset"] == counts[version]
        if version == "v2":
            assert not any(event["event"] == "records damaged" for event in daemon.events)
            assert daemon.stats()["traces"]["records"] == counts[version]
            assert daemon.get(f"/api/traces/{0:031x}1").code == 200
        later = Request(TRACES, 100, 3)
        assert daemon.export(TRACES.http_path, payload(later)).code == 200
        assert ask(daemon, later) == list(later.ids)


@pytest.mark.parametrize("name", ["traces", "metrics"])
def test_the_directory_of_a_later_release_is_left_alone(tmp_path: Path, name: str) -> None:
    """Whichever log it is that is newer, the others are not touched either."""
    with Daemon(tmp_path) as daemon:
        for number, signal in enumerate(SIGNALS, 1):
            assert daemon.export(signal.http_path, payload(Request(signal, number, 3))).code == 200
    (newest,) = (tmp_path / "data" / name).glob("*.log")
    data = bytearray(newest.read_bytes())
    data[8:10] = (99).to_bytes(2, "little")
    data[124:128] = google_crc32c.value(bytes(data[:124])).to_bytes(4, "little")
    newest.write_bytes(data)
    (tmp_path / "data" / "traces" / "00000000000000000099.index").write_text("a leftover")
    before = contents(tmp_path / "data")
    line = refused(tmp_path / "data")
    assert str(newest) in line
    assert "99" in line
    after = contents(tmp_path / "data")
    assert {path: data for path, data in after.items() if not path.endswith("LOCK")} == {
        path: data for path, data in before.items() if not path.endswith("LOCK")
    }
