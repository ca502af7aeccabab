"""One exporter of a daemon and its deliveries: started in its own time, however often that takes, and stopped.

Its deliveries begin when it has started, each where the destination says. A defect of an exporter is no reason for the
daemon to end: whatever it raises is told as its trouble, and tried again.

Owner: the event loop's thread.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from collector.errors import Retryable, RingtailError
from collector.exporters.base import Backend
from collector.exporters.retry import Backoff

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine
    from concurrent.futures import Executor

    from collector.exporters.base import Exporter
    from collector.exporters.dead_letters import DeadLetters
    from collector.exporters.delivery import Delivery
    from collector.exporters.figures import ExporterMetrics
    from collector.exporters.settings import ExporterSettings

SIZE_S: Final = 60.0
"""How often a backend is asked for its size."""
STOP_S: Final = 2.0
"""How long an exporter may take to let go of everything."""


class Running:
    """See the module. `begin` starts, `end` stops."""

    def __init__(
        self,
        name: str,
        settings: ExporterSettings,
        exporter: Exporter,
        *,
        chance: random.Random,
        logger: Any,
        metrics: ExporterMetrics,
    ) -> None:
        self.name = name
        self.settings = settings
        self.exporter = exporter
        self.deliveries: dict[tuple[str, str], Delivery] = {}
        """By tenant and signal."""
        self.dead_letters: list[DeadLetters] = []
        self.started = asyncio.Event()
        self.obstacle = ""
        """Why some deliveries could not be made."""
        self._chance = chance
        self._logger = logger.bind(exporter=name)
        self._metrics = metrics
        self._failing = "not started yet"
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def trouble(self) -> str:
        """Why it does not do its work; empty when it does."""
        health = self.exporter.health()
        return self.obstacle or self._failing or ("" if health.ok else health.reason)

    def begin(self) -> None:
        """Start the exporter, and ask a backend for its size from then on."""
        self._run(self._bring_up())

    def deliver(self, tenant: str, signal: str, delivery: Delivery) -> None:
        """Have a delivery; it begins when the exporter has started."""
        self.deliveries[tenant, signal] = delivery
        self._run(self._start(delivery))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _bring_up(self) -> None:
        backoff = Backoff(self.settings.retry_on_failure, self._chance)
        while True:
            try:
                await self.exporter.start()
            except Exception as error:  # noqa: BLE001 - see the module
                reason = _told(error)
                if self._failing != reason:
                    self._logger.warning("exporter not started", reason=reason)
                self._failing = reason
                await asyncio.sleep(_wait_s(backoff, error))
            else:
                break
        self._failing = ""
        self._logger.info("exporter started", signals=list(self.settings.signals))
        self.started.set()
        if isinstance(self.exporter, Backend):
            await self._weigh(self.exporter)

    async def _weigh(self, backend: Backend) -> None:
        """Ask a backend for its size, again and again. While it does not say, it is as large as it was."""
        while True:
            try:
                self._metrics.note_size(self.name, await backend.size())
            except Exception as error:  # noqa: BLE001 - see the module
                self._logger.debug("size not known", reason=repr(error))
            await asyncio.sleep(SIZE_S)

    async def _start(self, delivery: Delivery) -> None:
        """Start a delivery, when its exporter has started, where the destination says."""
        await self.started.wait()
        backoff = Backoff(self.settings.retry_on_failure, self._chance)
        while True:
            try:
                position = await self.exporter.position(delivery.source)
            except Exception as error:  # noqa: BLE001 - see the module
                delivery.failing = _told(error)
                await asyncio.sleep(_wait_s(backoff, error))
            else:
                break
        delivery.failing = ""
        delivery.start(position)

    async def end(self, grace_s: float, threads: Executor) -> None:
        """Stop the exporter and its deliveries; what is under way has so long to be taken."""
        self._metrics.note_size(self.name, None)
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(one.stop(grace_s) for one in self.deliveries.values()))
        try:
            async with asyncio.timeout(STOP_S):
                await self.exporter.stop()
        except Exception as error:  # noqa: BLE001 - see the module
            self._logger.warning("exporter not stopped", reason=repr(error))
        for letters in self.dead_letters:
            try:
                await asyncio.get_running_loop().run_in_executor(threads, letters.close)
            except RingtailError as error:
                self._logger.warning("dead letters not closed", reason=str(error))


def _told(error: Exception) -> str:
    return str(error) if isinstance(error, RingtailError) else repr(error)


def _wait_s(backoff: Backoff, error: Exception) -> float:
    return backoff.wait_s(error.after_s if isinstance(error, Retryable) else None)
