"""How long to wait before something that failed is tried again: the Collector's `retry_on_failure`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

    from collector.exporters.settings import RetryOnFailure

ASKED_MAX_S: Final = 300.0
"""The longest wait that a destination can ask for, unless `max_interval` is longer."""


class Backoff:
    """The waits of one batch: each longer than the last, and spread, so that many who failed together do not come back
    together."""

    def __init__(self, settings: RetryOnFailure, chance: random.Random) -> None:
        self._settings = settings
        self._chance = chance
        self._next = settings.initial_interval

    def wait_s(self, asked_s: float | None = None) -> float:
        """Return the seconds until the next attempt, no fewer than the destination has asked for."""
        settings = self._settings
        base = min(self._next, settings.max_interval)
        self._next = min(base * settings.multiplier, settings.max_interval)
        asked = min(asked_s or 0.0, max(ASKED_MAX_S, settings.max_interval))
        return max(self._spread(base), asked)

    def longest_s(self) -> float:
        """Return the longest of the waits, for what time alone will not mend."""
        return self._spread(self._settings.max_interval)

    def _spread(self, seconds: float) -> float:
        factor = self._settings.randomization_factor
        return seconds * (1 + factor * (2 * self._chance.random() - 1))

    def reset(self) -> None:
        """Begin anew: something has succeeded."""
        self._next = self._settings.initial_interval
