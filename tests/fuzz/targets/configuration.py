"""Configuration: any text loads to settings that print as themselves, or all its mistakes are told, a line each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collector.errors import InvalidConfig
from collector.settings import dump, entries, load
from tests.fuzz.target import Target
from tests.fuzz.texts import text_of

SECRET = "hunter2-is-secret"
_SHIPPED = Path(__file__).parents[3] / "config" / "collector.yaml"


def _check(data: bytes) -> None:
    """A file, and behind a NUL the values of `--set`, each behind a NUL."""
    text, *options = text_of(data).split("\0")
    try:
        config = load([("one.yaml", text)], options, {"NAME": SECRET, "EMPTY": ""})
    except InvalidConfig as error:
        assert error.problems
        for problem in error.problems:
            assert "\n" not in problem, problem
            assert SECRET not in problem, problem
            assert problem.isprintable(), problem
            problem.encode()
        return
    assert load([("dumped.yaml", dump(config))], [], {}) == config


def _seeds() -> Iterator[bytes]:
    lines = [line for line in _SHIPPED.read_text().splitlines() if not line.strip().startswith("#")]
    yield "\n".join(lines).encode()
    yield b"receivers:\n  otlp:\n    protocols:\n      grpc:\n      http: null\n"
    yield b"wal: {directory: '${env:NAME}', sync: never}\napi: {endpoint: 'localhost:${env:EMPTY:-1}'}\n"
    yield b"\0wal.sync=never\0api.endpoint=[::1]:1\0wal.directory=$$x\0stores.traces={capacity: 5}"
    yield b"a: &b [*b]\n--- !!python/object:os.system\n"
    for key, _, default in entries():
        yield b"\0" + f"{key}={default}".encode()


def _words() -> Iterator[bytes]:
    for key, metadata, _ in entries():
        yield key.rpartition(".")[2].encode()
        yield from (choice.encode() for choice in metadata.get("choices") or ())
    yield from (
        b"${env:NAME}",
        b"${env:",
        b":-",
        b"}",
        b"$$",
        b"\n  ",
        b": ",
        b"- ",
        b"null",
        b"1e9",
        b"64MiB",
        b"1h30m",
    )


TARGETS = [Target("configuration", _check, _seeds, tuple(sorted(set(_words()))), length_max=2048)]
