"""What a credential lets its bearer do: sets of rights, as bits of a plain integer, which a request costs least.

Rights do not contain each other: each is granted by its name. A credential may be for certain tenants only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

NOBODY: Final = 0
"""No right at all: whoever asks is not known."""
WRITE: Final = 1
"""Send telemetry: the Export methods, and POST to `/v1/*`."""
READ: Final = 2
"""Query what is held, and see metrics and statistics."""
ADMINISTER: Final = 4
"""Change the daemon: everything under `/-/`; and delete what is held."""

RIGHTS: Final = {"write": WRITE, "read": READ, "administer": ADMINISTER}


class Rights(NamedTuple):
    """What somebody may do, and where."""

    everywhere: int = NOBODY
    """Rights for whatever a request is about."""
    within: tuple[tuple[frozenset[str], int], ...] = ()
    """Rights for requests that name one of these tenants."""

    def allow(self, right: int, tenant: str) -> bool:
        """Tell whether a request for this tenant (empty: it names none) has a right."""
        return bool(self.everywhere & right) or any(
            granted & right and tenant in names for names, granted in self.within
        )

    def __or__(self, other: Rights) -> Rights:
        """Return what either allows."""
        return Rights(self.everywhere | other.everywhere, self.within + other.within)


NO_RIGHTS: Final = Rights()
"""Those of somebody who is not known."""


def rights_of(names: Iterable[str]) -> int:
    """Return the set of rights with these names."""
    found = NOBODY
    for name in names:
        found |= RIGHTS[name]
    return found


def name_of(right: int) -> str:
    """Return the name of one right."""
    return next(name for name, one in RIGHTS.items() if one == right)
