"""What a credential lets its bearer do: sets of rights, as bits of a plain integer, which a request costs least.

Rights do not contain each other: each is granted by its name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

NOBODY: Final = 0
"""No right at all: whoever asks is not known."""
WRITE: Final = 1
"""Send telemetry: the Export methods, and POST to `/v1/*`."""
READ: Final = 2
"""Query what is held, and see metrics and statistics."""
ADMINISTER: Final = 4
"""Change the daemon: everything under `/-/`."""

RIGHTS: Final = {"write": WRITE, "read": READ, "administer": ADMINISTER}


def rights_of(names: Iterable[str]) -> int:
    """Return the set of rights with these names."""
    found = NOBODY
    for name in names:
        found |= RIGHTS[name]
    return found


def name_of(right: int) -> str:
    """Return the name of one right."""
    return next(name for name, one in RIGHTS.items() if one == right)
