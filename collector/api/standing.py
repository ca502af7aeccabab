"""Whether a client may still have what it is being given: for answers that last, as live tails do.

A request is judged when it comes (access.py, and receivers/call.py for gRPC). An answer without an end asks again, every
`CHECK_S`: credentials whose files have changed, or that the configuration does not have any more, end it, and so does
the end of the client's certificate. Asking costs a lookup, as for a new request; of a password, once more bcrypt.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from collector.errors import Unauthenticated
from collector.security.tls import Peer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from collector.clock import Clock

CHECK_S: Final = 2.0
"""How long a client that may not any more may go on."""


class Standing:
    """One client's right to an answer that lasts."""

    def __init__(self, again: Callable[[], Awaitable[None]] | None, peer: frozenset[str], clock: Clock) -> None:
        """`again` judges the request anew, and raises what speaks against it; None: anybody may. `peer` is the client's
        certificate, if it has one."""
        self._again = again
        self._ends_s = peer.ends_s if isinstance(peer, Peer) else math.inf
        self._clock = clock
        self._checked_at = clock.monotonic()

    async def require(self) -> None:
        """Raise Unauthenticated or Forbidden when the client may not any more; looked at every `CHECK_S`."""
        now = self._clock.monotonic()
        if now < self._checked_at + CHECK_S:
            return
        self._checked_at = now
        if self._clock.now_ns() >= self._ends_s * 1e9:
            raise Unauthenticated("the client's certificate has expired")
        if self._again is not None:
            await self._again()
