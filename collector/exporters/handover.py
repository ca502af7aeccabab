"""Handing over a batch, until all of it was taken or given up: the half of a delivery (delivery.py) that an exporter sees.

What fails:

    Retryable, timeout   the same batch again, after a while that grows (retry.py)
    Unwelcome            the same, after the longest such while: it is for people to mend
    Permanent            the records that it names go to the dead letters, and the others are sent again; if it names none,
                         the batch is halved until the bad ones are found, at most `DIVISIONS_MAX` times

Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from collector.errors import Permanent, Retryable, RingtailError, Unwelcome
from collector.exporters.retry import Backoff

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable
    from concurrent.futures import Executor

    from collector.clock import Clock
    from collector.exporters.base import Batch, Exporter, Rejected
    from collector.exporters.dead_letters import DeadLetters
    from collector.exporters.figures import Counts
    from collector.exporters.settings import ExporterSettings

DIVISIONS_MAX: Final = 64
"""How often a batch is divided in search of records that a destination refuses; what is left then goes whole."""
REFUSALS_EVERY_S: Final = 60.0
"""How often it is logged that records are refused; the dead letters have every reason."""
BYTES_MIN: Final = 64 * 1024
"""What batches become at least, for a destination that finds them too large."""
REST_S: Final = 5.0
"""How long to wait after a defect of ours, or of the disk."""


class Parts(NamedTuple):
    """What a delivery works with."""

    clock: Clock
    chance: random.Random
    threads: Executor
    logger: Any
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Handover:
    """See the module."""

    def __init__(
        self,
        exporter: Exporter,
        settings: ExporterSettings,
        dead_letters: DeadLetters | None,
        counts: Counts,
        duration: Any,
        parts: Parts,
        lag: Callable[[], int],
    ) -> None:
        """`duration` is a histogram of attempts, `lag` tells how many records wait."""
        self.failing = ""
        """Why the destination took nothing at the last attempt; empty when it did."""
        self.too_large = settings.sending_queue.batch.max_bytes
        """Bytes that a batch must not have: less than it may, once the destination has found one too large."""
        self._exporter = exporter
        self._settings = settings
        self._dead_letters = dead_letters
        self._counts = counts
        self._duration = duration
        self._parts = parts
        self._lag = lag
        self._untold = 0  # records that were refused since it was logged
        self._told_at = -math.inf

    async def deliver(self, batch: Batch) -> None:
        """Hand over a batch until all of it was taken or given up. Raises nothing but CancelledError."""
        while True:
            try:
                await self._hand_over(batch)
            except Exception as error:  # noqa: BLE001 - a defect of ours must not pass records over
                self._parts.logger.error("delivery failed", reason=repr(error))
                await self._parts.sleep(REST_S)
            else:
                return

    async def _hand_over(self, batch: Batch) -> None:
        settings = self._settings.retry_on_failure
        backoff = Backoff(settings, self._parts.chance)
        began = self._parts.clock.monotonic()
        parts = [batch]
        divisions = 0
        while parts:
            part = parts[0]
            try:
                outcome = await self._attempt(part)
            except Permanent as error:
                divided = await self._divide(part, error, divisions)
                divisions += len(divided) > 1
                parts[:1] = divided
            except (Retryable, Unwelcome) as error:
                elapsed = self._parts.clock.monotonic() - began
                if not settings.enabled or 0 < settings.max_elapsed_time <= elapsed:
                    await self._give_up(part, f"given up after {elapsed:.0f} s: {error}")
                    del parts[0]
                elif isinstance(error, Unwelcome):
                    await self._parts.sleep(backoff.longest_s())
                else:
                    await self._parts.sleep(backoff.wait_s(error.after_s))
            else:
                await self._taken_by(part, outcome)
                del parts[0]
                backoff.reset()

    async def _attempt(self, batch: Batch) -> Rejected | None:
        """Hand over a batch once, and count that. Raises Retryable, Permanent or Unwelcome."""
        started = self._parts.clock.monotonic()
        outcome = "success"
        try:
            async with asyncio.timeout(self._settings.timeout):
                rejected = await self._exporter.export(batch)
            if rejected is not None and rejected.records:
                outcome = "partial"
        except Permanent:
            outcome = "permanent"
            self._works()
            raise
        except Unwelcome as error:
            outcome = "unwelcome"
            self._fails(str(error))
            raise
        except TimeoutError as error:
            outcome = "retryable"
            reason = f"no answer within {self._settings.timeout:g} s (timeout)"
            self._fails(reason)
            raise Retryable(reason) from error
        except RingtailError as error:
            outcome = "retryable"
            self._fails(str(error))
            if isinstance(error, Retryable):
                raise
            raise Retryable(str(error)) from error
        except Exception as error:  # a defect of an exporter must neither lose records nor end deliveries
            outcome = "retryable"
            self._fails(f"a defect of the exporter: {error!r}")
            raise Retryable(repr(error)) from error
        finally:
            self._duration.observe(self._parts.clock.monotonic() - started)
            self._counts.attempts[outcome] += 1
        self._works()
        return rejected

    def _works(self) -> None:
        if self.failing:
            self._parts.logger.info("exports again", lag_records=self._lag())
            self.failing = ""

    def _fails(self, reason: str) -> None:
        if not self.failing:
            self._parts.logger.warning("export fails", reason=reason)
        self.failing = reason

    def _tell_refused(self, records: int, reason: str) -> None:
        """Log refusals once a minute, with how many there were: a destination may refuse everything, one by one."""
        now = self._parts.clock.monotonic()
        self._untold += records
        if now >= self._told_at + REFUSALS_EVERY_S:
            self._parts.logger.warning("records refused", records=self._untold, reason=reason)
            self._told_at, self._untold = now, 0

    async def _taken_by(self, batch: Batch, rejected: Rejected | None) -> None:
        """Count what was taken of a batch."""
        refused = min(rejected.records, batch.records) if rejected is not None else 0
        self._counts.sent += batch.records - refused
        self._counts.sent_bytes += batch.payload_bytes
        if rejected is None or not refused:
            return
        self._tell_refused(refused, rejected.reason)
        named, _ = batch.separated(rejected.offsets)
        if named is not None:
            await self._give_up(named, rejected.reason)
            refused -= named.records
        self._counts.refused += max(0, refused)

    async def _divide(self, batch: Batch, error: Permanent, divisions: int) -> list[Batch]:
        """Return what is to be sent again of a batch that was refused; the rest goes to the dead letters."""
        if error.too_large:
            self.too_large = max(BYTES_MIN, min(self.too_large, batch.payload_bytes) // 2)
        named, others = batch.separated(error.offsets)
        if named is not None:
            await self._give_up(named, str(error))
            return [others] if others is not None else []
        if batch.records == 1 or divisions >= DIVISIONS_MAX:
            self._tell_refused(batch.records, str(error))
            await self._give_up(batch, str(error))
            return []
        middle = batch.middle()
        halves = (batch.part(batch.first_offset, middle), batch.part(middle, batch.end_offset))
        return [half for half in halves if half is not None]

    async def _give_up(self, batch: Batch, reason: str) -> None:
        """Put records to the dead letters."""
        records = batch.records
        self._counts.refused += records
        if self._dead_letters is not None:
            try:
                await asyncio.get_running_loop().run_in_executor(
                    self._parts.threads, self._dead_letters.add, batch, reason
                )
            except RingtailError as error:
                self._parts.logger.error("dead letters not kept", records=records, reason=str(error))
            else:
                self._counts.dead_letters += records
                return
        self._counts.lost["dead_letters"] += records
        self._parts.logger.error("records lost", records=records, reason=reason)
