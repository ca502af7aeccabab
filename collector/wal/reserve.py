"""Room on the disk that a start can count on.

The file `RESERVE` in the data directory has `RESERVE_BYTES` allocated, and nothing in it. A start gives it up before it
opens the logs: then there is room to repair what needs repair, to write an index, and to remove segments, for which some
file systems want room, too, on a disk that is full otherwise. When the logs are open it takes the room again, before
anybody may write; so does an orderly stop, after everybody has. If there is none by then, the next start does without: it
reads and removes all the same, and refuses writes until there is room.

No promise rests on it, so nothing of it is synced.
"""

from __future__ import annotations

import os
from typing import Any, Final

from collector.wal.files import Files

RESERVE_NAME: Final = "RESERVE"
RESERVE_BYTES: Final = 1024 * 1024


def has_room(directory: str | os.PathLike[str]) -> bool:
    """Whether the disk of a directory has as much room as the reserve takes. True for one that cannot be asked."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return True
    return found.f_bavail * found.f_frsize >= RESERVE_BYTES


class Reserve:
    """The reserve of one data directory; the caller holds the directory's lock."""

    def __init__(self, directory: str | os.PathLike[str], files: Files, logger: Any) -> None:
        self._path = os.path.join(os.fspath(directory), RESERVE_NAME)
        self._files = files
        self._logger = logger

    def release(self) -> None:
        """Give the room up; nothing happens when there is no reserve."""
        try:
            self._files.unlink(self._path)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._logger.warning("reserve not released", path=self._path, error=str(error))

    def hold(self) -> None:
        """Take the room, if there is as much. Nothing happens when there is a reserve already."""
        try:
            handle = self._files.open(self._path, create=True)
        except FileExistsError:
            return
        except OSError as error:
            self._logger.info("no reserve", path=self._path, error=str(error))
            return
        try:
            self._files.allocate(handle, 0, RESERVE_BYTES)
        except OSError as error:
            self._logger.info("no reserve", path=self._path, error=str(error))
            self.release()
        finally:
            self._files.close(handle)
