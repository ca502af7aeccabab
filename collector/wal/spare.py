"""Spare files: what is left of a segment that was removed, under a second name, to be written over by a later one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from collector.wal.recovery import spare_path

if TYPE_CHECKING:
    from collector.wal.files import Files
    from collector.wal.segment import Segment


def link_spare(files: Files, one: Segment) -> str | None:
    """Give a segment's file a second name; None when the file system does not."""
    name = spare_path(one.path)
    give_up(files, name)  # What an earlier attempt has left.
    try:
        files.link(one.path, name)
    except OSError:
        return None
    return name


def give_up(files: Files, name: str | None) -> None:
    """Remove a name that nobody needs; the next start would remove it, too."""
    try:
        if name is not None:
            files.unlink(name)
    except OSError:
        pass
