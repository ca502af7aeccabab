"""The format's versions as they were first written, and as docs/on-disk-format.md tells them.

`fixtures/v1` was written by the first release, `fixtures/v2` by the first that compacts, `fixtures/v2-texts` by the first
whose key indexes tell of texts, `fixtures/v2-span-texts` by the first where those of spans do; none is ever written again,
and every later release must read all of them. To see what today's code would write:
`python -m tests.wal.test_format VERSION DIRECTORY`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.otlp.signals import LOGS, TRACES, Signal
from collector.otlp.terms import Sought
from collector.otlp.texts import ATTRIBUTE, BODY
from collector.testing.files import MemoryFiles
from collector.wal import frame, index, keys, merging, segment, texts
from collector.wal.compression import Unpacker
from collector.wal.files import Files, OperatingSystemFiles, make_directories
from collector.wal.frame import Damaged
from collector.wal.log import Log
from tests.wal.logs import CountingNonces, FakeClock, append, content, open_log, payload
from tests.wal.test_compact import compact_all

FIXTURES = Path(__file__).parent / "fixtures"
FIXTURE = FIXTURES / "v1"
COMPACTED = FIXTURES / "v2"
TEXTS = FIXTURES / "v2-texts"
SPAN_TEXTS = FIXTURES / "v2-span-texts"
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


def request(offset: int, count: int) -> bytes:
    """An export request of spans of one trace, of a service of three."""
    made = ExportTraceServiceRequest()
    envelope = made.resource_spans.add()
    name = envelope.resource.attributes.add(key="service.name")
    name.value.string_value = f"service-{offset % 3}"
    scope = envelope.scope_spans.add()
    for number in range(offset, offset + count):
        scope.spans.add(
            trace_id=offset.to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name=f"operation {number % 4}",
            start_time_unix_nano=number * 10,
            end_time_unix_nano=number * 10 + 5,
        )
    return made.SerializeToString(deterministic=True)


def write_compacted(files: Files, directory: str) -> None:
    """The log of the second fixture: a compacted segment of two frames, one that is not, and the active one."""
    clock = FakeClock()
    nonces = CountingNonces(0x0102030405060708)
    log = open_log(files, directory=directory, clock=clock, entropy=nonces, segment_bytes=2500)
    for step in range(24):
        offset, count = log.next_offset, 1 + step % 3
        log.append([request(offset, count)], count, offset * 10, (offset + count - 1) * 10)
        clock.pass_time(1.0)
        if len(log.sealed_segments) == 1 and not log.sealed_segments[0].compacted:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(merging, "FRAME_RECORDS", 12)
                compact_all(files, log, entropy=nonces)
    log.close()


def log_request(offset: int, count: int) -> bytes:
    """An export request of log records: lines with a number of their own, and now and then a document."""
    made = ExportLogsServiceRequest()
    scope = made.resource_logs.add().scope_logs.add()
    for number in range(offset, offset + count):
        one = scope.log_records.add(time_unix_nano=number * 10)
        one.attributes.add(key="file").value.string_value = f"/var/log/Größe-{offset}.log"
        if offset % 5 == 4:
            one.body.kvlist_value.values.add(key="item").value.int_value = number
        else:
            one.body.string_value = f"Order {number * 7919 % 100_000:05} accepted"
    return made.SerializeToString(deterministic=True)


def write_texts(files: Files, directory: str) -> None:
    """The log of the third fixture: a compacted segment of log records, and the active one."""
    clock = FakeClock()
    nonces = CountingNonces(0x0102030405060708)
    log = open_log(files, directory=directory, signal=LOGS, clock=clock, entropy=nonces, segment_bytes=2500)
    for step in range(20):
        offset, count = log.next_offset, 1 + step % 3
        log.append([log_request(offset, count)], count, offset * 10, (offset + count - 1) * 10)
        clock.pass_time(1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FRAME_RECORDS", 6)
        compact_all(files, log, entropy=nonces)
    log.close()


def span_request(offset: int, count: int) -> bytes:
    """An export request of spans with texts of each kind that spans have."""
    made = ExportTraceServiceRequest()
    scope = made.resource_spans.add().scope_spans.add()
    scope.scope.name = "shop"
    for number in range(offset, offset + count):
        span = scope.spans.add(
            trace_id=offset.to_bytes(16, "big"),
            span_id=(number + 1).to_bytes(8, "big"),
            name=f"Order {offset % 4}",
            start_time_unix_nano=number * 10,
        )
        span.attributes.add(key="customer").value.string_value = f"customer-{number * 7919 % 100_000:05}"
        span.events.add(name="cache").attributes.add(key="key").value.string_value = f"Größe-{offset}"
        span.links.add().attributes.add(key="why").value.string_value = f"retry {offset * 977}"
        if number % 7 == 3:
            span.status.message = f"refused by bank-{offset}"
    return made.SerializeToString(deterministic=True)


def write_span_texts(files: Files, directory: str) -> None:
    """The log of the fourth fixture: as the third, of spans."""
    clock = FakeClock()
    nonces = CountingNonces(0x0102030405060708)
    log = open_log(files, directory=directory, clock=clock, entropy=nonces, segment_bytes=4000)
    for step in range(20):
        offset, count = log.next_offset, 1 + step % 3
        log.append([span_request(offset, count)], count, offset * 10, (offset + count - 1) * 10)
        clock.pass_time(1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "FRAME_RECORDS", 6)
        compact_all(files, log, entropy=nonces)
    log.close()


def copy_of_fixture(fixture: Path = FIXTURE) -> MemoryFiles:
    """The fixture in memory, so that opening it changes nothing."""
    files = MemoryFiles()
    for path in sorted(fixture.rglob("*.*")):
        make_directories(files, f"/data/{path.parent.name}")
        files.put(f"/data/{path.relative_to(fixture)}", path.read_bytes())
    return files


def test_version_2_is_read() -> None:
    files = copy_of_fixture(COMPACTED)
    log = open_log(files, segment_bytes=2500)
    assert log.recovery.rebuilt_indexes == 0
    assert [one.compacted for one in log.segments] == [True, False, False]
    offset = 0
    expected = b""
    for step in range(24):
        count = 1 + step % 3
        expected += request(offset, count)
        offset += count
    assert b"".join(found.payload for found in log.frames()) == expected
    assert log.next_offset == log.recovery.records == offset
    end = log.sealed_segments[0].next_offset
    frames = list(log.frames(0, end))
    assert len(frames) > 1
    trace = frames[1].base_offset.to_bytes(16, "big")
    assert list(log.frames(0, end, index="trace_id", any_of=[trace])) == frames[1:2]
    assert log.sealed_segments[0].keyed
    everything = ((Sought(ATTRIBUTE, b"nowhere", whole=True),),)
    assert list(log.frames(0, end, terms=everything)) == frames, "it tells nothing of texts"
    assert log.check() == []


def test_version_2_is_what_is_written() -> None:
    """All but the bytes that zstd makes, which its next release may make otherwise, and the sizes that follow."""
    files = MemoryFiles()
    write_compacted(files, "/data")
    fixture = copy_of_fixture(COMPACTED)
    assert sorted(files.listdir("/data/traces")) == sorted(fixture.listdir("/data/traces"))
    [name] = [name for name in files.listdir("/data/traces") if name.endswith(".keys")]
    path = f"/data/traces/{name.replace('.keys', '.log')}"
    assert files.contents(path)[: segment.HEADER_SIZE] == fixture.contents(path)[: segment.HEADER_SIZE]
    written, first = open_log(files, segment_bytes=2500), open_log(fixture, segment_bytes=2500)
    assert list(written.frames()) == list(first.frames())
    assert len(files.contents(path)) < 0.5 * written.sealed_segments[1].size
    assert written.stats()["segments"] == first.stats()["segments"]


def text_index(files: MemoryFiles, log: Log) -> keys.Content:
    """What the key index of a fixture tells."""
    of = log.sealed_segments[0]
    found = keys.content(files.contents(of.path.replace(".log", ".keys")), of, Unpacker())
    assert not isinstance(found, Damaged)
    return found


def test_texts_of_version_2_are_read() -> None:
    files = copy_of_fixture(TEXTS)
    log = open_log(files, signal=LOGS, segment_bytes=2500)
    assert log.recovery.rebuilt_indexes == 0
    assert [one.compacted for one in log.segments] == [True, False]
    end = log.sealed_segments[0].next_offset
    frames = list(log.frames(0, end))
    assert b"".join(one.payload for one in frames) == b"".join(
        log_request(sum(1 + before % 3 for before in range(step)), 1 + step % 3)
        for step in range(20)
        if sum(1 + before % 3 for before in range(step)) < end
    )
    assert len(frames) > 3
    documents = [one for one in frames if b"item" in one.payload]
    assert documents
    for wanted, kind in ((b"order 23757 ACC", BODY), ("GRÖßE-7.LOG".encode(), ATTRIBUTE)):
        named = list(log.frames(0, end, terms=((Sought(kind, wanted, whole=False),),)))
        plain = [one for one in frames if wanted.decode().lower() in one.payload.decode("utf-8", "replace").lower()]
        assert 0 < len(plain) < len(frames)
        assert [one for one in named if kind == ATTRIBUTE or one not in documents or one in plain] == plain
    assert list(log.frames(0, end, terms=((Sought(BODY, b"4711", whole=False),),))) == documents
    assert log.sealed_segments[0].keyed
    assert log.check() == []


def test_texts_of_spans_of_version_2_are_read() -> None:
    log = open_log(copy_of_fixture(SPAN_TEXTS), segment_bytes=4000)
    end = log.sealed_segments[0].next_offset
    frames = list(log.frames(0, end))
    assert len(frames) > 3
    for wanted in ("CUSTOMER-23757", "größe-6", "retry 5862", "refused by bank-1", "order 2", "shop"):
        named = list(log.frames(0, end, terms=((Sought(ATTRIBUTE, wanted.encode(), whole=False),),)))
        assert named == [one for one in frames if wanted.lower() in one.payload.decode("utf-8", "replace").lower()]
        assert named
    assert log.sealed_segments[0].keyed
    assert log.check() == []


@pytest.mark.parametrize(
    ("fixture", "signal", "write", "segment_bytes"),
    [(TEXTS, LOGS, write_texts, 2500), (SPAN_TEXTS, TRACES, write_span_texts, 4000)],
)
def test_texts_of_version_2_are_what_is_written(
    fixture: Path, signal: Signal, write: Callable[[Files, str], None], segment_bytes: int
) -> None:
    """All that a key index tells; its bytes are zstd's."""
    files = MemoryFiles()
    write(files, "/data")
    before = copy_of_fixture(fixture)
    assert sorted(files.listdir(f"/data/{signal.name}")) == sorted(before.listdir(f"/data/{signal.name}"))
    written = open_log(files, signal=signal, segment_bytes=segment_bytes)
    first = open_log(before, signal=signal, segment_bytes=segment_bytes)
    told, expected = text_index(files, written), text_index(before, first)
    assert told.texts == expected.texts
    assert told.sections == expected.sections
    assert told.head[:3] == expected.head[:3], "positions depend on zstd"


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
    [
        ("Segment header", segment.HEADER_SIZE),
        ("Frame", frame.HEADER_SIZE),
        ("Index", index.HEADER_SIZE),
        ("Key index", keys.HEADER_SIZE),
        ("Section of a key index", 48),
        ("Texts", texts._HEAD.size),
    ],
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
    writers = {"1": write, "2": write_compacted, "2-texts": write_texts, "2-span-texts": write_span_texts}
    writers[sys.argv[1]](OperatingSystemFiles(), sys.argv[2])
