"""A backup of a data directory: a directory like it, beside which a daemon may run, or none.

For each log, its cut comes first: the active segment is read frame by frame, synced, and copied up to the end of its last
whole frame. Then the sealed segments get second names in the backup (hard links), the newest first: retention removes the
oldest first, so when one is gone, so are all before it, and what the backup has is one run of offsets without a hole.
Compaction replaces a segment's file by another with the same records: the backup has either. Both leave a file alone that
has a second name (writer.py), so nothing in a backup is ever written over. A backup on another file system holds copies: a
copy counts only if the segment's name still stood for the same nonce afterwards.

Cursors are read before the logs are cut, so they never lie behind a cut. INSTANCE stays out: what is restored gives out
the offsets behind the cut again, for other records, and must not export them under the same keys; so it is an instance of
its own. Indexes are made anew, from what is in the backup; a key index is taken along.
What was deleted goes into the backup as it is hidden, and its bytes, too, where no compaction has erased them yet.

Incremental: segments that an earlier backup has (the same name, nonce and size) are linked from there. Each backup is
whole by itself; any earlier one may be removed.

Every file is read through once, by its frames and for its checksum, except those of the earlier backup. Damage of the
original is taken along as it is, and counted. Memory: a frame, a chunk of a file, and the manifest.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, Final

import msgspec

from collector import __version__
from collector.errors import NotFound, Unavailable
from collector.exporters.dead_letters import DIRECTORY as DEAD_LETTERS
from collector.exporters.instance import NAME as INSTANCE
from collector.exporters.places import CURSOR_SUFFIX, CURSORS
from collector.moving import manifest
from collector.moving.manifest import File, LogFacts, Manifest, checksum, copy
from collector.otlp.signals import BY_NAME, SIGNALS, Signal
from collector.tenants import DIRECTORY as TENANTS
from collector.wal import cursor, deletions
from collector.wal.deletions import NAME as DELETED
from collector.wal.deletions import hidden_of
from collector.wal.files import Files, make_directories, read_file, replace_file
from collector.wal.pruning import key_index_state
from collector.wal.recovery import FoundSegment, find_segment, find_segments, index_path, keys_path, scan, write_index

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.wal.segment import Segment

ATTEMPTS: Final = 10
"""How often a log is listed anew whose active segment has gone."""
_NO_LINK: Final = frozenset(
    {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
)
"""Why a file gets no second name here, and is copied."""


class Done(msgspec.Struct):
    """What making a backup took."""

    manifest: Manifest
    linked: int = 0
    """Bytes of files that share their blocks with the data directory's."""
    kept: int = 0
    """Bytes of files that the earlier backup has."""
    copied: int = 0


def back_up(
    data: str,
    target: str,
    files: Files,
    *,
    now_ns: int,
    logger: Any,
    earlier: str | None = None,
    link: bool = True,
    tell: Callable[[str, int], None] = lambda _, __: None,
) -> Done:
    """Back up the data directory `data` to `target`: a new or empty directory, or where a backup was not finished.

    `earlier` is a backup to share files with; with `link` false, none are shared with `data`. `tell` is called with the
    path and size of each file. Raises Unavailable, NotFound where there is no log, UnsupportedFormat.
    """
    inside = os.path.realpath(target) + os.sep
    if inside.startswith(os.path.realpath(data) + os.sep) or (os.path.realpath(data) + os.sep).startswith(inside):
        raise Unavailable("a backup lies outside of the data directory, and not around it")
    known = {one.path: one for one in manifest.read(files, earlier).files} if earlier is not None else {}
    try:
        places = _places(files, data)
        _begin(files, target)
        run = _Run(data, target, files, earlier, known, link, tell, logger)
        for place in places:
            run.cursors(place)
        logs = [found for place in places for signal in SIGNALS if (found := run.log(place, signal)) is not None]
        if not logs:
            raise NotFound(f"{data} holds no log")
        run.sweep()
        made = Manifest(manifest.FORMAT, __version__, now_ns, _instance(files, data), logs, run.found)
        manifest.write(files, target, made)
        files.unlink(os.path.join(target, manifest.INCOMPLETE))
        files.fsync_directory(target)
    except OSError as error:
        raise Unavailable(f"the backup was not finished: {error}") from error
    run.done.manifest = made
    return run.done


def _begin(files: Files, target: str) -> None:
    make_directories(files, target)
    names = set(files.listdir(target))
    if names and manifest.INCOMPLETE not in names:
        raise Unavailable(f"{target} is not empty; a backup is made in a new directory")
    if manifest.NAME in names:
        files.unlink(os.path.join(target, manifest.NAME))
    replace_file(files, os.path.join(target, manifest.INCOMPLETE), b"ringtail backup was not finished here\n")
    files.fsync_directory(target)


def _instance(files: Files, data: str) -> str:
    try:
        return read_file(files, os.path.join(data, INSTANCE), 64).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return ""


def _names(files: Files, path: str) -> list[str]:
    try:
        return sorted(files.listdir(path))
    except (FileNotFoundError, NotADirectoryError):
        return []


def _places(files: Files, data: str) -> list[str]:
    """Return where logs lie, below the data directory."""
    files.listdir(data)
    own = ["", *(f"{TENANTS}/{name}" for name in _names(files, os.path.join(data, TENANTS)))]
    found = []
    for place in own:
        letters = os.path.join(place, DEAD_LETTERS)
        found += [place, *(f"{letters}/{name}" for name in _names(files, os.path.join(data, letters)))]
    return found


class _Run:
    """One backup under way."""

    def __init__(
        self,
        data: str,
        target: str,
        files: Files,
        earlier: str | None,
        known: dict[str, File],
        link: bool,
        tell: Callable[[str, int], None],
        logger: Any,
    ) -> None:
        self.done = Done(Manifest(0, "", 0, "", [], []))
        self.found: list[File] = []
        self._data, self._target, self._earlier = data, target, earlier
        self._files = files
        self._known = known
        self._link = link
        self._tell = tell
        self._logger = logger
        self._directories: set[str] = set()

    def cursors(self, place: str) -> None:
        """Take the cursors of a place along."""
        base = os.path.join(place, CURSORS)
        for exporter in _names(self._files, os.path.join(self._data, base)):
            for name in _names(self._files, os.path.join(self._data, base, exporter)):
                signal = BY_NAME.get(name.removesuffix(CURSOR_SUFFIX))
                if signal is None or not name.endswith(CURSOR_SUFFIX):
                    continue
                path = os.path.join(base, exporter, name)
                found = cursor.copied(os.path.join(self._data, path), signal, self._files)
                if found is None:
                    self._logger.warning("cursor damaged, and left out", path=path)
                    continue
                self._prepare(os.path.join(base, exporter))
                replace_file(self._files, os.path.join(self._target, path), found[1])
                self.done.copied += len(found[1])
                self._add(path, len(found[1]))

    def log(self, place: str, signal: Signal) -> LogFacts | None:
        """Back up one log; None where there is none."""
        directory = os.path.join(place, signal.name)
        for _ in range(ATTEMPTS):
            try:
                found = find_segments(self._files, os.path.join(self._data, directory))
            except (FileNotFoundError, NotADirectoryError):
                return None
            ours = [one for one in found if not one.foreign(signal)]
            if not ours:
                return None
            self._prepare(directory)
            last = self._cut(directory, ours[-1])
            if last is None:
                continue  # Sealed since, and removed by retention.
            segments, damaged = [last[0]], last[1]
            for one in reversed(ours[:-1]):
                taken = self._sealed(directory, one, signal, segments[-1].base_offset)
                if taken is None:
                    break
                segments.append(taken[0])
                damaged += taken[1]
            self._deletions(directory, segments[-1].base_offset, segments[0].next_offset)
            self._files.fsync_directory(os.path.join(self._target, directory))
            records = sum(one.records for one in segments)
            first, end = segments[-1].base_offset, segments[0].next_offset
            return LogFacts(place, signal.name, first, end, records, damaged)
        raise Unavailable(f"{directory}: retention removes segments faster than they are read")

    def _deletions(self, directory: str, first: int, end: int) -> None:
        """Take along what was deleted of these offsets, so that it is shown in what is restored no more than here. Last: a
        segment may have been compacted since, and what was erased in it has to be known; another may not have been, so its
        bytes may be there. What backends have to be told stays with the original, which tells them."""
        hidden = hidden_of(os.path.join(self._data, directory), self._files).within(first, end)
        path = os.path.join(directory, DELETED)
        self._remove(path)
        if hidden:
            deletions.write(os.path.join(self._target, directory), self._files, hidden, hidden)
            self._add(path)

    def _cut(self, directory: str, one: FoundSegment) -> tuple[Segment, int] | None:
        """Copy what the newest segment holds in whole frames, all of it on the disk; None when it is gone."""
        path = os.path.join(directory, os.path.basename(one.path))
        try:
            made, damaged, _ = scan(self._files, one.path, one.base_offset, one.nonce, one.size, None)
            handle = self._files.open(one.path)
            try:
                self._files.fdatasync(handle)
            finally:
                self._files.close(handle)
            self._remove(path)
            copied = copy(self._files, one.path, os.path.join(self._target, path), made.size)
        except FileNotFoundError:
            return None
        now = find_segment(self._files, one.path, one.base_offset)
        if now is None or now.nonce != one.nonce:
            self._remove(path)
            return None
        self.done.copied += copied[0]
        self._add(path, *copied)
        return made, len(damaged)

    def _sealed(self, directory: str, one: FoundSegment, signal: Signal, end: int) -> tuple[Segment, int] | None:
        """Take a sealed segment, which ends before offset `end`, with its indexes; None when it is gone."""
        path = os.path.join(directory, os.path.basename(one.path))
        there = os.path.join(self._target, path)
        kept = self._shared(path, one)
        if not kept and not self._taken(path, one):
            return None
        now = find_segment(self._files, there, one.base_offset)
        if now is None:
            raise Unavailable(f"{there} has gone")
        size = self._known[path].size if kept else now.size
        nonce = f"{now.nonce or 0:016x}"
        if kept:
            self.found.append(self._known[path])
            self._tell(path, size)
        else:
            self._add(path, *checksum(self._files, there, size), nonce=nonce)
        made, damaged, unreadable = scan(self._files, there, one.base_offset, now.nonce, size, end)
        made.compacted = now.compacted
        index = index_path(path)
        self._remove(index)
        if made.nonce is not None and not unreadable:
            write_index(self._files, made, now.size, self._logger)
            self._add(index)
        if now.compacted and self._linked_or_copied(keys_path(path)):
            if key_index_state(self._files, made) == "good":
                self._add(keys_path(path))
            else:
                self._remove(keys_path(path))
        return made, len(damaged)

    def _shared(self, path: str, one: FoundSegment) -> bool:
        """Link the segment from the earlier backup, if that has it."""
        known = self._known.get(path)
        if self._earlier is None or known is None or one.nonce is None or known.nonce != f"{one.nonce:016x}":
            return False
        self._remove(path)
        try:
            self._files.link(os.path.join(self._earlier, path), os.path.join(self._target, path))
        except OSError as error:
            if error.errno not in _NO_LINK and not isinstance(error, FileNotFoundError):
                raise
            return False
        self.done.kept += known.size
        return True

    def _taken(self, path: str, one: FoundSegment) -> bool:
        """Link or copy a sealed segment from the data directory; false when it is gone."""
        before: FoundSegment | None = one
        while before is not None:
            linked = self._linked_or_copied(path)
            after = find_segment(self._files, one.path, one.base_offset)
            if linked == "linked" or (linked and after is not None and after.nonce == before.nonce):
                return True
            before = after  # Compacted meanwhile, which happens to a segment once, or gone.
        self._remove(path)
        return False

    def _linked_or_copied(self, path: str) -> str:
        """Give a file of the data directory a second name here, or copy it; empty when it is gone."""
        source, there = os.path.join(self._data, path), os.path.join(self._target, path)
        self._remove(path)
        try:
            if self._link:
                try:
                    self._files.link(source, there)
                except OSError as error:
                    if error.errno not in _NO_LINK:
                        raise
                else:
                    self.done.linked += self._size(there)
                    return "linked"
            self.done.copied += copy(self._files, source, there, None)[0]
        except FileNotFoundError:
            return ""
        return "copied"

    def _size(self, path: str) -> int:
        handle = self._files.open(path)
        try:
            return self._files.size(handle)
        finally:
            self._files.close(handle)

    def _prepare(self, directory: str) -> None:
        if directory not in self._directories:
            self._directories.add(directory)
            make_directories(self._files, os.path.join(self._target, directory))

    def _add(self, path: str, size: int | None = None, found: str | None = None, nonce: str = "") -> None:
        """Enter a file into the manifest."""
        there = os.path.join(self._target, path)
        if size is None or found is None:
            size, found = checksum(self._files, there, self._size(there))
        self.found.append(File(path, size, found, nonce))
        self._tell(path, size)

    def _remove(self, path: str) -> None:
        try:
            self._files.unlink(os.path.join(self._target, path))
        except FileNotFoundError:
            pass

    def sweep(self) -> None:
        """Remove what an attempt that was not finished has left in the directories of this one, and sync them."""
        wanted = {one.path for one in self.found}
        for directory in self._directories:
            for name in _names(self._files, os.path.join(self._target, directory)):
                path = os.path.join(directory, name)
                if path not in wanted and os.path.splitext(name)[1] in _OURS:
                    self._remove(path)
            self._files.fsync_directory(os.path.join(self._target, directory))


_OURS: Final = frozenset({".log", ".index", ".keys", ".tmp", CURSOR_SUFFIX})
