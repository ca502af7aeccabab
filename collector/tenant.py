"""What one tenant has: the stores of the three signals, opened, refilled, drained and closed together.

Order: `open` repairs the logs and lets queries read them, `refill` fills the rings in a thread, and from then on the
stores take appends. `drain` and `close` end it. A daemon without tenants has one of these, over the data directory.

Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from collector.errors import InvalidConfig, RingtailError
from collector.otlp.signals import SIGNALS, TRACES, Signal
from collector.query.spanmetrics.demand import SpanMetrics
from collector.receivers.export import Destination
from collector.ring.ring import Ring
from collector.store import Commit, Store
from collector.wal.commit import Committer
from collector.wal.log import Log
from collector.wal.pruning import KEY_INDEX_BYTES
from collector.wal.reserve import has_room

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.clock import Clock
    from collector.config import Config
    from collector.receivers.admission import Share
    from collector.wal.cache import BlockCache
    from collector.wal.files import Files
    from collector.wal.metrics import LogMetrics


class Tenant:
    """Three stores in one directory."""

    def __init__(
        self,
        config: Config,
        directory: str,
        *,
        files: Files,
        clock: Clock,
        metrics: LogMetrics,
        logger: Any,
        share: Share | None = None,
        key_index_bytes: int = KEY_INDEX_BYTES,
        cache: BlockCache | None = None,
    ) -> None:
        """Nothing is opened yet. The directory is locked by the daemon. `share` is of the in-flight budget;
        `key_index_bytes` are for each of its logs; `cache` is of blocks of all logs."""
        self.stores: dict[str, Store] = {}
        """By the signal's name; all three after `open`."""
        self.destinations: dict[str, Destination] = {}
        """The same, as receivers want them."""
        self.spans = span_metrics(config, clock)
        """What makes metrics of its spans, if anything does."""
        self.replaying = ""
        """The signal whose ring is being filled."""
        self._config = config
        self._directory = directory
        self._files = files
        self._clock = clock
        self._metrics = metrics
        self._logger = logger
        self._share = share
        self._key_index_bytes = key_index_bytes
        self._cache = cache
        self._committers: list[Committer[Commit]] = []

    @property
    def logs(self) -> list[Log]:
        """The open logs; none without `wal.enabled`."""
        return [store.log for store in self.stores.values() if store.log is not None]

    @property
    def rings(self) -> list[Ring]:
        """The rings, as they are now: `refill` exchanges them."""
        return [store.ring for store in self.stores.values()]

    async def open(self) -> None:
        """Open the logs, which cuts torn tails, in a thread. Raises a RingtailError that says what is in the way."""
        for one in SIGNALS:
            log = await asyncio.to_thread(self._open_log, one) if self._config.wal.enabled else None
            sizes = getattr(self._config.stores, one.name)
            try:
                ring = Ring(
                    one,
                    sizes.capacity,
                    sizes.max_bytes,
                    log.next_offset if log is not None else 0,
                    keyword_index=self._config.stores.logs.keyword_index,
                )
            except ValueError as error:
                raise InvalidConfig([f"stores.{one.name}.max_bytes: {error}"]) from error
            store = self.stores[one.name] = Store(one, ring, log, asyncio.get_running_loop())
            if one is TRACES:
                store.spans_per_trace = sizes.max_spans_per_trace
            self.destinations[one.name] = Destination(store, self._share)
        if self.spans is not None:
            self.spans.attach(self.stores[TRACES.name])

    def _open_log(self, one: Signal) -> Log:
        wal = self._config.wal
        return Log.open(
            self._directory,
            one,
            files=self._files,
            clock=self._clock,
            metrics=self._metrics,
            logger=self._logger,
            segment_bytes=wal.segment_bytes,
            retention_bytes=wal.retention.max_bytes or None,
            retention_age_s=wal.retention.max_age or None,
            direct=wal.sync == "always",
            key_index_bytes=self._key_index_bytes,
            cache=self._cache,
        )

    async def refill(self, stopping: Callable[[], bool]) -> None:
        """Fill the rings from their logs, one after the other, and let the logs be written to; early out when
        `stopping` says so."""
        wal = self._config.wal
        for store in self.stores.values():
            if store.log is None or stopping():
                continue
            self.replaying = store.signal.name
            started = self._clock.monotonic()
            ring = await asyncio.to_thread(store.replay, stopping)
            self.replaying = ""
            store.adopt(ring)
            took = round(self._clock.monotonic() - started, 3)
            self._logger.info("ring refilled", signal=store.signal.name, records=len(store.ring), seconds=took)
            committer: Committer[Commit] = Committer(store.log, wal.sync, wal.sync_interval, store.committed)
            self._committers.append(committer)
            store.attach(committer)

    def not_ready(self) -> list[str]:
        """Return why no traffic should come; empty when it may."""
        reasons = []
        if self.replaying:
            reasons.append(
                f"the ring of {self.replaying} is being filled from the log, which answers queries meanwhile"
            )
        for name, store in self.stores.items():
            if store.log is not None and store.log.failed is not None:
                reasons.append(f"the log of {name} has failed: {store.log.failed}")
            elif store.log is not None and store.log.short and not has_room(self._directory):
                # Asked of the disk, too: while nobody sends here, no write would find that there is room again.
                reasons.append(f"the log of {name} has no room on the disk; queries are answered")
        return reasons

    async def drain(self) -> None:
        """Refuse further appends, and wait until everything taken has been answered."""
        for store in self.stores.values():
            await store.drain()

    def close(self) -> None:
        """Sync and close the logs; nobody may read them or compact them any more."""
        for committer in self._committers:
            committer.close()
        for log in self.logs:
            try:
                log.close()
            except RingtailError as error:
                self._logger.error("log not closed", signal=log.signal.name, error=str(error))


def span_metrics(config: Config, clock: Clock) -> SpanMetrics | None:
    """Return what makes metrics of one tenant's spans; None where that is switched off."""
    settings = config.metrics_generator
    return SpanMetrics(clock, settings.max_bytes) if settings.enabled else None
