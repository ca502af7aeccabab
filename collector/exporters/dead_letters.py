"""Dead letters: records that a destination has refused for good, kept with the reason.

One log for each exporter and signal, in the format of the write-ahead log, so that `ringtail wal` reads it: a frame's
payload is an export request with the records, and one field more (`NOTE_FIELD`), which OTLP does not know and every
reader passes over. It holds the reason as JSON. Offsets are the dead letters' own; where a record came from is in the note.

A letter is on the disk when `add` returns. The log is bounded: its oldest segments go first. It is made when there is
something to keep.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from prometheus_client import CollectorRegistry

from collector.errors import NotFound, Unavailable
from collector.otlp.records import top_level_fields
from collector.otlp.signals import SIGNALS
from collector.wal.inspect import cat
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics

if TYPE_CHECKING:
    from collector.clock import Clock
    from collector.exporters.base import Batch
    from collector.otlp.signals import Signal
    from collector.wal.files import Files
    from collector.wal.frame import Frame

DIRECTORY: Final = "dead-letters"
NOTE_FIELD: Final = 15_001
"""The field of an export request that holds the note: beyond what OTLP's messages number."""
REASON_CHARACTERS_MAX: Final = 1000
SEGMENTS: Final = 4
"""In so many segments the log forgets."""


class Note(msgspec.Struct, frozen=True):
    """Where the records of a letter come from, and why they are there."""

    exporter: str
    instance: str
    tenant: str
    first_offset: int
    end_offset: int
    """Of the batch, or the part of it, that was refused."""
    reason: str
    time_ns: int
    """When it was refused, Unix ns."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One frame of the log."""

    offset: int
    """Its first record's, among the dead letters."""
    records: int
    note: Note | None
    """None when it cannot be read."""


class DeadLetters:
    """The dead letters of one exporter and signal. For threads: one at a time writes."""

    def __init__(
        self, directory: str, signal: Signal, max_bytes: int, *, exporter: str, files: Files, clock: Clock, logger: Any
    ) -> None:
        """Keep them below `directory`, in a directory of the signal's name."""
        self._directory = directory
        self._signal = signal
        self._max_bytes = max_bytes
        self._exporter = exporter
        self._files = files
        self._clock = clock
        self._logger = logger
        self._writing = threading.Lock()
        self._log: Log | None = None

    def add(self, batch: Batch, reason: str) -> None:
        """Keep the records of a batch. Raises Unavailable, or TooLarge."""
        source = batch.source
        note = Note(
            self._exporter,
            source.instance,
            source.tenant,
            batch.first_offset,
            batch.end_offset,
            reason[:REASON_CHARACTERS_MAX],
            self._clock.now_ns(),
        )
        field = _field(msgspec.json.encode(note))
        with self._writing:
            log = self._opened()
            for block in batch.blocks:
                log.append([block.payload, field], block.count, block.min_time, block.max_time)
            log.sync()
            log.enforce_retention()

    def _opened(self) -> Log:
        if self._log is None:
            self._log = Log.open(
                self._directory,
                self._signal,
                files=self._files,
                clock=self._clock,
                metrics=LogMetrics(CollectorRegistry()),  # those of the log itself are not for these
                logger=self._logger,
                segment_bytes=max(64 * 1024, self._max_bytes // SEGMENTS),
                retention_bytes=self._max_bytes,
                direct=False,
            )
        return self._log

    def close(self) -> None:
        """Close the log. Raises Unavailable."""
        with self._writing:
            if self._log is not None:
                log, self._log = self._log, None
                log.close()


def place(directory: str, exporter: str) -> str:
    """Return where an exporter's dead letters lie in a data directory, or a tenant's."""
    return os.path.join(directory, DIRECTORY, exporter.replace("/", "+"))


def found(directory: str, exporter: str | None, limit: int, files: Files) -> Iterator[tuple[str, Signal, Letter]]:
    """Read the dead letters in a data directory, or a tenant's, at most so many: (exporter, signal, letter). Raises
    Unavailable, and UnsupportedFormat."""
    try:
        names = sorted(files.listdir(os.path.join(directory, DIRECTORY)))
    except FileNotFoundError:
        return
    except OSError as error:
        raise Unavailable(f"{os.path.join(directory, DIRECTORY)} cannot be read: {error}") from error
    for name in (one.replace("+", "/") for one in names):
        for signal in SIGNALS if exporter in (None, name) else ():
            try:
                for letter in letters(place(directory, name), signal, limit, files):
                    yield name, signal, letter
                    limit -= 1
            except NotFound:
                continue  # Nothing of this signal was refused.


def letters(directory: str, signal: Signal, limit: int, files: Files) -> Iterator[Letter]:
    """Read the dead letters of an exporter, oldest first. Raises as `collector.wal.inspect.cat`."""
    for frame in cat(directory, signal, 0, limit, files):
        yield Letter(frame.base_offset, frame.count, _note(frame))


def _note(frame: Frame) -> Note | None:
    for number, content in top_level_fields(bytes(frame.payload)):
        if number == NOTE_FIELD:
            try:
                return msgspec.json.decode(content, type=Note)
            except msgspec.DecodeError:
                return None
    return None


def _field(content: bytes) -> bytes:
    out = bytearray()
    for number in (NOTE_FIELD << 3 | 2, len(content)):
        left = number
        while left > 0x7F:
            out.append(left & 0x7F | 0x80)
            left >>= 7
        out.append(left)
    return bytes(out) + content
