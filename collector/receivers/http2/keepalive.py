"""How long an HTTP/2 connection lives: idle time, age, our pings and the client's (as gRPC's keepalive has it, A8 and A9).

An old connection is told GOAWAY and closes when its calls are answered, so that a client behind a load balancer chooses
anew. Ages differ by a tenth either way, so that clients which came together do not all come back together.
"""

from __future__ import annotations

import math
from random import Random
from typing import Final, NamedTuple

STRIKES_MAX: Final = 2
"""Pings that may come too early before a client is told that it is enough, as in gRPC."""
AGE_JITTER: Final = 0.1
"""How far an age may lie from what is configured, either way, as in gRPC."""


class Keepalive(NamedTuple):
    """The rules of a listener, in seconds; infinite: never."""

    idle_s: float = math.inf
    """A connection without calls so long is closed. It is looked at once in that time, so it may take twice as long."""
    age_s: float = math.inf
    age_grace_s: float = math.inf
    """How long the calls of a connection may take that is too old."""
    time_s: float = 7200.0
    """A connection from which nothing came so long is pinged."""
    timeout_s: float = 20.0
    ping_interval_s: float = 0.0
    """Pings of the client that come more often, with no answer between them, are strikes; 0: none are."""
    idle_pings: bool = True
    """Whether the client may ping without a call."""


class Life:
    """What one connection has behind it and before it. Times are on the monotonic clock."""

    __slots__ = ("_pinged_at", "_seen_streams", "_strikes", "answered", "ends_at", "grace_ends_at", "idle_at", "rules")

    def __init__(self, rules: Keepalive, now: float, chance: Random) -> None:
        """Begin now."""
        self.rules = rules
        self.ends_at = now + rules.age_s * (1 + AGE_JITTER * chance.uniform(-1, 1))
        """When it is too old."""
        self.grace_ends_at = math.inf
        """When it is cut, having been too old."""
        self.idle_at = now + rules.idle_s
        """When to look whether it was idle."""
        self.answered = False
        """Whether a call was answered since the client's last ping."""
        self._seen_streams = 0
        self._pinged_at = -math.inf
        self._strikes = 0

    @property
    def next_look(self) -> float:
        """When something is due."""
        return min(self.ends_at, self.grace_ends_at, self.idle_at)

    def was_idle(self, now: float, newest_stream: int, streams: int) -> bool:
        """Tell, once `idle_at` has come, whether there was no call since the last look; set the next one."""
        idle = not streams and newest_stream == self._seen_streams
        self._seen_streams = newest_stream
        self.idle_at = now + self.rules.idle_s
        return idle

    def grow_old(self, now: float) -> None:
        """The connection is too old, and was told so."""
        self.ends_at = math.inf
        self.grace_ends_at = now + self.rules.age_grace_s

    def ping(self, now: float, streams: int) -> bool:
        """Take a ping of the client's; tell whether it is one too many. A call that was answered excuses those before."""
        if self.answered:
            self.answered = False
            self._strikes = 0
            self._pinged_at = -math.inf
        least = self.rules.ping_interval_s
        early = now < self._pinged_at + least or (not streams and not self.rules.idle_pings)
        self._pinged_at = now
        if least and early:
            self._strikes += 1
        return self._strikes > STRIKES_MAX
