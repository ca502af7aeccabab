"""Small logs on files in memory, and the seams they need, for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry

from collector.otlp.signals import TRACES, Signal
from collector.wal.files import Files
from collector.wal.frame import Frame
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics

DIRECTORY = "/data"
SEGMENT_BYTES = 600
"""Room for four frames of a few bytes, so that segments roll all the time."""


class FakeClock:
    """A clock that stands still unless told."""

    def __init__(self) -> None:
        self.wall_ns = 1_700_000_000_000_000_000
        self.seconds = 1000.0

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return self.wall_ns

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self.seconds

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        self.seconds += seconds
        self.wall_ns += int(seconds * 1e9)


class RecordingLogger:
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def _add(self, level: str) -> Callable[..., None]:
        return lambda event, **fields: self.events.append((level, event, fields))

    def __getattr__(self, level: str) -> Callable[..., None]:
        return self._add(level)

    def named(self, event: str) -> list[dict[str, Any]]:
        """The fields of every such event."""
        return [fields for _, name, fields in self.events if name == event]


class CountingNonces:
    """Nonces in a row, so that bytes on disk are the same in every run."""

    def __init__(self, first: int = 1) -> None:
        self.next = first

    def __call__(self, size: int) -> bytes:
        """See `os.urandom`."""
        value = self.next.to_bytes(size, "little")
        self.next += 1
        return value


def open_log(files: Files, *, directory: str = DIRECTORY, signal: Signal = TRACES, **options: Any) -> Log:
    """`Log.open` with small segments and no surprises; `options` replace any of its arguments."""
    arguments: dict[str, Any] = {
        "clock": FakeClock(),
        "metrics": LogMetrics(CollectorRegistry()),
        "logger": RecordingLogger(),
        "segment_bytes": SEGMENT_BYTES,
    }
    return Log.open(directory, signal, files=files, **(arguments | options))


def exchange_files(log: Log, files: Files) -> None:
    """Have a log work on other files from now on, but for the segment that it is writing."""
    log._files = log._held._files = files


def payload(offset: int, count: int, size: int = 24) -> bytes:
    """A payload that names the offsets it is for, so that a wrong one is recognised."""
    text = b"%d+%d;" % (offset, count)
    return (text * (size // len(text) + 1))[: max(size, len(text))]


def append(
    log: Log, count: int = 1, size: int = 24, times: tuple[int, int] | None = None, *, sync: bool = False
) -> int:
    """Append `count` records with recognisable content; their times are their offsets unless given."""
    offset = log.next_offset
    low, high = times or (offset, offset + count - 1)
    got = log.append([payload(offset, count, size)], count, low, high, sync=sync)
    assert got == offset
    return got


def content(log: Log) -> list[tuple[int, int, bytes]]:
    """(offset, count, payload) of every frame that can be read."""
    return [(frame.base_offset, frame.count, frame.payload) for frame in log.frames()]


def intact(frame: Frame) -> bool:
    """Whether `append` wrote exactly this frame."""
    return frame.payload == payload(frame.base_offset, frame.count, len(frame.payload))


def segment_paths(files: Files, suffix: str = "log", directory: str = f"{DIRECTORY}/traces") -> list[str]:
    """The log's files with this suffix, oldest first."""
    return sorted(f"{directory}/{name}" for name in files.listdir(directory) if name.endswith(f".{suffix}"))
