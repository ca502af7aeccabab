"""The identity of a data directory, which the keys of exported records begin with.

32 hexadecimal digits in the file `INSTANCE`, made once, of random bytes. Offsets are unique within an instance only, so the
id is made anew whenever offsets may be given out a second time: when a cursor is found ahead of its log, which then was
removed, or is older than it was. Without a log every start is an instance of its own.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from collector.errors import Unavailable
from collector.wal.files import make_directories, read_file, replace_file

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.wal.files import Files

NAME: Final = "INSTANCE"
_ID: Final = re.compile(rb"[0-9a-f]{32}\n?")


def read_or_make(directory: str, files: Files, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """Return the id of a data directory; make it if it has none, or one that cannot be read. Raises Unavailable."""
    path = os.path.join(directory, NAME)
    try:
        data = read_file(files, path, 64)
    except FileNotFoundError:
        data = b""
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error}") from error
    return data.decode().strip() if _ID.fullmatch(data) else renew(directory, files, entropy)


def renew(directory: str, files: Files, entropy: Callable[[int], bytes] = os.urandom) -> str:
    """Give a data directory a new id, and return it. Raises Unavailable."""
    made = entropy(16).hex()
    try:
        make_directories(files, directory)
        replace_file(files, os.path.join(directory, NAME), f"{made}\n".encode())
        files.fsync_directory(directory)
    except OSError as error:
        raise Unavailable(f"{os.path.join(directory, NAME)} cannot be written: {error}") from error
    return made
