"""Looking through a backup, and making a data directory of it.

A restore verifies the backup, refuses a directory that holds anything, and copies into `restore.tmp` below it, comparing
checksums once more; when all of that is on the disk it moves what is in there to its place, and removes `restore.tmp` last.
A daemon does not start where there is one (`require_restored`). Nothing is linked: the backup stays as it is, whatever
becomes of the data directory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, NamedTuple

from collector.errors import Unavailable
from collector.moving import manifest
from collector.moving.manifest import Manifest, checksum, copy
from collector.wal.files import Files, make_directories
from collector.wal.lock import LOCK_NAME, DirectoryLock
from collector.wal.restored import STAGE

if TYPE_CHECKING:
    from collections.abc import Callable

_HARMLESS: Final = frozenset({LOCK_NAME, "lost+found"})


class Verified(NamedTuple):
    """What a look through a backup has found."""

    manifest: Manifest
    problems: list[str]
    """What is not as it was when the backup was made, a line each."""


def verify(backup: str, files: Files, tell: Callable[[str, int], None] = lambda _, __: None) -> Verified:
    """Read every file of a backup, and compare. Raises NotFound, UnsupportedFormat, and Unavailable for a backup without
    a manifest that can be read."""
    made = manifest.read(files, backup)
    problems = []
    for one in made.files:
        path = os.path.join(backup, *one.path.split("/"))
        try:
            size, found = checksum(files, path, one.size)
        except FileNotFoundError:
            problems.append(f"{path} is missing")
        except OSError as error:
            problems.append(f"{path} cannot be read: {error}")
        else:
            if size < one.size:
                problems.append(f"{path} has {size} bytes of {one.size}")
            elif found != one.checksum:
                problems.append(f"{path} is damaged: its checksum is {found}, not {one.checksum}")
        tell(one.path, one.size)
    return Verified(made, problems)


def restore(
    backup: str,
    data: str,
    files: Files,
    *,
    cursors: bool = True,
    tell: Callable[[str, int], None] = lambda _, __: None,
) -> Manifest:
    """Make the data directory `data` of a backup, which is new or empty; without `cursors` exporters begin anew.

    Raises Unavailable for a directory that holds anything, a damaged backup, and what the system refuses; Locked; and as
    `verify`.
    """
    made, problems = verify(backup, files, tell)
    if problems:
        raise Unavailable(
            f"nothing was restored: {problems[0]}" + (f", and {len(problems) - 1} more" * (len(problems) > 1))
        )
    lock = DirectoryLock(data, files)
    if os.path.isdir(data):
        _require_empty(files, data)
    with lock:
        _require_empty(files, data)
        try:
            _restore(backup, data, files, made, cursors)
        except OSError as error:
            raise Unavailable(f"the restore was not finished; remove {data} and begin again: {error}") from error
    return made


def _require_empty(files: Files, data: str) -> None:
    held = sorted(set(files.listdir(data)) - _HARMLESS)
    if STAGE in held:
        raise Unavailable(f"{data} holds a restore that was not finished: remove the directory, and begin again")
    if held:
        raise Unavailable(f"{data} is not empty ({held[0]}); a restore overwrites nothing")


def _restore(backup: str, data: str, files: Files, made: Manifest, cursors: bool) -> None:
    stage = os.path.join(data, STAGE)
    directories = {stage}
    make_directories(files, stage)
    tops = set()
    for one in made.files:
        parts = one.path.split("/")
        if not cursors and "cursors" in parts[:-2]:
            continue
        target = os.path.join(stage, *parts)
        if os.path.dirname(target) not in directories:
            make_directories(files, os.path.dirname(target))
            directories.add(os.path.dirname(target))
        if copy(files, os.path.join(backup, *parts), target, one.size) != (one.size, one.checksum):
            raise Unavailable(f"{one.path} changed while it was restored; remove {data} and begin again")
        tops.add(parts[0])
    for directory in directories:
        files.fsync_directory(directory)
    for name in sorted(tops):
        files.rename(os.path.join(stage, name), os.path.join(data, name))
    files.fsync_directory(data)
    os.rmdir(stage)
    files.fsync_directory(data)
