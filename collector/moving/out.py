"""The file that an export writes: OTLP/JSON, an export request a line, or protobuf, each request behind its length.

The name says which: `.jsonl`, `.ndjson` or `.json`, or `.binpb`, `.pb` or `.proto`; then `.gz` or `.zst`, or neither. Lengths
are four bytes, big-endian, as in files of the Collector's file exporter, which reads both forms, and so does `ringtail
import`.

Resuming: every `CHUNK_BYTES` what was written is a gzip member or zstd frame of its own and is synced, and then
`NAME.state` says how long the file is and where in the log it has come. Whoever goes on cuts the file to that length.
The last thing an export does is to remove the state.
"""

from __future__ import annotations

import gzip
import os
import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec
import zstandard

from collector.errors import Malformed, Unavailable
from collector.moving.source import Range
from collector.otlp.json.write import to_json
from collector.wal.files import Files, read_file, replace_file, write_fully

if TYPE_CHECKING:
    from collector.otlp.signals import Signal

CHUNK_BYTES: Final = 1024 * 1024
STATE_BYTES_MAX: Final = 64 * 1024
LEVEL: Final = 6
FORMS: Final = {
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **dict.fromkeys((".binpb", ".pb", ".proto"), "proto"),
}
_LENGTH: Final = struct.Struct(">I")


class State(msgspec.Struct):
    """How far an export, or an import, has come."""

    request: dict[str, Any]
    """What was asked for: only the same is gone on with."""
    position: int
    """Bytes of the file."""
    at: int
    """Where to go on: the next offset."""
    records: int = 0
    within: Range = Range()
    """The range that was asked for, as it was understood then: `now-15m` means something else later."""


def form_of(path: str) -> tuple[str, str]:
    """Return form and compression by a file's name. Raises Malformed."""
    base, compression = path, ""
    for suffix in (".gz", ".zst"):
        if path.endswith(suffix):
            base, compression = path.removesuffix(suffix), suffix
    form = FORMS.get(os.path.splitext(base)[1])
    if form is None:
        raise Malformed(f"{path}: the name ends in {', '.join(FORMS)}, and .gz or .zst after that")
    return form, compression


def load_state(path: str, files: Files) -> State | None:
    """Return a state; None where there is none. Raises Unavailable for what cannot be read."""
    try:
        return msgspec.json.decode(read_file(files, path, STATE_BYTES_MAX), type=State)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise Unavailable(f"{path} cannot be read: {error}; remove it to begin anew") from error


class Output:
    """The file of one export. Made by `open_output`."""

    def __init__(self, path: str, signal: Signal, state: State, files: Files, handle: int) -> None:
        """Not for callers."""
        self.state = state
        self._path = path
        self._signal = signal
        self._files = files
        self._handle = handle
        self._form, self._compression = form_of(path)
        self._pending: list[bytes] = []
        self._size = 0

    def write(self, payload: bytes, records: int, next_offset: int) -> None:
        """Add a request, which may be empty, and where the log goes on after it. Raises Unavailable."""
        if payload:
            if self._form == "json":
                self._pending += [to_json(self._signal, payload), b"\n"]
            else:
                self._pending += [_LENGTH.pack(len(payload)), payload]
            self._size += len(self._pending[-2]) + len(self._pending[-1])
        self.state.at = next_offset
        self.state.records += records
        if self._size >= CHUNK_BYTES:
            self.flush()

    def flush(self) -> None:
        """Have everything on the disk, and the state with it. Raises Unavailable."""
        data = b"".join(self._pending)
        self._pending, self._size = [], 0
        if data and self._compression == ".gz":
            data = gzip.compress(data, LEVEL, mtime=0)
        elif data and self._compression == ".zst":
            data = zstandard.ZstdCompressor().compress(data)
        try:
            write_fully(self._files, self._handle, [data] if data else [], self.state.position)
            self._files.fdatasync(self._handle)
            self.state.position += len(data)
            replace_file(self._files, f"{self._path}.state", msgspec.json.encode(self.state))
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error}") from error

    def finish(self) -> None:
        """Write the rest: the export is complete. Raises Unavailable."""
        self.flush()
        try:
            self._files.unlink(f"{self._path}.state")
        except OSError as error:
            raise Unavailable(f"{self._path}.state cannot be removed: {error}") from error

    def close(self) -> None:
        """Let go of the file; what was not flushed is written again when the export goes on."""
        self._files.close(self._handle)


def open_output(path: str, signal: Signal, request: dict[str, Any], within: Range, files: Files) -> Output:
    """Begin a file, or go on with one. Raises Malformed for its name, and Unavailable for one that is there and complete,
    or of another export."""
    form_of(path)
    state = load_state(f"{path}.state", files)
    try:
        if state is None:
            _require_new(path, files)
            # Before the file: what is killed in between must not find a file that nobody has begun.
            state = State(request, 0, within.first, within=within)
            replace_file(files, f"{path}.state", msgspec.json.encode(state))
        elif state.request != request:
            raise Unavailable(f"{path} was begun by another export ({state.request}); remove it and {path}.state")
        return Output(path, signal, state, files, _opened(path, state, files))
    except FileExistsError as error:
        raise Unavailable(f"{path} is there already; nothing is overwritten") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be written: {error}") from error


def _require_new(path: str, files: Files) -> None:
    try:
        files.close(files.open(path))
    except FileNotFoundError:
        return
    raise FileExistsError(path)


def _opened(path: str, state: State, files: Files) -> int:
    """Return the file of an export, as long as its state says."""
    try:
        handle = files.open(path, write=True)
    except FileNotFoundError:
        if state.position:
            raise
        handle = files.open(path, create=True)
    files.truncate(handle, state.position)
    return handle
