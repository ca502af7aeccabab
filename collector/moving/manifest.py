"""What a backup holds: `MANIFEST.json`, written last, so that a backup without one is not finished.

    {"checksum": "9f2c01ab", "backup": {"format": 1, "ringtail": "0.1.0", "created_ns": …, "instance": "…",
      "logs": [{"place": "", "signal": "traces", "first_offset": 0, "end_offset": 7000, "records": 7000, "damaged": 0}],
      "files": [{"path": "traces/00000000000000000000.log", "size": 4096, "checksum": "1c291ca3", "nonce": "…"}]}}

`checksum` is the CRC32C of the bytes of the value of `backup`, that of a file of its first `size` bytes; both as eight
hexadecimal digits. A place is a directory in the data directory, with slashes: "", `tenants/NAME`, and below these
`dead-letters/NAME`. `nonce` is there for segments: 16 digits that no other content of that name has.
"""

from __future__ import annotations

import os
import re
from typing import Final

import google_crc32c
import msgspec

from collector.errors import NotFound, Unavailable, UnsupportedFormat
from collector.wal.files import Files, read_file, read_fully, replace_file, write_fully

NAME: Final = "MANIFEST.json"
INCOMPLETE: Final = "INCOMPLETE"
"""The file that says that a backup is being made here, or was when something stopped it."""
FORMAT: Final = 1
MANIFEST_BYTES_MAX: Final = 256 * 1024 * 1024
CHUNK_BYTES: Final = 1024 * 1024
_PATH: Final = re.compile(r"[^/\\\0]+(/[^/\\\0]+)*")


class File(msgspec.Struct, frozen=True):
    """One file of a backup."""

    path: str
    """Below the backup, with slashes."""
    size: int
    """Bytes that belong to the backup: one that shares its blocks with the daemon's may have grown."""
    checksum: str
    nonce: str = ""


class LogFacts(msgspec.Struct, frozen=True):
    """One log of a backup: the records from `first_offset` to before `end_offset`, the cut."""

    place: str
    signal: str
    first_offset: int
    end_offset: int
    records: int
    """Those that can be read."""
    damaged: int
    """Ranges of offsets that could not be read when the backup was made."""


class Manifest(msgspec.Struct, frozen=True):
    """All of a backup."""

    format: int
    ringtail: str
    created_ns: int
    instance: str
    """Of the data directory, for the record; empty if it had none. What is restored is another instance."""
    logs: list[LogFacts]
    files: list[File]

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(one.size for one in self.files)

    @property
    def records(self) -> int:
        """Records of all logs."""
        return sum(one.records for one in self.logs)


class _Whole(msgspec.Struct):
    checksum: str
    backup: msgspec.Raw


def write(files: Files, directory: str, manifest: Manifest) -> None:
    """Write the manifest of a backup, and sync it. Raises OSError."""
    content = msgspec.json.encode(manifest)
    whole = msgspec.json.encode(_Whole(digits(google_crc32c.value(content)), msgspec.Raw(content)))
    replace_file(files, os.path.join(directory, NAME), whole + b"\n")
    files.fsync_directory(directory)


def read(files: Files, directory: str) -> Manifest:
    """Read the manifest of a backup. Raises NotFound where there is none, UnsupportedFormat, and Unavailable."""
    path = os.path.join(directory, NAME)
    try:
        data = read_file(files, path, MANIFEST_BYTES_MAX)
    except FileNotFoundError as error:
        begun = os.path.exists(os.path.join(directory, INCOMPLETE))
        why = "a backup that was not finished: run it again" if begun else "no backup"
        raise NotFound(f"{directory} holds {why} ({NAME} is missing)") from error
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}") from error
    try:
        whole = msgspec.json.decode(data, type=_Whole)
        if whole.checksum != digits(google_crc32c.value(bytes(whole.backup))):
            raise Unavailable(f"{path} is damaged: its checksum is another")
        version = msgspec.json.decode(whole.backup)["format"]
        if version > FORMAT:
            raise UnsupportedFormat(f"{path} has format version {version}; this release reads up to {FORMAT}")
        made = msgspec.json.decode(whole.backup, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise Unavailable(f"{path} is damaged: {error}") from error
    for one in made.files:
        if _PATH.fullmatch(one.path) is None or not {".", ".."}.isdisjoint(one.path.split("/")):
            raise Unavailable(f"{path} names {one.path!r}, which is outside of the backup")
    return made


def digits(checksum: int) -> str:
    """Return a checksum as it is written."""
    return f"{checksum:08x}"


def checksum(files: Files, path: str, size: int) -> tuple[int, str]:
    """Return how many of the first `size` bytes of a file there are, and their checksum. Raises OSError."""
    handle = files.open(path)
    try:
        return _pass(files, handle, size, None)
    finally:
        files.close(handle)


def copy(files: Files, source: str, target: str, size: int | None) -> tuple[int, str]:
    """Copy the first `size` bytes of a file, None for all, to a new one, synced; return as `checksum`. Raises OSError."""
    origin = files.open(source)
    try:
        handle = files.open(target, create=True)
        try:
            found = _pass(files, origin, files.size(origin) if size is None else size, handle)
            files.fdatasync(handle)
        finally:
            files.close(handle)
    finally:
        files.close(origin)
    return found


def _pass(files: Files, origin: int, size: int, target: int | None) -> tuple[int, str]:
    """Read, and write where there is a target."""
    crc, at = 0, 0
    while at < size:
        data = read_fully(files, origin, min(CHUNK_BYTES, size - at), at)
        if not data:
            break
        if target is not None:
            write_fully(files, target, [data], at)
        crc = google_crc32c.extend(crc, data)
        at += len(data)
    return at, digits(crc)
