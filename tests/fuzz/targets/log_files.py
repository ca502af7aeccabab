"""Readers of the log's files: whatever a file holds, a log opens, says what is damaged, and takes new records.

The first byte says which file of a small log the rest replaces (a sealed segment, the last one, an offset index, a
compacted segment, its key index), whether checksums are put right first, so that what
they protect is reached too, and whether `ringtail wal` looks at the log as well.
Of files whose checksums were left alone no payload comes back but those that were written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import google_crc32c

from collector.errors import RingtailError
from collector.testing import otlp
from collector.testing.files import MemoryFiles, keep_all
from collector.wal import inspect
from collector.wal.frame import HEADER_SIZE, MAGIC_BYTES, frame_size
from tests.fuzz.target import Target
from tests.wal.logs import DIRECTORY, open_log, segment_paths
from tests.wal.test_compact import compact_all

REPAIRED = 0x80
INSPECTED = 0x40
ROLES = ("sealed", "active", "index", "compacted", "keys")
_SEGMENT_HEADER = 128
_SEGMENT_BYTES = 1500


@cache
def _base() -> tuple[MemoryFiles, dict[str, str], frozenset[bytes]]:
    """A log of two compacted segments, sealed ones and an active one; where the files are; the payloads in it."""
    files = MemoryFiles()
    log = open_log(files, segment_bytes=_SEGMENT_BYTES)
    for seed in range(3):
        log.append([otlp.traces(2, seed=seed)], 2, seed, seed)
    compact_all(files, log)
    for seed in range(3, 6):
        log.append([otlp.traces(2, seed=seed)], 2, seed, seed)
    log.sync()
    log.close()
    names = segment_paths(files)
    roles = {
        "compacted": names[0],
        "keys": names[0].removesuffix("log") + "keys",
        "sealed": names[-2],
        "index": names[-2].removesuffix("log") + "index",
        "active": names[-1],
    }
    payloads = frozenset(otlp.traces(2, seed=seed) for seed in range(6))
    return files, roles, payloads


def _check(data: bytes) -> None:
    if not data:
        return
    base, roles, payloads = _base()
    role = ROLES[(data[0] & 0x3F) % len(ROLES)]
    content = data[1:]
    repaired = bool(data[0] & REPAIRED)
    if repaired:
        content = _repaired(role, content)
    files = base.after_power_cut(keep_all)
    files.put(roles[role], content)
    try:
        if data[0] & INSPECTED:
            inspect.verify(DIRECTORY, files)
            inspect.inspect(DIRECTORY, files)
        log = open_log(files, segment_bytes=_SEGMENT_BYTES)
    except RingtailError:
        return
    _use(log, None if repaired else payloads)
    new = otlp.traces(2, seed=99)
    offset = log.append([new], 2, 1, 2, sync=True)
    log.close()
    again = open_log(files, segment_bytes=_SEGMENT_BYTES)
    assert again.next_offset == offset + 2
    assert again.read(offset).payload == new
    again.close()
    assert files.open_handles() == 0 if callable(files.open_handles) else files.open_handles == 0


def _use(log: Any, payloads: frozenset[bytes] | None) -> None:
    """Read everything in every way, and let the log check itself."""
    end = 0
    for frame in log.frames():
        assert frame.base_offset >= end, "offsets go back"
        end = frame.end_offset
        assert payloads is None or frame.payload in payloads, "a payload that was never written"
    for _ in log.frames(newest_first=True, start_ns=1, end_ns=4):
        pass
    for _ in log.frames(index="service", any_of=[b"checkout"]):
        pass
    log.check()


def _repaired(role: str, content: bytes) -> bytes:
    """Put the checksums right, of as much as has the form."""
    made = bytearray(content)
    if role == "index" and len(made) >= 96:
        made[92:96] = struct.pack("<I", google_crc32c.value(bytes(made[:92] + made[96:])))
    elif role == "keys" and len(made) >= 64:
        head = min(len(made), int.from_bytes(made[12:16], "little"))
        made[60:64] = struct.pack("<I", google_crc32c.value(bytes(made[:60] + made[64:head])))
    elif role in ("sealed", "active", "compacted") and len(made) >= _SEGMENT_HEADER:
        made[124:128] = struct.pack("<I", google_crc32c.value(bytes(made[:124])))
        at = _SEGMENT_HEADER
        while at + HEADER_SIZE <= len(made) and made[at : at + 4] == MAGIC_BYTES:
            length = int.from_bytes(made[at + 16 : at + 20], "little")
            payload = bytes(made[at + HEADER_SIZE : at + HEADER_SIZE + length])
            made[at + 56 : at + 60] = struct.pack("<I", google_crc32c.value(payload))
            checked = struct.pack("<Q", at) + bytes(made[at : at + 60])
            made[at + 60 : at + 64] = struct.pack("<I", google_crc32c.value(checked))
            at += frame_size(length)
    return bytes(made)


def _seeds() -> Iterator[bytes]:
    files, roles, _ = _base()
    for number, role in enumerate(ROLES):
        content = files.contents(roles[role]).rstrip(b"\0") + bytes(8)
        for flags in (0, REPAIRED, INSPECTED, REPAIRED | INSPECTED):
            yield bytes([flags | number]) + content


_WORDS = (MAGIC_BYTES, b"RINGTAIL", b"RINGTIDX", b"RINGTKEY", b"\xff" * 8, bytes(8), b"service\0", b"trace_id")
TARGETS = [Target("log-files", _check, _seeds, _WORDS, length_max=4096)]
