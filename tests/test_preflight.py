"""What a start would fail on: `run` and `validate` end with the same status, and say the same, and neither leaves a trace."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import google_crc32c
import pytest
import uvloop
from click.testing import CliRunner, Result

import collector.daemon
from collector.cli import main
from collector.receivers.address import try_address
from collector.wal.files import OperatingSystemFiles
from collector.wal.lock import DirectoryLock
from tests.daemon import ANY_PORT
from tests.security.certificates import Authority
from tests.wal.test_format import FIXTURES

GRPC, HTTP = "receivers.otlp.protocols.grpc", "receivers.otlp.protocols.http"
MISTAKE, OBSTACLE = 2, 1


class Place:
    """A directory with things that a configuration names."""

    def __init__(self, directory: Path, holding: ExitStack) -> None:
        self.directory = directory
        self.holding = holding
        self.data = directory / "data"
        self.authority = Authority(directory)

    def file(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text)
        return path

    def tls(self, certificate: Path, key: Path, *more: str) -> list[str]:
        group = ", ".join([f"cert_file: {certificate}", f"key_file: {key}", *more])
        return [f"api.tls={{{group}}}"]

    def credential(self, proof: str) -> list[str]:
        return [f"auth.credentials=[{{name: a, rights: read, {proof}}}]"]

    def taken_port(self) -> int:
        listening = self.holding.enter_context(socket.create_server(("127.0.0.1", 0)))
        return int(listening.getsockname()[1])

    def free_port(self) -> int:
        with socket.create_server(("127.0.0.1", 0)) as one:
            return int(one.getsockname()[1])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ExitStack() as holding:
        yield Place(tmp_path, holding)


def other_key(place: Place) -> list[str]:
    return place.tls(place.authority.issue("one")[0], place.authority.issue("two")[1])


def locked_key(place: Place) -> list[str]:
    return place.tls(*place.authority.issue("locked", password=b"canary"))


def no_authority(place: Place) -> list[str]:
    return place.tls(*place.authority.issue("one"), f"client_ca_file: {place.file('ca.pem', 'nothing')}")


def two_names_of_one_address(place: Place) -> list[str]:
    port = place.free_port()
    return [f"{HTTP}.endpoint=localhost:{port}", f"api.endpoint=127.0.0.1:{port}"]


def too_many_tenants(place: Place) -> list[str]:
    for name in ("a", "b", "c"):
        (place.data / "tenants" / name).mkdir(parents=True)
    return ["tenants={enabled: true, max: 2}"]


def no_tenant(place: Place) -> list[str]:
    (place.data / "tenants" / ".hidden").mkdir(parents=True)
    return ["tenants.enabled=true"]


def a_file_for_a_directory(place: Place) -> list[str]:
    place.file("data", "mine")
    return []


def below_a_file(place: Place) -> list[str]:
    return [f"wal.directory={place.file('file', 'mine')}/data"]


def a_file_for_a_log(place: Place) -> list[str]:
    place.data.mkdir()
    place.file("data/logs", "mine")
    return []


def another_daemon(place: Place) -> list[str]:
    place.holding.enter_context(DirectoryLock(place.data, OperatingSystemFiles()))
    return []


def a_newer_format(place: Place) -> list[str]:
    shutil.copytree(FIXTURES / "v2", place.data)
    newest = max((place.data / "traces").glob("*.log"))
    data = bytearray(newest.read_bytes())
    data[8:10] = (99).to_bytes(2, "little")
    data[124:128] = google_crc32c.value(bytes(data[:124])).to_bytes(4, "little")
    newest.write_bytes(data)
    return []


BROKEN: dict[str, tuple[Callable[[Place], list[str]], int, list[str]]] = {
    "no certificate": (
        lambda place: place.tls(place.directory / "no.crt", place.authority.issue("one")[1]),
        MISTAKE,
        [r"api\.tls\.cert_file: \S+/no\.crt: cannot be read: No such file or directory"],
    ),
    "no key": (
        lambda place: place.tls(place.authority.issue("one")[0], place.directory / "no.key"),
        MISTAKE,
        [r"api\.tls\.key_file: \S+/no\.key: cannot be read: No such file or directory"],
    ),
    "another certificate's key": (other_key, MISTAKE, [r"api\.tls\.cert_file, .*: the key is not the certificate's"]),
    "a key with a password": (
        locked_key,
        MISTAKE,
        [r"api\.tls\.cert_file, .*: the key has a password, which ringtail"],
    ),
    "no authority": (no_authority, MISTAKE, [r"api\.tls\.client_ca_file: \S+/ca\.pem: .*PEM"]),
    "no token file": (
        lambda place: place.credential(f"token_file: {place.directory}/tokens"),
        MISTAKE,
        [r"auth\.credentials: \S+/tokens: cannot be read: No such file or directory"],
    ),
    "a short token": (
        lambda place: place.credential(f"token_file: {place.file('tokens', 'short')}"),
        MISTAKE,
        [r"auth\.credentials: \S+/tokens:1: is no token: "],
    ),
    "a password that is not bcrypt's": (
        lambda place: place.credential(f"htpasswd_file: {place.file('htpasswd', 'ann:$apr1$x')}"),
        MISTAKE,
        [r"auth\.credentials: \S+/htpasswd:1: is not USER:HASH with a bcrypt hash"],
    ),
    "two files": (
        lambda place: [
            "auth.credentials=[{name: a, rights: read, token_file: /no/a}, {name: b, rights: read, token_file: /no/b}]"
        ],
        MISTAKE,
        [r"auth\.credentials: /no/a: cannot be read", r"auth\.credentials: /no/b: cannot be read"],
    ),
    "a host that is none": (
        lambda place: [f"{GRPC}.endpoint=nowhere.invalid:4317"],
        # without a name server nobody knows
        0,
        [r"receivers\.otlp\.protocols\.grpc\.endpoint: cannot listen on nowhere\.invalid:4317 for OTLP/gRPC: "],
    ),
    "another machine's address": (
        lambda place: ["api.endpoint=192.0.2.1:8888"],
        MISTAKE,
        [r"api\.endpoint: cannot listen on 192\.0\.2\.1:8888 for queries: cannot assign requested address"],
    ),
    "two names of one address": (
        two_names_of_one_address,
        MISTAKE,
        [r"api\.endpoint: 127\.0\.0\.1:\d+ is taken already, by receivers\.otlp\.protocols\.http\.endpoint"],
    ),
    "too little memory": (
        lambda place: ["memory.limit=20MiB"],
        MISTAKE,
        [r"memory\.limit: 20971520 bytes are too few: the process itself holds N, and the indexes"],
    ),
    "too many tenants": (too_many_tenants, MISTAKE, [r"tenants\.max: 2 are too few: there are 3 tenants"]),
    "a directory that is no tenant's": (no_tenant, OBSTACLE, [r"'\.hidden' is no tenant's name"]),
    "a file for a directory": (
        a_file_for_a_directory,
        OBSTACLE,
        [r"the data directory \S+/data cannot be used: .*Not a directory"],
    ),
    "below a file": (below_a_file, OBSTACLE, [r"the data directory \S+/file/data cannot be used: .*Not a directory"]),
    "a file for a log": (a_file_for_a_log, OBSTACLE, [r"the data directory \S+/data/logs cannot be used: .*Not a dir"]),
    "another daemon": (another_daemon, OBSTACLE, [rf"\S+/data/LOCK is held by process {os.getpid()}"]),
    "a newer format": (
        a_newer_format,
        OBSTACLE,
        [r"\S+/data/traces/\d+\.log has format version 99; this release reads up to"],
    ),
    "a port in use": (
        lambda place: [f"{HTTP}.endpoint=127.0.0.1:{place.taken_port()}"],
        OBSTACLE,
        [r"receivers\.otlp\.protocols\.http\.endpoint: cannot listen on 127\.0\.0\.1:\d+ for OTLP/HTTP: .* in use"],
    ),
    "everything at once": (
        lambda place: [
            *place.tls(place.directory / "no.crt", place.directory / "no.key"),
            *place.credential(f"token_file: {place.directory}/tokens"),
            f"{GRPC}.endpoint=127.0.0.1:{place.taken_port()}",
            "memory.limit=20MiB",
        ],
        MISTAKE,
        [r"api\.tls\.cert_file", r"api\.tls\.key_file", r"auth\.credentials: ", r"memory\.limit: "],
    ),
}


def ringtail(command: str, place: Place, settings: list[str]) -> Result:
    arguments = [command]
    for one in (f"wal.directory={place.data}", *ANY_PORT, "telemetry.logs.format=json", *settings):
        arguments += ["--set", one]
    return CliRunner().invoke(main, arguments, prog_name="ringtail")


def said(result: Result) -> tuple[list[str], list[str]]:
    """What a command gave as mistakes, and as what else is in the way; figures of this process's memory left out."""
    mistakes, obstacles = [], []
    for line in result.stderr.splitlines():
        text = re.sub(r"(itself holds|at least) \d+", r"\1 N", line)
        if text.startswith("{"):
            event = json.loads(text)
            assert event["event"] == "cannot start"
            obstacles.append(event["reason"])
        elif text.startswith("cannot start: "):
            obstacles.append(text.removeprefix("cannot start: "))
        elif not text.startswith(("Error: ", "warning: ")):
            mistakes.append(text)
    return mistakes, obstacles


def tree(directory: Path) -> dict[str, Any]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def never_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a start a failure, and leave this process as it was."""

    def start(daemon: Coroutine[Any, Any, int]) -> None:
        daemon.close()
        raise AssertionError("it starts")

    monkeypatch.setattr(uvloop, "run", start)
    monkeypatch.setattr(logging, "captureWarnings", lambda capture: None)
    monkeypatch.setattr(collector.daemon, "raise_descriptor_limit", lambda: None)


@pytest.mark.usefixtures("never_started")
@pytest.mark.parametrize("name", BROKEN)
def test_run_and_validate_say_the_same(place: Place, name: str) -> None:
    make, status, expected = BROKEN[name]
    settings = make(place)
    before = tree(place.directory)
    validated = ringtail("validate", place, settings)
    started = ringtail("run", place, settings)
    assert tree(place.directory) == before

    assert started.exit_code == validated.exit_code, validated.output + started.output
    assert validated.exit_code in ((status,) if status else (MISTAKE, OBSTACLE)), validated.output
    mistakes, obstacles = said(validated)
    if validated.exit_code == MISTAKE:
        # what else is in the way can wait until the configuration is right
        assert said(started)[0] == mistakes
        told = mistakes
    else:
        assert said(started) == (mistakes, obstacles)
        assert mistakes == []
        told = obstacles
    assert len(told) == len(expected), told
    for text, pattern in zip(told, expected, strict=True):
        assert re.match(pattern, text), text
    last = validated.stderr.splitlines()[-1]
    assert last.startswith("Error: ")
    if validated.exit_code == MISTAKE:
        assert last == started.stderr.splitlines()[-1]
    assert "canary" not in validated.output + started.output


@pytest.mark.usefixtures("never_started")
def test_what_is_right_passes_and_leaves_no_trace(place: Place) -> None:
    tokens = place.file("tokens", "0123456789abcdef\n")
    settings = [
        *place.tls(*place.authority.issue("right"), f"client_ca_file: {place.authority.path}"),
        *place.credential(f"token_file: {tokens}"),
        f"wal.directory={place.directory}/not/there/yet",
    ]
    before = tree(place.directory)
    result = ringtail("validate", place, settings)
    assert (result.exit_code, result.output) == (0, "the configuration is valid\n")
    assert tree(place.directory) == before
    with pytest.raises(AssertionError, match="it starts"):
        raise ringtail("run", place, settings).exception or AssertionError


def test_settings_alone_ask_nothing_of_this_machine(place: Place) -> None:
    settings = ["--set", "api.endpoint=192.0.2.1:8888", "--set", "api.tls={cert_file: /no, key_file: /no}"]
    result = CliRunner().invoke(main, ["validate", "--settings-only", *settings])
    assert (result.exit_code, result.output) == (0, "the configuration is valid\n")
    assert CliRunner().invoke(main, ["validate", *settings]).exit_code == MISTAKE


def test_what_starts_and_is_not_wanted_is_a_warning(place: Place) -> None:
    expired = place.authority.issue("old", expired=True)
    result = ringtail("validate", place, [*place.tls(*expired), f"{HTTP}.endpoint=0.0.0.0:0"])
    assert result.exit_code == 0
    assert result.stdout == "the configuration is valid\n"
    warnings = result.stderr.splitlines()
    assert [line for line in warnings if not line.startswith("warning: ")] == []
    assert any(
        re.match(r"warning: api\.tls\.cert_file: \S+/old\.crt: the certificate has expired, on 20\d\d-\d\d-\d\d$", line)
        for line in warnings
    )
    assert any(line.startswith(f"warning: {HTTP}.endpoint: 0.0.0.0:0: no TLS") for line in warnings)


def test_a_directory_that_may_not_be_written(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.data.mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere; tests/crash has the real one
    result = ringtail("validate", place, [])
    assert result.exit_code == OBSTACLE
    assert f"the data directory {place.data} cannot be used: [Errno 13] Permission denied" in result.stderr


def test_nobody_can_connect_to_an_address_that_is_tried(place: Place) -> None:
    port = place.free_port()
    assert try_address("127.0.0.1", port) == {("127.0.0.1", port)}
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=5)
