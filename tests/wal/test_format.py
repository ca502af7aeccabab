"""Format version 1 as it was first written, and as docs/on-disk-format.md tells it.

`fixtures/v1` was written by the first release and is never written again: every later release must read it. To see
what today's code would write: `python -m tests.wal.test_format DIRECTORY`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, TRACES
from collector.testing.files import MemoryFiles
from collector.wal import frame, index, segment
from collector.wal.files import Files, OperatingSystemFiles, make_directories
from tests.wal.logs import CountingNonces, FakeClock, append, content, open_log, payload

FIXTURE = Path(__file__).parent / "fixtures" / "v1"
PAGE = Path(__file__).parents[2] / "docs" / "on-disk-format.md"
COUNTS = (1, 2, 3, 1, 2, 3, 1)


def write(files: Files, directory: str) -> None:
    """The logs of the fixture: two segments with frames of two seconds, sizes and times, and an empty log."""
    clock = FakeClock()
    log = open_log(files, directory=directory, clock=clock, entropy=CountingNonces(0x0102030405060708))
    for count in COUNTS:
        append(log, count, size=20 + count, times=(log.next_offset * 10, log.next_offset * 10 + count))
        clock.pass_time(1.0)
    log.close()
    open_log(files, directory=directory, signal=LOGS, clock=clock, entropy=CountingNonces(7)).close()


def copy_of_fixture() -> MemoryFiles:
    """The fixture in memory, so that opening it changes nothing."""
    files = MemoryFiles()
    for path in sorted(FIXTURE.rglob("*.*")):
        make_directories(files, f"/data/{path.parent.name}")
        files.put(f"/data/{path.relative_to(FIXTURE)}", path.read_bytes())
    return files


def test_version_1_is_read() -> None:
    log = open_log(copy_of_fixture())
    expected = []
    offset = 0
    for count in COUNTS:
        expected.append((offset, count, payload(offset, count, 20 + count)))
        offset += count
    assert content(log) == expected
    assert log.recovery.rebuilt_indexes == 0
    assert log.recovery.records == log.next_offset == sum(COUNTS)
    assert [(found.min_time, found.max_time) for found in log.frames()][:3] == [(0, 1), (10, 12), (30, 33)]
    assert [found.append_time for found in log.frames()] == [
        1_700_000_000_000_000_000 + second * 1_000_000_000 for second in range(len(COUNTS))
    ]
    assert append(log) == sum(COUNTS)
    assert log.check() == []
    assert open_log(copy_of_fixture(), signal=LOGS).recovery.records == 0


def test_version_1_is_what_is_written() -> None:
    """Byte by byte. A difference here is a new format version, or a mistake."""
    files = MemoryFiles()
    write(files, "/data")
    written = {
        f"{signal}/{name}": files.contents(f"/data/{signal}/{name}")
        for signal in files.listdir("/data")
        for name in files.listdir(f"/data/{signal}")
    }
    assert written == {str(path.relative_to(FIXTURE)): path.read_bytes() for path in FIXTURE.rglob("*.*")}


def tables() -> dict[str, list[tuple[int, int]]]:
    """(at, size) of every field in the page's tables, by the heading above."""
    found: dict[str, list[tuple[int, int]]] = {}
    heading = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("#"):
            heading = line.strip("# ")
        if match := re.match(r"\| (\d+) \| (\d+) \|", line):
            found.setdefault(heading, []).append((int(match[1]), int(match[2])))
    return found


@pytest.mark.parametrize(
    ("heading", "size"),
    [("Segment header", segment.HEADER_SIZE), ("Frame", frame.HEADER_SIZE), ("Index", index.HEADER_SIZE)],
)
def test_the_tables_of_the_page_are_whole(heading: str, size: int) -> None:
    at = 0
    for start, length in tables()[heading]:
        assert start == at
        at += length
    assert at == size


def example() -> bytes:
    """The bytes of the page's example."""
    rows = re.findall(r"^([0-9a-f]{4})  ((?:[0-9a-f]{2} {1,2})+)", PAGE.read_text(), re.MULTILINE)
    data = b""
    for at, row in rows:
        assert int(at, 16) == len(data)
        data += bytes.fromhex(row)
    return data


def test_the_example_of_the_page_is_a_log() -> None:
    files = MemoryFiles()
    make_directories(files, "/data/traces")
    files.put(f"/data/traces/{segment.file_name(0)}", example())
    log = open_log(files)
    assert log.recovery.truncated_bytes == 0
    assert content(log) == [(0, 2, b"0+2;" * 6)]
    assert segment.decode_header(example(), "x") == segment.SegmentHeader(
        TRACES.code, 0, 0x0102030405060708, 0x1797_9CFE_362A_0000
    )


if __name__ == "__main__":
    write(OperatingSystemFiles(), sys.argv[1])
