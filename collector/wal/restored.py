"""A data directory that is being restored is not opened."""

from __future__ import annotations

import os
from typing import Final

from collector.errors import Unavailable

STAGE: Final = "restore.tmp"
"""Where a restore puts what it copies, until all of it is there; it goes last."""


def require_restored(directory: str) -> None:
    """Raise Unavailable for a data directory in which a restore was not finished."""
    if os.path.lexists(os.path.join(directory, STAGE)):
        raise Unavailable(f"{directory} holds a restore that was not finished: remove the directory, and restore again")
