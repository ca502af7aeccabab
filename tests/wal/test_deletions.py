"""What was deleted of a log: not shown from the moment that it is written, over crashes, and erased by compaction."""

from __future__ import annotations

import os

import pytest

from collector.errors import QueryLimit, Unavailable, UnsupportedFormat
from collector.otlp.records import record_bytes
from collector.otlp.signals import LOGS, TRACES, Signal
from collector.otlp.tombstones import NONE, Tombstones
from collector.testing import otlp
from collector.testing.files import CUT, READING, WRITING, Fates, FaultyFiles, MemoryFiles, PowerCut, keep_all, lose_all
from collector.wal import deletions
from collector.wal.deletions import NAME, Deletions, Pending, hidden_of
from collector.wal.files import Files
from collector.wal.inspect import cat
from collector.wal.log import Log
from tests.wal.logs import DIRECTORY, exchange_files, open_log
from tests.wal.test_compact import compact_all

GONE = Tombstones([(3, 9), (17, 18), (40, 60)])
SOME = Tombstones([(3, 9), (17, 18), (26, 31)])


def fill(files: Files, signal: Signal = TRACES, count: int = 20) -> Log:
    log = open_log(files, signal=signal, segment_bytes=12_000)
    for seed in range(count):
        log.append([otlp.BUILDERS[signal](5, seed=seed)], 5, seed, seed)
    log.sync()
    return log


def shown(log: Log, *, deleted: bool = False) -> dict[int, bytes]:
    found = {}
    for block in log.blocks(deleted=deleted):
        found |= {block.base_offset + row: record_bytes(block, row) for row in range(block.count)}
    return found


@pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
def test_it_is_hidden_at_once_and_erased_by_compaction(signal: Signal) -> None:
    files = MemoryFiles()
    log = fill(files, signal)
    before = shown(log)
    assert log.segment_count > 2
    compact_all(files, log)
    rest = {offset: data for offset, data in before.items() if not GONE.touch(offset, offset + 1)}
    assert log.deletions.add(GONE, 0, 100, [], []) == GONE.records
    assert log.deletions.add(GONE, 0, 100, [], []) == 0
    assert shown(log) == rest
    assert shown(log, deleted=True) == before
    backwards = [block.base_offset for block in log.blocks(newest_first=True)]
    assert backwards == sorted(backwards, reverse=True)
    seen = sum(frame.count for frame in cat(DIRECTORY, signal, 0, 10**6, files))
    assert seen == len(rest)
    assert [frame.base_offset for frame in cat(DIRECTORY, signal, 0, 2, files)] == [0, 9]
    # Compacted segments are compacted again, and only the active one still has bytes of it.
    sealed = log.sealed_segments[-1].next_offset
    assert compact_all(files, log) > 0
    assert log.deletions.present == GONE.within(sealed, 100)
    assert log.check() == []
    raw = shown(log, deleted=True)
    assert raw.keys() == before.keys()
    assert all(len(raw[offset]) <= 30 for offset in raw if GONE.touch(offset, offset + 1) and offset < sealed)
    assert shown(log) == rest
    assert compact_all(files, log) == 0
    log.close()
    again = open_log(files, signal=signal, segment_bytes=12_000)
    assert shown(again) == rest
    assert again.deletions.stats() == {
        "records": GONE.records,
        "in_segments": GONE.within(sealed, 100).records,
        "pending": 0,
    }


def test_what_compaction_erases_waits_in_no_spare_file() -> None:
    files = MemoryFiles()
    log = fill(files)
    [block] = log.blocks(41, 42)
    needle = block.column("span_id")[41 - block.base_offset].tobytes()
    log.deletions.add(Tombstones([(0, 90)]), 0, 100, [], [])
    compact_all(files, log)
    assert log.sealed_segments[-1].next_offset > 45
    directory = f"{DIRECTORY}/traces"
    assert not any(needle in files.contents(f"{directory}/{name}") for name in files.listdir(directory))
    assert not any(name.startswith("spare") for name in files.listdir(directory))


@pytest.mark.parametrize("fates", [keep_all, lose_all])
def test_a_crash_at_every_step_deletes_all_or_nothing(fates: Fates) -> None:
    """Of the deletion and of the compaction behind it: what was told to be deleted stays so, and nothing else goes."""
    at = 0
    reached = True
    while reached:
        at += 1
        inner = MemoryFiles()
        log = fill(inner, count=9)
        before = shown(log)
        faulty = FaultyFiles(inner, WRITING | READING, at, CUT, None)
        exchange_files(log, faulty)
        log.deletions._files = faulty
        told = False
        try:
            log.deletions.add(SOME, 0, 100, ["aa"], ["sqlite"])
            told = True
            compact_all(faulty, log)
        except PowerCut:
            pass
        reached = faulty.reached
        if not reached:
            break
        again = open_log(inner.after_power_cut(fates), segment_bytes=12_000)
        rest = {offset: data for offset, data in before.items() if not SOME.touch(offset, offset + 1)}
        found = shown(again)
        assert found == rest or (not told and found == before), at
        assert len(again.deletions.pending) == (found == rest)
        assert again.damaged == ()
        again.close()
    assert at > 20


def test_offsets_that_a_crash_has_taken_are_given_out_anew() -> None:
    files = MemoryFiles()
    log = fill(files)
    log.append([otlp.traces(5)], 5, 1, 1)  # Not synced.
    log.deletions.add(Tombstones([(98, 103)]), 0, 105, [], [])
    files = files.after_power_cut(lose_all)
    again = open_log(files, segment_bytes=12_000)
    assert (again.next_offset, again.deletions.hidden) == (100, Tombstones([(98, 100)]))
    assert hidden_of(f"{DIRECTORY}/traces", files) == Tombstones([(98, 100)])


def test_a_damaged_file_keeps_the_log_closed() -> None:
    files = MemoryFiles()
    log = fill(files)
    log.deletions.add(GONE, 0, 100, [], [])
    log.close()
    path = f"{DIRECTORY}/traces/{NAME}"
    good = files.contents(path)

    def put(data: bytes) -> None:
        files.unlink(path)
        handle = files.open(path, create=True)
        files.pwritev(handle, [data], 0)
        files.close(handle)

    for bad in (good.replace(b"17", b"16"), b"", good[:-9], b"\xff\xfe", b'{"checksum": 1}'):
        put(bad)
        with pytest.raises(Unavailable, match="damaged"):
            open_log(files)
        with pytest.raises(Unavailable, match="damaged"):
            list(cat(DIRECTORY, TRACES, 0, 1, files))
    made = Deletions(os.path.dirname(path), files)
    deletions.FORMAT, before = 2, deletions.FORMAT  # type: ignore[misc]
    try:
        made.add(GONE, 0, 100, [], [])
    finally:
        deletions.FORMAT = before  # type: ignore[misc]
    with pytest.raises(UnsupportedFormat):
        open_log(files)


def test_what_backends_have_to_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    files = MemoryFiles()
    files.mkdir("/x")
    one = Deletions("/x", files)
    one.add(NONE, 0, 7, ["ab"], ["b", "a"])
    one.add(Tombstones([(1, 3)]), 0, 9, [], ["a"])
    assert one.add(NONE, 0, 9, [], ["a"]) == 0
    assert one.pending == (Pending(1, 7, ["ab"], [], ["a", "b"]), Pending(2, 9, [], [(1, 3)], ["a"]))
    again = Deletions.open("/x", files, 0, 100)
    assert again.pending == one.pending
    again.passed_on(1, "a")
    again.passed_on(2, "a")
    assert Deletions.open("/x", files, 0, 100).pending == (Pending(1, 7, ["ab"], [], ["b"]),)
    again.erased(0, 100, again.hidden, 2)
    assert (again.hidden, again.present) == (Tombstones([(2, 3)]), NONE)
    monkeypatch.setattr(deletions, "RANGES_MAX", 3)
    with pytest.raises(QueryLimit):
        again.add(Tombstones((at, at + 1) for at in range(10, 18, 2)), 0, 20, [], [])
    assert again.hidden == Tombstones([(2, 3)])
    faulty = FaultyFiles(files, {"rename"}, 1)
    again._files = faulty
    with pytest.raises(Unavailable):
        again.add(Tombstones([(5, 6)]), 0, 20, [], [])
    assert again.hidden == Tombstones([(2, 3)])
