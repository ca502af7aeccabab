"""Backups: whatever the daemon does to the files meanwhile and later, one has exactly the records up to its cut."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.errors import NotFound, Unavailable
from collector.moving.backup import Done, back_up
from collector.moving.restore import restore, verify
from collector.otlp.signals import LOGS, TRACES
from collector.otlp.tombstones import Tombstones
from collector.testing import otlp
from collector.wal import writer
from collector.wal.compact import compact
from collector.wal.cursor import Cursor, State
from collector.wal.files import OperatingSystemFiles
from collector.wal.log import Log
from collector.wal.restored import require_restored
from tests.wal.logs import FakeClock, RecordingLogger, append, content, open_log

FILES = OperatingSystemFiles()


class Interposed(OperatingSystemFiles):
    """Does something before a call."""

    def __init__(self, before: Callable[[str, str], None]) -> None:
        self.before = before

    def link(self, source: str, target: str) -> None:
        self.before("link", source)
        super().link(source, target)

    def open(self, path: str, **options: Any) -> int:
        self.before("open", path)
        return super().open(path, **options)

    def unlink(self, path: str) -> None:
        self.before("unlink", path)
        super().unlink(path)


class NoLinks(OperatingSystemFiles):
    """Another file system."""

    def link(self, source: str, target: str) -> None:
        raise OSError(errno.EXDEV, "another file system", source)


def opened(path: Path, **options: Any) -> Log:
    return open_log(FILES, directory=str(path), **options)


def filled(path: Path, frames: int = 30, **options: Any) -> Log:
    log = opened(path, **options)
    for _ in range(frames):
        append(log, 3)
    return log


def backed_up(data: Path, to: Path, files: OperatingSystemFiles = FILES, **options: Any) -> Done:
    return back_up(str(data), str(to), files, now_ns=1, logger=RecordingLogger(), **options)


def restored(backup: Path, to: Path) -> list[tuple[int, int, bytes]]:
    """The frames of a log that was restored; it goes on at the cut."""
    made = restore(str(backup), str(to), FILES)
    facts = next(one for one in made.logs if one.signal == "traces")
    log = opened(to)
    assert log.recovery.damaged == ()
    assert log.recovery.truncated_bytes == 0
    assert log.recovery.rebuilt_indexes == 0
    assert (log.first_offset, log.next_offset) == (facts.first_offset, facts.end_offset)
    assert log.record_count == facts.records
    found = content(log)
    append(log)
    log.close()
    return found


def assert_well(backup: Path) -> None:
    assert verify(str(backup), FILES).problems == []


def compacted(log: Log) -> None:
    for number, one in enumerate(log.sealed_segments):
        for _ in compact(log, one, FILES, 10**6 + number):
            pass


@pytest.mark.parametrize("files", [FILES, NoLinks()])
def test_a_backup_is_the_log_at_its_cut(tmp_path: Path, files: OperatingSystemFiles) -> None:
    log = filled(tmp_path / "data")
    before = content(log)
    done = backed_up(tmp_path / "data", tmp_path / "a", files)
    assert (done.linked == 0) is (files is not FILES)
    append(log, 5)
    log.close()
    assert_well(tmp_path / "a")
    assert restored(tmp_path / "a", tmp_path / "new") == before
    assert done.manifest.records == 90


def test_what_is_recycled_later_leaves_a_backup_alone(tmp_path: Path) -> None:
    log = filled(tmp_path / "data", retention_bytes=2000)
    before = content(log)
    backed_up(tmp_path / "data", tmp_path / "a")
    recycle(log)
    assert_well(tmp_path / "a")
    assert restored(tmp_path / "a", tmp_path / "new") == before


def recycle(log: Log) -> None:
    for _ in range(100):
        append(log, 3)
        log.enforce_retention()
    log.close()


def test_without_the_check_of_names_a_backup_would_be_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The canary."""
    monkeypatch.setattr(writer, "_is_shared", lambda files, path: False)
    log = filled(tmp_path / "data", retention_bytes=2000)
    backed_up(tmp_path / "data", tmp_path / "a")
    recycle(log)
    assert verify(str(tmp_path / "a"), FILES).problems != []


def test_recycling_goes_on_where_there_is_no_backup(tmp_path: Path) -> None:
    log = filled(tmp_path / "data", retention_bytes=2000)
    log.enforce_retention()
    spare = next((tmp_path / "data/traces").glob("*.spare")).stat().st_ino
    while spare not in {path.stat().st_ino for path in (tmp_path / "data/traces").glob("*.log")}:
        append(log, 3)
    log.close()


@pytest.mark.parametrize("files", [FILES, NoLinks()])
def test_compacted_segments_come_with_their_indexes(tmp_path: Path, files: OperatingSystemFiles) -> None:
    log = filled(tmp_path / "data")
    before = content(log)
    compacted(log)
    done = backed_up(tmp_path / "data", tmp_path / "a", files)
    log.close()
    assert sum(one.path.endswith(".index") for one in done.manifest.files) == len(log.sealed_segments)
    assert next((o, c) for o, c, _ in restored(tmp_path / "a", tmp_path / "new"))[0] == before[0][0]
    assert b"".join(p for *_, p in restored(tmp_path / "a", tmp_path / "again")) == b"".join(p for *_, p in before)


def test_compaction_between_two_backups(tmp_path: Path) -> None:
    log = filled(tmp_path / "data")
    backed_up(tmp_path / "data", tmp_path / "a")
    compacted(log)
    append(log, 3)
    done = backed_up(tmp_path / "data", tmp_path / "b", earlier=str(tmp_path / "a"))
    log.close()
    assert done.kept == 0
    assert_well(tmp_path / "a")
    assert_well(tmp_path / "b")
    assert len(restored(tmp_path / "a", tmp_path / "from-a")) == 30


@pytest.mark.parametrize("files", [FILES, NoLinks()])
def test_what_happens_while_it_is_made(tmp_path: Path, files: OperatingSystemFiles) -> None:
    """Retention and compaction at every link and every opened file: a run of offsets up to the cut, nothing else."""
    for at in (5, 17, 29, 41):
        data, to = tmp_path / f"data{at}", tmp_path / f"a{at}"
        log = filled(data, retention_bytes=4000)
        every = {o: (o, c, p) for o, c, p in content(log)}
        calls = 0

        def meddle(call: str, path: str, at: int = at, log: Log = log, every: dict[int, Any] = every) -> None:
            nonlocal calls
            calls += 1
            if calls == at:
                for _ in range(12):
                    every[log.next_offset] = (log.next_offset, 3, b"")
                    append(log, 3)
                    log.enforce_retention()
                compacted(log)

        class Both(Interposed):
            def link(self, source: str, target: str) -> None:
                self.before("link", source)
                files.link(source, target)

        done = backed_up(data, to, Both(meddle))
        log.close()
        assert_well(to)
        facts = done.manifest.logs[0]
        assert facts.damaged == 0
        assert facts.records == facts.end_offset - facts.first_offset
        assert restored(to, tmp_path / f"new{at}")[-1][0] in every
        for one in (data, to, tmp_path / f"new{at}"):
            shutil.rmtree(one)


def test_incremental_backups_share_files_and_need_no_other(tmp_path: Path) -> None:
    log = filled(tmp_path / "data")
    expected, chain = [], []
    for name in "abcd":
        to = tmp_path / name
        done = backed_up(
            tmp_path / "data", to, NoLinksFrom(tmp_path / "data"), earlier=str(chain[-1]) if chain else None
        )
        assert done.linked == 0
        assert (done.kept > 0) is bool(chain)
        assert done.copied < 3000 or not chain
        chain.append(to)
        expected.append(content(log))
        for _ in range(7):
            append(log, 3)
    log.close()
    shutil.rmtree(chain[0])
    shutil.rmtree(chain[2])
    for at in (1, 3):
        assert_well(chain[at])
        assert restored(chain[at], tmp_path / f"new{at}") == expected[at]


class NoLinksFrom(OperatingSystemFiles):
    """The backups lie on one file system, the data on another."""

    def __init__(self, data: Path) -> None:
        self.data = str(data)

    def link(self, source: str, target: str) -> None:
        if source.startswith(self.data):
            raise OSError(errno.EXDEV, "another file system", source)
        super().link(source, target)


def test_damage_is_found_whatever_file_has_it(tmp_path: Path) -> None:
    log = filled(tmp_path / "data", frames=12)
    compacted(log)
    log.close()
    backed_up(tmp_path / "data", tmp_path / "a", link=False)
    held = verify(str(tmp_path / "a"), FILES).manifest.files
    assert len(held) > 6
    for one in held:
        path = tmp_path / "a" / one.path
        good = path.read_bytes()
        middle = len(good) // 2
        for bad in (None, good[:-1], good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]):
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            problems = verify(str(tmp_path / "a"), FILES).problems
            assert len(problems) == 1
            assert one.path in problems[0]
            with pytest.raises(Unavailable, match="nothing was restored"):
                restore(str(tmp_path / "a"), str(tmp_path / "new"), FILES)
            assert not (tmp_path / "new").exists()
            path.write_bytes(good)
    assert_well(tmp_path / "a")


def test_a_damaged_manifest_is_no_backup(tmp_path: Path) -> None:
    filled(tmp_path / "data", frames=3).close()
    backed_up(tmp_path / "data", tmp_path / "a")
    path = tmp_path / "a/MANIFEST.json"
    good = path.read_bytes()
    for bad in (good[:-10], good.replace(b'"records":9', b'"records":8'), b"{}", b"[]", b"", b"\xff"):
        assert bad != good
        path.write_bytes(bad)
        with pytest.raises(Unavailable, match="damaged"):
            verify(str(tmp_path / "a"), FILES)
    path.unlink()
    with pytest.raises(NotFound, match="no backup"):
        verify(str(tmp_path / "a"), FILES)


def test_damage_of_the_original_is_taken_along_and_told(tmp_path: Path) -> None:
    log = filled(tmp_path / "data")
    log.close()
    path = sorted((tmp_path / "data/traces").glob("*.log"))[1]
    path.write_bytes(path.read_bytes()[:200] + b"?" + path.read_bytes()[201:])
    done = backed_up(tmp_path / "data", tmp_path / "a")
    assert done.manifest.logs[0].damaged == 1
    assert_well(tmp_path / "a")


class Killed(BaseException):
    """The end of the process."""


def test_a_backup_that_was_killed_anywhere_is_none_and_is_made_again(tmp_path: Path) -> None:
    log = filled(tmp_path / "data", frames=10)
    before = content(log)
    to, at = tmp_path / "a", 0
    while True:
        at += 3
        left = at

        def die(call: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        try:
            backed_up(tmp_path / "data", to, Interposed(die))
        except Killed:
            if (to / "MANIFEST.json").exists():
                assert_well(to)
            else:
                with pytest.raises(NotFound):
                    verify(str(to), FILES)
            continue
        break
    log.close()
    assert at > 20
    assert_well(to)
    assert restored(to, tmp_path / "new") == before
    listed = {one.path for one in verify(str(to), FILES).manifest.files}
    assert {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()} == {*listed, "MANIFEST.json"}


def test_tenants_dead_letters_and_cursors_come_along_but_no_instance(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for place in ("tenants/red", "tenants/blue", "tenants/red/dead-letters/otlp"):
        filled(data / place, frames=4).close()
    filled(data / "tenants/red", frames=2, signal=LOGS).close()
    (data / "INSTANCE").write_text("0" * 32 + "\n")
    (data / "tenants/red/cursors/otlp+eu").mkdir(parents=True)
    path = data / "tenants/red/cursors/otlp+eu/traces.cursor"
    held = Cursor.open(str(path), TRACES, start=0, oldest=0, files=FILES, logger=RecordingLogger())
    held.put(State(7, (9,)), sync=True)
    held.put(State(8, (9, 10)), sync=False)
    done = backed_up(data, tmp_path / "a")
    held.close()
    assert {(one.place, one.signal, one.records) for one in done.manifest.logs} == {
        ("tenants/red", "traces", 12),
        ("tenants/blue", "traces", 12),
        ("tenants/red", "logs", 6),
        ("tenants/red/dead-letters/otlp", "traces", 12),
    }
    assert done.manifest.instance == "0" * 32
    restore(str(tmp_path / "a"), str(tmp_path / "new"), FILES)
    assert not (tmp_path / "new/INSTANCE").exists()
    found = tmp_path / "new" / path.relative_to(data)
    again = Cursor.open(str(found), TRACES, start=0, oldest=0, files=FILES, logger=RecordingLogger())
    assert (again.state, again.found) == (State(8, (9, 10)), "kept")
    again.close()
    restore(str(tmp_path / "a"), str(tmp_path / "anew"), FILES, cursors=False)
    assert not list((tmp_path / "anew").rglob("*.cursor"))
    assert list((tmp_path / "anew").rglob("dead-letters"))


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    filled(tmp_path / "data", frames=3).close()
    backed_up(tmp_path / "data", tmp_path / "a")
    with pytest.raises(Unavailable, match="not empty"):
        backed_up(tmp_path / "data", tmp_path / "a")
    with pytest.raises(Unavailable, match="not empty"):
        restore(str(tmp_path / "a"), str(tmp_path / "data"), FILES)
    for wrong in (tmp_path / "data/inside", tmp_path):
        with pytest.raises(Unavailable, match="outside"):
            backed_up(tmp_path / "data", wrong)
    with pytest.raises(NotFound):
        (tmp_path / "none").mkdir()
        backed_up(tmp_path / "none", tmp_path / "b")


def test_a_restore_that_was_killed_is_not_opened(tmp_path: Path) -> None:
    filled(tmp_path / "data", frames=10).close()
    backed_up(tmp_path / "data", tmp_path / "a")

    class Dies(OperatingSystemFiles):
        def rename(self, source: str, target: str) -> None:
            raise Killed

    with pytest.raises(Killed):
        restore(str(tmp_path / "a"), str(tmp_path / "new"), Dies())
    with pytest.raises(Unavailable, match="not finished"):
        require_restored(str(tmp_path / "new"))
    with pytest.raises(Unavailable, match="not finished"):
        restore(str(tmp_path / "a"), str(tmp_path / "new"), FILES)
    require_restored(str(tmp_path / "data"))


def test_an_empty_log_goes_on_where_it_was(tmp_path: Path) -> None:
    clock = FakeClock()
    log = filled(tmp_path / "data", retention_age_s=1.0, clock=clock, frames=4)
    append(log, 3, size=500)
    clock.pass_time(10)
    log.enforce_retention()
    first = log.first_offset
    assert first > 0
    backed_up(tmp_path / "data", tmp_path / "a")
    log.close()
    assert restored(tmp_path / "a", tmp_path / "new")[0][0] == first
    assert os.path.isdir(tmp_path / "new/traces")


def test_what_was_deleted_stays_so(tmp_path: Path) -> None:
    files = OperatingSystemFiles()
    data, target, new = (str(tmp_path / name) for name in ("data", "backup", "new"))
    log = open_log(files, directory=data, segment_bytes=4000)
    for seed in range(8):
        log.append([otlp.traces(5, seed=seed)], 5, seed, seed)
    log.deletions.add(Tombstones([(2, 4), (38, 40)]), 0, 40, ["ab"], ["sqlite"])
    back_up(data, target, files, now_ns=1, logger=RecordingLogger())
    log.close()
    assert not verify(target, files).problems
    restore(target, new, files)
    again = open_log(files, directory=new, segment_bytes=4000)
    assert (again.next_offset, again.deletions.hidden, again.deletions.pending) == (40, log.deletions.hidden, ())
    assert sum(block.count for block in again.blocks()) == 36
    again.close()
