"""What was deleted of one log: a small file beside its segments, and what of it is still to be done.

Deleting is a tombstone first: the offsets go into `DELETED`, which is written anew and synced, and from then on nobody is shown
these records. Compaction erases their bytes (compact.py); then their offsets are no longer `present`, but stay hidden as
long as the log has them. What backends have to be told waits in `pending` until they have done it. Every step may be
interrupted and done again.

    {"checksum": "9f2c01ab", "deleted": {"format": 1, "hidden": [7, 9, 20, 21], "present": [20, 21], "pending": [{…}]}}

Offsets are pairs: from the first of a range to before the second. `checksum` is the CRC32C of the bytes of the value of `deleted`. A file
that cannot be read keeps the log closed: without it, what was deleted would be shown again. Offsets behind the end of the
log are forgotten when it is opened: a crash has taken the records, and their offsets are given out anew.

Without a log, a ring's deletions are kept here, too, and in memory only. For any thread. Memory: 16 bytes for each range.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Final

import google_crc32c
import msgspec

from collector.errors import QueryLimit, Unavailable, UnsupportedFormat
from collector.otlp.tombstones import NONE, Tombstones
from collector.wal.files import Files, read_file, replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

NAME: Final = "DELETED"
FORMAT: Final = 1
RANGES_MAX: Final = 1_000_000
"""Ranges of offsets that are hidden at a time."""
PENDING_MAX: Final = 1000
"""Deletions that backends have not been told of, at a time."""
IDENTITIES_MAX: Final = 100_000
"""Single records, for all backends without keys together, that these have not been told of, at a time: some 100 bytes each."""
END: Final = 2**63 - 1
"""Behind every offset."""
FILE_BYTES_MAX: Final = 256 * 1024 * 1024


class Pending(msgspec.Struct, frozen=True):
    """A deletion that backends still have to be told of."""

    number: int
    end_offset: int
    """Records from here on are not meant."""
    trace_ids: list[str]
    """Whole traces; none: the records of these offsets."""
    ranges: list[tuple[int, int]]
    backends: list[str]
    """Exporters, by name."""
    identities: dict[str, list[str]] = {}
    """What single records are known by to backends without keys, by exporter; in hexadecimal digits."""


class _Content(msgspec.Struct):
    format: int
    hidden: list[int]
    present: list[int]
    pending: list[Pending]


class _Whole(msgspec.Struct):
    checksum: str
    deleted: msgspec.Raw


class Deletions:
    """See the module."""

    def __init__(self, directory: str | None, files: Files | None) -> None:
        """Know of nothing; `directory` is the log's, None where there is no log."""
        self.hidden: Tombstones = NONE
        """What nobody is shown."""
        self.present: Tombstones = NONE
        """What of it has its bytes still in segments."""
        self.pending: tuple[Pending, ...] = ()
        """What backends have not been told, oldest first."""
        self._directory = directory
        self._files = files
        self._lock = threading.Lock()

    @classmethod
    def open(cls, directory: str, files: Files, first_offset: int, end_offset: int) -> Deletions:
        """Read those of a log that has these offsets. Raises Unavailable, UnsupportedFormat, and OSError."""
        made = cls(directory, files)
        content = _read(directory, files)
        if content is not None:
            hidden = Tombstones(_pairs(content.hidden))
            made.hidden = hidden.within(first_offset, end_offset)
            made.present = Tombstones(_pairs(content.present)).within(first_offset, end_offset)
            made.pending = tuple(content.pending)
            if made.hidden != hidden.within(first_offset, END):
                made._write(made.hidden, made.present, made.pending)
        return made

    def add(
        self,
        deleted: Tombstones,
        oldest: int,
        end_offset: int,
        trace_ids: Iterable[str],
        backends: Iterable[str],
        identities: Mapping[str, Sequence[bytes]] | None = None,
    ) -> int:
        """Delete records of the log for good, and have these backends told; return how many were not deleted before.

        `oldest` is where what can be read begins; `identities` are those of single records, for each backend that knows records by
        them. It lasts when this returns. Raises QueryLimit when there are too many, and Unavailable when it cannot be written: then
        nothing is deleted, as far as is known.
        """
        with self._lock:
            hidden = (self.hidden | deleted).within(oldest, END)
            if len(hidden) > RANGES_MAX or len(self.pending) >= PENDING_MAX:
                raise QueryLimit(
                    f"{len(hidden)} ranges of offsets would be deleted, of {RANGES_MAX} at most, and "
                    f"{len(self.pending)} deletions wait for backends, of {PENDING_MAX} at most"
                )
            identities = identities or {}
            waiting = sum(len(some) for one in self.pending for some in one.identities.values())
            if (asked := sum(map(len, identities.values()))) and asked + waiting > IDENTITIES_MAX:
                raise QueryLimit(
                    f"{asked} records to be known again by backends without keys, beside {waiting} that wait for them: "
                    f"{IDENTITIES_MAX} at most at a time; delete fewer at once, or whole traces"
                )
            of = sorted(trace_ids)
            pending = self.pending
            if names := sorted(backends) if of or deleted else []:
                number = max((one.number for one in pending), default=0) + 1
                known = {name: [each.hex() for each in some] for name, some in identities.items()}
                ranges = [] if of else deleted.ranges()
                pending = (*pending, Pending(number, end_offset, of, ranges, names, known))
            new = deleted - self.hidden
            if new or pending is not self.pending:
                self._put(hidden, (self.present | new).within(oldest, END), pending)
            return new.records

    def erased(self, first: int, end: int, deleted: Tombstones, oldest: int) -> None:
        """The records in [first, end) of these are in no segment any more, and the log has nothing before `oldest`."""
        with self._lock:
            present = self.present - deleted.within(first, end)
            self._put(self.hidden.within(oldest, END), present.within(oldest, END), self.pending)

    def passed_on(self, number: int, backend: str) -> None:
        """A backend has done what it was told. Raises Unavailable."""
        with self._lock:
            left = [
                msgspec.structs.replace(
                    one,
                    backends=[name for name in one.backends if name != backend],
                    identities={name: some for name, some in one.identities.items() if name != backend},
                )
                if one.number == number
                else one
                for one in self.pending
            ]
            self._put(self.hidden, self.present, tuple(one for one in left if one.backends))

    def _put(self, hidden: Tombstones, present: Tombstones, pending: tuple[Pending, ...]) -> None:
        try:
            self._write(hidden, present, pending)
        except OSError as error:
            raise Unavailable(f"{self._directory}/{NAME} cannot be written: {error}") from error
        self.hidden, self.present, self.pending = hidden, present, pending

    def _write(self, hidden: Tombstones, present: Tombstones, pending: tuple[Pending, ...]) -> None:
        if self._directory is not None and self._files is not None:
            write(self._directory, self._files, hidden, present, pending)

    def stats(self) -> dict[str, int]:
        """Return its part of `/api/stats`."""
        return {
            "records": self.hidden.records,
            "in_segments": self.present.records if self._directory is not None else 0,
            "pending": sum(len(one.backends) for one in self.pending),
        }


def write(
    directory: str, files: Files, hidden: Tombstones, present: Tombstones, pending: Iterable[Pending] = ()
) -> None:
    """Write the file of a log, and sync it. Raises OSError."""
    content = msgspec.json.encode(_Content(FORMAT, _flat(hidden), _flat(present), list(pending)))
    whole = msgspec.json.encode(_Whole(f"{google_crc32c.value(content):08x}", msgspec.Raw(content)))
    replace_file(files, os.path.join(directory, NAME), whole + b"\n")
    files.fsync_directory(directory)


def hidden_of(directory: str, files: Files) -> Tombstones:
    """Return what of a log nobody is shown, for who reads it from outside. Raises Unavailable, UnsupportedFormat, and OSError."""
    content = _read(directory, files)
    return Tombstones(_pairs(content.hidden)) if content is not None else NONE


def _read(directory: str, files: Files) -> _Content | None:
    path = os.path.join(directory, NAME)
    try:
        data = read_file(files, path, FILE_BYTES_MAX)
    except FileNotFoundError:
        return None
    try:
        whole = msgspec.json.decode(data, type=_Whole)
        if whole.checksum != f"{google_crc32c.value(bytes(whole.deleted)):08x}":
            raise Unavailable(f"{path} is damaged, and with it what was deleted: its checksum is another")
        version = msgspec.json.decode(whole.deleted)["format"]
        if version > FORMAT:
            raise UnsupportedFormat(f"{path} has format version {version}; this release reads up to {FORMAT}")
        return msgspec.json.decode(whole.deleted, type=_Content)
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise Unavailable(f"{path} is damaged, and with it what was deleted: {error}") from error


def _flat(one: Tombstones) -> list[int]:
    return [edge for pair in one.ranges() for edge in pair]


def _pairs(flat: list[int]) -> Iterable[tuple[int, int]]:
    return zip(flat[::2], flat[1::2], strict=True)
