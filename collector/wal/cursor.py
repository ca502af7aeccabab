"""A cursor: how far a consumer has come in a log, kept in a small file of its own.

```
 at  size  field                  of each of the two slots, which begin at byte 0 and 4096
  0     8  magic                  "RINGCURS"
  8     2  format version         1
 10     2  bounds                 how many
 12     4  signal code            as in a segment
 16     8  sequence               one more with each write
 24     8  position               the offset of the next record to consume
 32   8*n  bounds                 where pieces of work end that may be under way behind the position, ascending
508     4  checksum               CRC32C of bytes 0 to 507
```

Writing goes to the slot that does not hold what was synced last, as often as nothing is synced, and the slots change
places with each sync. So at any moment one slot holds a state that is on the disk, and no write touches it: after a
crash the newer of the slots that are whole is the state. A write that was not synced, or torn, costs steps, which are
done again, and never skips one. What is found at a start is synced before anybody goes by it.

With both slots damaged the position is unknown: the consumer begins anew at the oldest record, and that is logged.

Used by one thread at a time, and by any; a write is one `pwritev`, some 10 µs, and with a sync what that costs.
"""

from __future__ import annotations

import os
import struct
from typing import Any, Final, NamedTuple, Self

import google_crc32c

from collector.errors import Unavailable, UnsupportedFormat
from collector.otlp.signals import Signal
from collector.wal.files import Files, make_directories, read_fully, replace_file, write_fully

MAGIC: Final = b"RINGCURS"
VERSION: Final = 1
SLOT_BYTES: Final = 512
SLOTS_AT: Final = (0, 4096)
FILE_BYTES: Final = SLOTS_AT[1] + SLOT_BYTES
BOUNDS_MAX: Final = 56
OFFSET_MAX: Final = (1 << 63) - 1
COPY_ATTEMPTS: Final = 3
"""A reader beside the writer may find one slot torn; both only if it is very slow."""

_HEAD: Final = struct.Struct("<8sHHIQQ")
_CHECKSUM: Final = struct.Struct("<I")


class State(NamedTuple):
    """What a cursor says."""

    position: int
    """Everything before this offset has been consumed."""
    bounds: tuple[int, ...] = ()
    """Where the pieces of work end that may have been begun behind it, ascending."""


class Cursor:
    """One consumer's cursor. Made by `open`; the caller holds the data directory's lock."""

    def __init__(self, path: str, signal: Signal, files: Files, handle: int) -> None:
        """Not for callers: see `open`."""
        self.path = path
        self.state = State(0)
        """What the file says; after a write that failed, what it may say."""
        self.found: str = "kept"
        """What `open` found: `new`, `kept` or `damaged`."""
        self._signal = signal
        self._files = files
        self._handle: int | None = handle
        self._sequence = 0
        self._durable = 0  # the slot that must not be written to
        self._synced = True

    @classmethod
    def open(cls, path: str, signal: Signal, *, start: int, oldest: int, files: Files, logger: Any) -> Self:
        """Open the cursor at `path`; a new one begins at `start`, a damaged one at `oldest`.

        Raises UnsupportedFormat for a newer version's, and Unavailable when the file system refuses.
        """
        try:
            make_directories(files, os.path.dirname(path))
            found = "kept"
            try:
                handle = files.open(path, write=True)
            except FileNotFoundError:
                found = "new"
                replace_file(files, path, _new_file(signal, State(start)))
                files.fsync_directory(os.path.dirname(path))
                handle = files.open(path, write=True)
            cursor = cls(path, signal, files, handle)
            try:
                cursor._read(oldest, logger)
            except BaseException:
                files.close(handle)
                raise
        except OSError as error:
            raise Unavailable(f"the cursor {path} cannot be used: {error}") from error
        if cursor.found == "kept":
            cursor.found = found
        return cursor

    def _read(self, oldest: int, logger: Any) -> None:
        assert self._handle is not None
        data = read_fully(self._files, self._handle, FILE_BYTES, 0)
        slots = [_decode(data[at : at + SLOT_BYTES], self._signal, self.path) for at in SLOTS_AT]
        whole = [(slot[0], number) for number, slot in enumerate(slots) if slot is not None]
        if whole:
            self._sequence, self._durable = max(whole)
            newest = slots[self._durable]
            assert newest is not None
            self.state = newest[1]
            self._files.fdatasync(self._handle)
        else:
            self.found = "damaged"
            logger.warning("cursor damaged", path=self.path, signal=self._signal.name)
            self.put(State(oldest), sync=True)

    def put(self, state: State, *, sync: bool) -> None:
        """Write a state; with `sync` it is on the disk when this returns. Raises Unavailable; then the state that is
        found after a crash is this one, or one that was written since the last sync, or that of the last sync."""
        if len(state.bounds) > BOUNDS_MAX:
            raise ValueError(f"{len(state.bounds)} bounds; a cursor has room for {BOUNDS_MAX}")
        if self._handle is None:
            raise Unavailable(f"the cursor {self.path} is closed")
        self._sequence += 1
        slot = 1 - self._durable
        self.state = state
        self._synced = False
        try:
            write_fully(
                self._files, self._handle, [_encode(self._signal, self._sequence, state)], SLOTS_AT[slot], sync=sync
            )
        except OSError as error:
            raise Unavailable(f"the cursor {self.path} cannot be written: {error}") from error
        if sync:
            self._durable = slot
            self._synced = True

    def sync(self) -> None:
        """Have the newest state on the disk. Raises Unavailable."""
        if not self._synced:
            self.put(self.state, sync=True)  # Written again: what a failed sync leaves in memory may count as clean.

    def close(self) -> None:
        """Sync and close; closing again changes nothing. Raises Unavailable, and is closed all the same."""
        if self._handle is None:
            return
        try:
            self.sync()
        finally:
            handle, self._handle = self._handle, None
            try:
                self._files.close(handle)
            except OSError:
                pass  # All that must last has been synced.


def copied(path: str, signal: Signal, files: Files) -> tuple[State, bytes] | None:
    """Return what a cursor says that somebody else may be writing, and a file that says the same; None if it is damaged.

    Raises UnsupportedFormat, and OSError.
    """
    handle = files.open(path)
    try:
        for _ in range(COPY_ATTEMPTS):
            data = read_fully(files, handle, FILE_BYTES, 0)
            slots = [_decode(data[at : at + SLOT_BYTES], signal, path) for at in SLOTS_AT]
            whole = [slot for slot in slots if slot is not None]
            if whole:
                state = max(whole)[1]
                return state, _new_file(signal, state)
    finally:
        files.close(handle)
    return None


def _encode(signal: Signal, sequence: int, state: State) -> bytes:
    head = _HEAD.pack(MAGIC, VERSION, len(state.bounds), signal.code, sequence, state.position)
    body = (head + struct.pack(f"<{len(state.bounds)}Q", *state.bounds)).ljust(SLOT_BYTES - _CHECKSUM.size, b"\0")
    return body + _CHECKSUM.pack(google_crc32c.value(body))


def _decode(data: bytes, signal: Signal, path: str) -> tuple[int, State] | None:
    """Return (sequence, state) of a slot; None when it is damaged, or another signal's. Raises UnsupportedFormat."""
    if len(data) < SLOT_BYTES or data[:8] != MAGIC:
        return None
    body = data[: -_CHECKSUM.size]
    if google_crc32c.value(body) != _CHECKSUM.unpack(data[-_CHECKSUM.size :])[0]:
        return None
    _, version, count, code, sequence, position = _HEAD.unpack_from(body)
    if version > VERSION:
        raise UnsupportedFormat(f"{path} has format version {version}; this release reads up to {VERSION}")
    if code != signal.code or count > BOUNDS_MAX or position > OFFSET_MAX:
        return None
    return sequence, State(position, struct.unpack_from(f"<{count}Q", body, _HEAD.size))


def _new_file(signal: Signal, state: State) -> bytes:
    return _encode(signal, 1, state).ljust(FILE_BYTES, b"\0")
