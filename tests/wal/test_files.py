"""The files seam: the helpers on it, both implementations against each other, and the model of a power cut."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.testing.files import (
    CUT,
    SHORT,
    Fate,
    FaultyFiles,
    MemoryFiles,
    PowerCut,
    keep_all,
    lose_all,
    random_fates,
)
from collector.wal.files import (
    PIECES_MAX,
    Files,
    OperatingSystemFiles,
    make_directories,
    read_fully,
    replace_file,
    write_fully,
)


def put(files: Files, path: str, data: bytes, *, sync: bool = True) -> None:
    """Write a new file, with or without making its bytes durable."""
    handle = files.open(path, create=True)
    write_fully(files, handle, [data], 0)
    if sync:
        files.fdatasync(handle)
    files.close(handle)


def get(files: Files, path: str) -> bytes:
    """Read a file whole."""
    handle = files.open(path)
    data = read_fully(files, handle, files.size(handle), 0)
    files.close(handle)
    return data


@pytest.fixture(params=["system", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Files, str]:
    """An implementation and a directory in it."""
    if request.param == "system":
        return OperatingSystemFiles(), str(tmp_path)
    files = MemoryFiles()
    make_directories(files, "/a")
    return files, "/a"


def test_a_file_reads_back_as_written(place: tuple[Files, str]) -> None:
    files, at = place
    handle = files.open(f"{at}/x", create=True)
    assert files.pwritev(handle, [b"hello ", memoryview(b"world")], 3) == 11
    assert files.pread(handle, 100, 0) == b"\0\0\0hello world"
    files.allocate(handle, 14, 6)
    assert files.size(handle) == 20
    files.allocate(handle, 0, 5)
    assert files.size(handle) == 20
    files.truncate(handle, 6)
    assert files.pread(handle, 100, 0) == b"\0\0\0hel"
    assert files.pread(handle, 100, 6) == b""
    files.fdatasync(handle)
    files.close(handle)


def test_names_change_as_told(place: tuple[Files, str]) -> None:
    files, at = place
    put(files, f"{at}/x", b"x")
    put(files, f"{at}/y", b"y")
    with pytest.raises(FileExistsError):
        files.open(f"{at}/x", create=True)
    files.rename(f"{at}/x", f"{at}/y")
    assert files.listdir(at) == ["y"]
    assert get(files, f"{at}/y") == b"x"
    files.unlink(f"{at}/y")
    for missing in (
        lambda: files.open(f"{at}/y"),
        lambda: files.unlink(f"{at}/y"),
        lambda: files.listdir(f"{at}/z"),
    ):
        with pytest.raises(FileNotFoundError):
            missing()
    files.fsync_directory(at)


def test_a_lock_is_held_by_one_handle(place: tuple[Files, str]) -> None:
    files, at = place
    put(files, f"{at}/x", b"")
    first, second = files.open(f"{at}/x", write=True), files.open(f"{at}/x", write=True)
    assert files.lock(first)
    assert not files.lock(second)
    files.close(first)
    assert files.lock(second)
    files.close(second)


def test_an_open_file_outlives_its_name(place: tuple[Files, str]) -> None:
    files, at = place
    put(files, f"{at}/x", b"still here")
    handle = files.open(f"{at}/x")
    files.unlink(f"{at}/x")
    assert files.pread(handle, 100, 0) == b"still here"
    files.close(handle)


def test_directories_are_made_with_their_parents_and_twice(place: tuple[Files, str]) -> None:
    files, at = place
    for _ in range(2):
        make_directories(files, f"{at}/b/c/d")
    assert files.listdir(f"{at}/b/c") == ["d"]


@pytest.mark.parametrize("error", [errno.EACCES, errno.EROFS])
def test_a_parent_that_is_not_ours_to_sync_is_no_obstacle(error: int) -> None:
    memory = MemoryFiles()
    make_directories(memory, "/a/b")
    make_directories(FaultyFiles(memory, {"fsync_directory"}, 2, error), "/a/b/c")
    assert memory.listdir("/a/b") == ["c"]
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        make_directories(FaultyFiles(memory, {"fsync_directory"}, 2), "/a/b/c")


def test_many_pieces_are_written_in_several_calls(place: tuple[Files, str]) -> None:
    files, at = place
    pieces = [b"%d," % n for n in range(PIECES_MAX + 10)]
    handle = files.open(f"{at}/x", create=True)
    write_fully(files, handle, pieces, 0)
    assert get(files, f"{at}/x") == b"".join(pieces)
    files.close(handle)


@given(st.lists(st.binary(max_size=5), max_size=6), st.integers(0, 4))
def test_short_writes_are_continued(pieces: list[bytes], position: int) -> None:
    files = FaultyFiles(MemoryFiles(), {"pwritev"}, 1, SHORT, None)
    handle = files.open("/x", create=True)
    write_fully(files, handle, pieces, position)
    data = b"".join(pieces)
    assert get(files, "/x") == (bytes(position) + data if data else b"")


def test_short_reads_are_continued() -> None:
    files = FaultyFiles(MemoryFiles(), {"pread"}, 1, SHORT, None)
    put(files, "/x", b"0123456789")
    assert get(files, "/x") == b"0123456789"
    handle = files.open("/x")
    assert read_fully(files, handle, 100, 4) == b"456789"


def test_a_write_without_progress_is_an_error() -> None:
    class Stuck(MemoryFiles):
        def pwritev(self, handle: int, pieces: object, position: int, *, sync: bool = False) -> int:
            return 0

    files = Stuck()
    handle = files.open("/x", create=True)
    with pytest.raises(OSError, match="no progress"):
        write_fully(files, handle, [b"a"], 0)


def test_replacing_a_file_is_all_or_nothing() -> None:
    """Whatever call fails, and whatever the power cut then loses, the file is the old one or the new one."""
    for at in range(1, 100):
        memory = MemoryFiles()
        put(memory, "/x", b"old")
        memory.fsync_directory("/")
        files = FaultyFiles(memory, {"open", "pwritev", "fdatasync", "rename", "unlink"}, at, CUT)
        try:
            replace_file(files, "/x", b"new!")
        except PowerCut:
            pass
        for seed in range(20):
            assert get(memory.after_power_cut(random_fates(random.Random(seed))), "/x") in (b"old", b"new!")
        if not files.reached:
            break
    else:
        pytest.fail("the calls never ended")


operations = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 2000), st.binary(min_size=1, max_size=1500)),
    st.tuples(st.just("truncate"), st.integers(0, 3000)),
    st.tuples(st.just("allocate"), st.integers(0, 2000), st.integers(1, 2000)),
    st.tuples(st.just("sync")),
)


@settings(max_examples=50)
@given(steps=st.lists(operations, max_size=8))
def test_both_implementations_agree(steps: list[tuple], tmp_path_factory: pytest.TempPathFactory) -> None:
    contents = []
    for files, path in (
        (OperatingSystemFiles(), str(tmp_path_factory.mktemp("f") / "x")),
        (MemoryFiles(), "/x"),
    ):
        handle = files.open(path, create=True)
        for name, *arguments in steps:
            if name == "write":
                files.pwritev(handle, [arguments[1]], arguments[0])
            elif name == "truncate":
                files.truncate(handle, arguments[0])
            elif name == "allocate":
                files.allocate(handle, *arguments)
            else:
                files.fdatasync(handle)
        contents.append(get(files, path))
        files.close(handle)
    assert contents[0] == contents[1]


def test_power_cut_loses_what_was_not_synced() -> None:
    files = MemoryFiles()
    put(files, "/synced", b"data")
    put(files, "/dirty", b"data", sync=False)
    files.fsync_directory("/")
    put(files, "/nameless", b"data")
    handle = files.open("/synced", write=True)
    files.pwritev(handle, [b"more"], 4)
    after = files.after_power_cut(lose_all)
    assert sorted(after.listdir("/")) == ["dirty", "synced"]
    assert get(after, "/synced") == b"data"
    assert get(after, "/dirty") == b""
    lucky = files.after_power_cut(keep_all)
    assert get(lucky, "/synced") == b"datamore"
    assert get(lucky, "/nameless") == b"data"
    assert get(files, "/synced") == b"datamore", "asking changes nothing"


def test_power_cut_tears_a_write_by_sectors() -> None:
    files = MemoryFiles()
    put(files, "/x", bytes(1600))
    files.fsync_directory("/")
    handle = files.open("/x", write=True)
    files.pwritev(handle, [b"a" * 1200], 300)
    after = files.after_power_cut(lambda n: [Fate.KEPT, Fate.LOST, Fate.GARBAGE][:n])
    torn = get(after, "/x")
    assert torn[:512] == bytes(300) + b"a" * 212
    assert torn[512:1024] == bytes(512)
    assert torn[1024:1500] == bytes([0x61 ^ 0xA5]) * 476
    assert torn[1500:] == bytes(100), "what was synced stays, also in a sector that was written to"


def test_power_cut_may_lose_a_directory_with_all_below() -> None:
    files = MemoryFiles()
    files.mkdir("/d")
    put(files, "/d/x", b"data")
    files.fsync_directory("/d")
    assert files.after_power_cut(lose_all).listdir("/") == []
    files.fsync_directory("/")
    assert get(files.after_power_cut(lose_all), "/d/x") == b"data"


def test_a_failed_sync_is_not_made_good_by_the_next() -> None:
    memory = MemoryFiles()
    files = FaultyFiles(memory, {"fdatasync"}, 1)
    handle = files.open("/x", create=True)
    files.fsync_directory("/")
    files.pwritev(handle, [b"data"], 0)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        files.fdatasync(handle)
    files.fdatasync(handle)
    assert get(memory, "/x") == b"data"
    assert get(memory.after_power_cut(keep_all), "/x") == b""


def test_faults_meet_the_call_they_were_meant_for() -> None:
    files = FaultyFiles(MemoryFiles(), {"pwritev"}, 2, errno.ENOSPC, None)
    handle = files.open("/x", create=True)
    assert files.pwritev(handle, [b"ab"], 0) == 2
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            files.pwritev(handle, [b"cd"], 2)
    assert files.pread(handle, 10, 0) == b"abc", "half of a failing write has happened"
    files.repair()
    assert files.pwritev(handle, [b"cd"], 2) == 2
    files = FaultyFiles(MemoryFiles(), {"open"}, 1, CUT)
    for call in (lambda: files.open("/x", create=True), lambda: files.listdir("/")):
        with pytest.raises(PowerCut):
            call()


def test_a_synced_write_makes_itself_durable_and_older_writes_not() -> None:
    files = MemoryFiles()
    handle = files.open("/x", create=True)
    files.fsync_directory("/")
    files.pwritev(handle, [b"aaaaaaaaaa"], 0)
    files.pwritev(handle, [b"bbb"], 3, sync=True)
    assert get(files, "/x") == b"aaabbbaaaa"
    assert get(files.after_power_cut(lose_all), "/x") == b"\0\0\0bbb"
    assert get(files.after_power_cut(keep_all), "/x") == b"aaabbbaaaa"
    files.truncate(handle, 4)
    files.pwritev(handle, [b"c"], 1, sync=True)
    assert get(files.after_power_cut(lose_all), "/x") == b"\0c\0b"
    failing = FaultyFiles(files, {"fdatasync"}, 1)
    with pytest.raises(OSError, match="Input/output"):
        failing.pwritev(handle, [b"dddd"], 0, sync=True)
    assert get(files, "/x") == b"dddd"
    assert get(files.after_power_cut(keep_all), "/x") == b"\0c\0b", "Linux takes what could not be written for clean"


def test_a_synced_write_of_the_operating_system(tmp_path: Path) -> None:
    files = OperatingSystemFiles()
    handle = files.open(f"{tmp_path}/x", create=True)
    write_fully(files, handle, [b"ab", b"cd"], 1, sync=True)
    assert files.pread(handle, 10, 0) == b"\0abcd"
    files.close(handle)
