"""Files that lose power and files that fail, for testing whatever keeps data through `collector.wal.files.Files`.

`MemoryFiles` is a file system in memory that keeps two truths: what programs see, and what would survive a power
cut. A write, a truncation or an allocation survives once `fdatasync` of its file has returned; the creation,
renaming or removal of a name once `fsync_directory` of its directory has. Everything later is *pending*, and
`after_power_cut` gives the file system as it may be found afterwards: each pending change, on its own, has
happened, has not happened, or (a write) has happened in some of its 512-byte sectors, with garbage in others.

Assumptions, as SQLite's crash tests name them: what was synced stays as it was, also in a sector that an unsynced
write touches, or writes again as it was (power-safe overwrite: page caches write whole pages, too); a rename is one
step. More would be unfair to any program.

`FaultyFiles` wraps any `Files` and makes chosen calls fail: the k-th of some operations raises an errno, writes
short, or cuts the power. Running a program with k = 1, 2, … until `reached` stays False visits every place where
it can fail. A failed `fdatasync` behaves as Linux does: what was dirty counts as clean afterwards, so a second
call succeeds and nothing more is durable than before.
"""

from __future__ import annotations

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from collector.wal.files import BLOCK_BYTES, PIECES_MAX, Files

SECTOR_BYTES: Final = 512


class Fate(Enum):
    """What became of one sector of a pending change when the power went."""

    KEPT = "kept"
    LOST = "lost"
    GARBAGE = "garbage"


Fates = Callable[[int], Sequence[Fate]]
"""Given the number of sectors of a pending change, the fate of each. Changes of names and sizes have one."""


def lose_all(sectors: int) -> Sequence[Fate]:
    """Nothing survives that was not synced."""
    return [Fate.LOST] * sectors


def keep_all(sectors: int) -> Sequence[Fate]:
    """Everything survives, as when a process is killed and the machine goes on."""
    return [Fate.KEPT] * sectors


def random_fates(source: random.Random) -> Fates:
    """Changes survive, vanish or tear at random, the same way for the same seed."""

    def fates(sectors: int) -> Sequence[Fate]:
        style = source.randrange(4)
        if style == 0:
            return lose_all(sectors)
        if style == 1:
            return keep_all(sectors)
        if style == 2:
            kept = source.randint(0, sectors)
            return [*keep_all(kept), *lose_all(sectors - kept)]
        return source.choices(list(Fate), k=sectors)

    return fates


@dataclass(slots=True, eq=False)
class _Write:
    position: int
    data: bytes


@dataclass(slots=True, eq=False)
class _Resize:
    size: int
    grow_only: bool


@dataclass(slots=True, eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[_Write | _Resize] = field(default_factory=list)
    locked_by: int | None = None

    def change(self, change: _Write | _Resize) -> None:
        _apply(self.content, change)
        self.pending.append(change)

    def settle_newest_write(self) -> None:
        """Make the newest change durable, which is a write, and of older writes what it does not cover pending."""
        newest = self.pending.pop()
        assert isinstance(newest, _Write)
        older, self.pending = self.pending, []
        for change in older:
            if isinstance(change, _Resize):
                _apply(self.durable, change)
            else:
                self.pending += _outside(change, newest)
        _apply(self.durable, newest)


@dataclass(slots=True, eq=False)
class _Directory:
    names: dict[str, _File | _Directory] = field(default_factory=dict)
    durable: dict[str, _File | _Directory] = field(default_factory=dict)
    pending: list[dict[str, _File | _Directory | None]] = field(default_factory=list)

    def change(self, change: dict[str, _File | _Directory | None]) -> None:
        _rename(self.names, change)
        self.pending.append(change)


@dataclass(slots=True, eq=False)
class _Open:
    file: _File
    writable: bool
    direct: bool


class MemoryFiles:
    """`Files` in memory, with a model of what a power cut leaves. Not for use by several threads that write."""

    def __init__(self) -> None:
        self._root = _Directory()
        self._open: dict[int, _Open] = {}
        self._next_handle = 1000

    # What only a test can do

    def contents(self, path: str) -> bytes:
        """A file's bytes as programs see them. Raises FileNotFoundError."""
        return bytes(self._file(path).content)

    def put(self, path: str, data: bytes) -> None:
        """Create or replace a file's bytes, durably, as a careless operator or a failing disk would."""
        parent, name = self._parent(path)
        file = _File(bytearray(data), bytearray(data))
        parent.names[name] = parent.durable[name] = file

    def lose_dirty(self, handle: int) -> None:
        """Take the file's unsynced bytes for clean, as Linux does after a failed fsync: they can still be read,
        and are gone after a power cut, whatever is synced later."""
        self._open[handle].file.pending.clear()

    @property
    def open_handles(self) -> int:
        """How many handles have not been closed."""
        return len(self._open)

    def after_power_cut(self, fates: Fates) -> MemoryFiles:
        """The file system as found after the power went now. This one is not changed."""
        found = MemoryFiles()
        found._root = _survivor(self._root, fates, {})
        return found

    # Files

    def open(self, path: str, *, write: bool = False, create: bool = False, direct: bool = False) -> int:
        """See `Files.open`."""
        parent, name = self._parent(path)
        if create:
            if name in parent.names:
                raise FileExistsError(errno.EEXIST, "exists", path)
            parent.change({name: _File()})
        self._next_handle += 1
        self._open[self._next_handle] = _Open(self._file(path), write or create, direct)
        return self._next_handle

    def close(self, handle: int) -> None:
        """See `Files.close`."""
        file = self._opened(handle).file
        if file.locked_by == handle:
            file.locked_by = None
        del self._open[handle]

    def pread(self, handle: int, length: int, position: int) -> bytes:
        """See `Files.pread`."""
        opened = self._opened(handle)
        if opened.direct:
            raise OSError(errno.EINVAL, "reading through a handle for direct writes")
        return bytes(opened.file.content[position : position + length])

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        """See `Files.pwritev`. What a synced write covers is durable, and no more, but sizes set before it."""
        opened = self._opened(handle)
        if not opened.writable or len(pieces) > PIECES_MAX:
            raise OSError(errno.EBADF if not opened.writable else errno.EINVAL, "not so")
        data = b"".join(pieces)
        if opened.direct and (position % BLOCK_BYTES or len(data) % BLOCK_BYTES):
            raise OSError(errno.EINVAL, "a direct write of something else than blocks")
        if data:
            opened.file.change(_Write(position, data))
            if sync:
                opened.file.settle_newest_write()
        return len(data)

    def fdatasync(self, handle: int) -> None:
        """See `Files.fdatasync`."""
        file = self._opened(handle).file
        for change in file.pending:
            _apply(file.durable, change)
        file.pending.clear()

    def release(self, handle: int, position: int, length: int) -> None:
        """See `Files.release`: there is no cache here."""

    def allocate(self, handle: int, position: int, length: int) -> None:
        """See `Files.allocate`."""
        self._opened(handle).file.change(_Resize(position + length, grow_only=True))

    def truncate(self, handle: int, size: int) -> None:
        """See `Files.truncate`."""
        self._opened(handle).file.change(_Resize(size, grow_only=False))

    def size(self, handle: int) -> int:
        """See `Files.size`."""
        return len(self._opened(handle).file.content)

    def names(self, handle: int) -> int:
        """See `Files.names`; links lie within one directory."""
        file = self._opened(handle).file
        pending, found = [self._root], 0
        while pending:
            for one in pending.pop().names.values():
                found += one is file
                if isinstance(one, _Directory):
                    pending.append(one)
        return found

    def lock(self, handle: int) -> bool:
        """See `Files.lock`."""
        file = self._opened(handle).file
        if file.locked_by not in (None, handle):
            return False
        file.locked_by = handle
        return True

    def listdir(self, path: str) -> list[str]:
        """See `Files.listdir`: in an order that nobody should rely on."""
        return sorted(self._directory(path).names, reverse=True)

    def mkdir(self, path: str) -> None:
        """See `Files.mkdir`."""
        parent, name = self._parent(path)
        if name in parent.names:
            raise FileExistsError(errno.EEXIST, "exists", path)
        parent.change({name: _Directory()})

    def rename(self, source: str, target: str) -> None:
        """See `Files.rename`; within one directory."""
        parent, name = self._parent(source)
        other, new_name = self._parent(target)
        if other is not parent:
            raise OSError(errno.EXDEV, "another directory", target)
        parent.change({name: None, new_name: self._file(source)})

    def link(self, source: str, target: str) -> None:
        """See `Files.link`; within one directory."""
        parent, name = self._parent(target)
        if self._parent(source)[0] is not parent:
            raise OSError(errno.EXDEV, "another directory", target)
        if name in parent.names:
            raise FileExistsError(errno.EEXIST, "exists", target)
        parent.change({name: self._file(source)})

    def unlink(self, path: str) -> None:
        """See `Files.unlink`."""
        parent, name = self._parent(path)
        self._file(path)
        parent.change({name: None})

    def fsync_directory(self, path: str) -> None:
        """See `Files.fsync_directory`."""
        directory = self._directory(path)
        directory.durable = dict(directory.names)
        directory.pending.clear()

    # Looking up

    def _directory(self, path: str) -> _Directory:
        at = self._root
        for name in os.path.abspath(path).split("/"):
            if name:
                node = at.names.get(name)
                if node is None:
                    raise FileNotFoundError(errno.ENOENT, "no such directory", path)
                if not isinstance(node, _Directory):
                    raise NotADirectoryError(errno.ENOTDIR, "not a directory", path)
                at = node
        return at

    def _parent(self, path: str) -> tuple[_Directory, str]:
        path = os.path.abspath(path)
        return self._directory(os.path.dirname(path)), os.path.basename(path)

    def _file(self, path: str) -> _File:
        parent, name = self._parent(path)
        node = parent.names.get(name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        if not isinstance(node, _File):
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        return node

    def _opened(self, handle: int) -> _Open:
        opened = self._open.get(handle)
        if opened is None:
            raise OSError(errno.EBADF, "not an open handle")
        return opened


def _apply(content: bytearray, change: _Write | _Resize) -> None:
    if isinstance(change, _Resize):
        if len(content) < change.size:
            content.extend(bytes(change.size - len(content)))
        elif not change.grow_only:
            del content[change.size :]
        return
    if len(content) < change.position:
        content.extend(bytes(change.position - len(content)))
    content[change.position : change.position + len(change.data)] = change.data


def _outside(older: _Write, newer: _Write) -> list[_Write]:
    """What is left of a write where a newer one does not cover it."""
    left = older.data[: max(0, newer.position - older.position)]
    after = newer.position + len(newer.data)
    right = older.data[max(0, after - older.position) :]
    parts = [_Write(older.position, left), _Write(max(after, older.position), right)]
    return [part for part in parts if part.data]


def _rename(names: dict[str, _File | _Directory], change: dict[str, _File | _Directory | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


def _survivor(directory: _Directory, fates: Fates, seen: dict[int, _File | _Directory]) -> _Directory:
    """A directory after the power cut, with all below it. Depth is that of the tree the test has built."""
    names = dict(directory.durable)
    for change in directory.pending:
        if fates(1)[0] is Fate.KEPT:
            _rename(names, change)
    made = _Directory()
    for name, node in names.items():
        if id(node) not in seen:
            seen[id(node)] = (
                _survivor(node, fates, seen) if isinstance(node, _Directory) else _surviving_file(node, fates)
            )
        made.names[name] = made.durable[name] = seen[id(node)]
    return made


def _surviving_file(file: _File, fates: Fates) -> _File:
    content = bytearray(file.durable)
    for change in file.pending:
        if isinstance(change, _Resize):
            if fates(1)[0] is Fate.KEPT:
                _apply(content, change)
            continue
        first = change.position // SECTOR_BYTES
        sectors = (change.position + len(change.data) - 1) // SECTOR_BYTES + 1 - first
        for number, fate in enumerate(fates(sectors), first):
            start = max(number * SECTOR_BYTES, change.position) - change.position
            part = change.data[start : (number + 1) * SECTOR_BYTES - change.position]
            if fate is Fate.GARBAGE:
                at = change.position + start
                part = _torn(part, bytes(content[at : at + len(part)]))
            if fate is not Fate.LOST:
                _apply(content, _Write(change.position + start, part))
    return _File(content, bytearray(content))


def _torn(part: bytes, before: bytes) -> bytes:
    """What is left of a sector that was being written: garbage, but where the write would have changed nothing."""
    before += bytes(len(part) - len(before))
    return bytes(new if new == old else new ^ 0xA5 for new, old in zip(part, before, strict=True))


class PowerCut(BaseException):
    """The machine stops here. Not an Exception: nothing may handle it but the test."""


SHORT: Final = -1
"""In place of an errno: the write does half of its work and says so."""
CUT: Final = -2
"""In place of an errno: the power goes before the call has any effect."""

WRITING: Final = frozenset(
    {"open", "pwritev", "fdatasync", "allocate", "truncate", "mkdir", "rename", "link", "unlink", "fsync_directory"}
)
"""The operations that can change something."""
READING: Final = frozenset({"open", "pread", "size", "listdir"})


class FaultyFiles:
    """`Files` around others, of which chosen calls fail.

    Counting only calls of `operations`, the call with number `at` (from 1) fails with `error`: an errno, SHORT or
    CUT. With `count` None every later call fails too, until `repair`. A failing write has written half of its
    bytes. After a CUT every call cuts: the machine is off.
    """

    def __init__(
        self,
        inner: Files,
        operations: Collection[str] = (),
        at: int = 0,
        error: int = errno.EIO,
        count: int | None = 1,
    ) -> None:
        self.inner = inner
        self.calls: Counter[str] = Counter()
        """How often each operation was called."""
        self.bytes_read = 0
        self.reached = False
        """Whether a call has failed."""
        self._operations = frozenset(operations)
        self._at = at
        self._error = error
        self._left = count
        self._matching = 0
        self._off = False

    def repair(self) -> None:
        """From now on nothing fails."""
        self._operations = frozenset()

    def _fault(self, operation: str) -> int | None:
        """Count a call; the error that it must meet, if any."""
        self.calls[operation] += 1
        if self._off:
            raise PowerCut
        if operation not in self._operations:
            return None
        self._matching += 1
        if self._matching < self._at or self._left == 0:
            return None
        if self._left is not None:
            self._left -= 1
        self.reached = True
        if self._error == CUT:
            self._off = True
            raise PowerCut
        return self._error

    def _check(self, operation: str, path: str = "") -> None:
        error = self._fault(operation)
        if error is not None and error != SHORT:
            raise OSError(error, os.strerror(error), path)

    def open(self, path: str, *, write: bool = False, create: bool = False, direct: bool = False) -> int:
        """See `Files.open`."""
        self._check("open", path)
        return self.inner.open(path, write=write, create=create, direct=direct)

    def close(self, handle: int) -> None:
        """See `Files.close`."""
        self._check("close")
        self.inner.close(handle)

    def pread(self, handle: int, length: int, position: int) -> bytes:
        """See `Files.pread`. A short read gives half."""
        error = self._fault("pread")
        if error == SHORT:
            length = (length + 1) // 2
        elif error is not None:
            raise OSError(error, os.strerror(error))
        data = self.inner.pread(handle, length, position)
        self.bytes_read += len(data)
        return data

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        """See `Files.pwritev`. A synced write is a write, and then an `fdatasync`, which may fail, too."""
        error = self._fault("pwritev")
        if error is None:
            written = self.inner.pwritev(handle, pieces, position)
            if sync:
                self._fail_sync(handle)
                self.inner.pwritev(handle, pieces, position, sync=True)
            return written
        data = b"".join(pieces)
        half = (len(data) + 1) // 2
        if len(data) > BLOCK_BYTES:
            half -= half % BLOCK_BYTES  # as a direct write would
        elif position % BLOCK_BYTES == 0 and len(data) == BLOCK_BYTES:
            half = 0 if error != SHORT else BLOCK_BYTES
        written = self.inner.pwritev(handle, [data[:half]], position)
        if error != SHORT:
            raise OSError(error, os.strerror(error))
        return written

    def fdatasync(self, handle: int) -> None:
        """See `Files.fdatasync`."""
        self._fail_sync(handle)
        self.inner.fdatasync(handle)

    def _fail_sync(self, handle: int) -> None:
        error = self._fault("fdatasync")
        if error is not None:
            if isinstance(self.inner, MemoryFiles):
                self.inner.lose_dirty(handle)
            raise OSError(error, os.strerror(error))

    def release(self, handle: int, position: int, length: int) -> None:
        """See `Files.release`."""
        self.inner.release(handle, position, length)

    def allocate(self, handle: int, position: int, length: int) -> None:
        """See `Files.allocate`."""
        self._check("allocate")
        self.inner.allocate(handle, position, length)

    def truncate(self, handle: int, size: int) -> None:
        """See `Files.truncate`."""
        self._check("truncate")
        self.inner.truncate(handle, size)

    def size(self, handle: int) -> int:
        """See `Files.size`."""
        self._check("size")
        return self.inner.size(handle)

    def names(self, handle: int) -> int:
        """See `Files.names`."""
        self._check("names")
        return self.inner.names(handle)

    def lock(self, handle: int) -> bool:
        """See `Files.lock`."""
        self._check("lock")
        return self.inner.lock(handle)

    def listdir(self, path: str) -> list[str]:
        """See `Files.listdir`."""
        self._check("listdir", path)
        return self.inner.listdir(path)

    def mkdir(self, path: str) -> None:
        """See `Files.mkdir`."""
        self._check("mkdir", path)
        self.inner.mkdir(path)

    def rename(self, source: str, target: str) -> None:
        """See `Files.rename`."""
        self._check("rename", source)
        self.inner.rename(source, target)

    def link(self, source: str, target: str) -> None:
        """See `Files.link`."""
        self._check("link", source)
        self.inner.link(source, target)

    def unlink(self, path: str) -> None:
        """See `Files.unlink`."""
        self._check("unlink", path)
        self.inner.unlink(path)

    def fsync_directory(self, path: str) -> None:
        """See `Files.fsync_directory`."""
        self._check("fsync_directory", path)
        self.inner.fsync_directory(path)
