"""Where queries run: in worker threads, so many at once, each under a `Deadline` that it must ask at least once a block."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import asynccontextmanager, contextmanager
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from collector.errors import Overloaded
from collector.query.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from collector.clock import Clock

Result = TypeVar("Result")

QUERIES_WAITING_MAX = 256
"""Queries running and waiting for a worker; one more is refused as Overloaded."""
IDLE_MAX = 16
"""Queries that wait for something outside, at once, and let others run meanwhile."""
IDLE_LOOK_S = 0.1
"""How often a query that waits for its turn looks whether the engine is being closed."""


class Engine:
    """The worker threads that queries run in, so that they hold up neither the event loop nor ingest."""

    def __init__(self, threads: int, timeout_s: float, clock: Clock, received: Callable[[], int] | None = None) -> None:
        """Run at most `threads` queries at once, each for at most `timeout_s` seconds, waiting included.

        They rest while the requests counted by `received` become more: see `Deadline`.
        """
        self.clock = clock
        self._received = received
        self.timeout_s = timeout_s
        self._threads = threads
        self._lanes: list[Engine] = []
        # Threads are made when there is work for them, so without waiting queries there are no more than `threads`.
        self._pool = ThreadPoolExecutor(threads + IDLE_MAX, thread_name_prefix="query")
        self._pending = 0
        self._running = asyncio.Semaphore(threads)
        self._all_running = self._running
        self._may_idle = threading.Semaphore(IDLE_MAX)
        self._closing = threading.Event()

    def lane(self) -> Engine:
        """Return an engine over the same threads of which one always stays for others, if there are two."""
        lane = copy(self)
        lane._pending = 0
        lane._running = asyncio.Semaphore(max(1, self._threads - 1))
        self._lanes.append(lane)
        return lane

    @property
    def pending(self) -> int:
        """How many queries are running or waiting, in all lanes."""
        return self._pending + sum(lane._pending for lane in self._lanes)

    def limit(self, timeout_s: float) -> None:
        """Change how long a query may take that begins from now on."""
        for engine in (self, *self._lanes):
            engine.timeout_s = timeout_s

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return `function(deadline, *args)`, run in a worker thread.

        Raises what the function raises, QueryTimeout when it takes too long, and Overloaded when too many
        queries wait already.
        """
        if self._pending >= QUERIES_WAITING_MAX:
            raise Overloaded(f"{self._pending} queries are running or waiting", 1.0)
        loop = asyncio.get_running_loop()
        deadline = Deadline(self.timeout_s, self.clock, self._received, partial(self._idle, loop))
        self._pending += 1
        try:
            async with self._turn():
                return await loop.run_in_executor(self._pool, function, deadline, *args)
        except asyncio.CancelledError:
            deadline.cancel()
            raise
        finally:
            self._pending -= 1

    def at_once(self, function: Callable[..., Result], *args: Any) -> Result:
        """Return `function(deadline, *args)`, run here: for lookups in memory that take less than a worker thread to begin,
        some 0.1 ms."""
        return function(Deadline(self.timeout_s, self.clock), *args)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Wait for a turn among the queries of the lane, and among all."""
        async with self._running:
            if self._all_running is self._running:
                yield
                return
            async with self._all_running:
                yield

    @contextmanager
    def _idle(self, loop: asyncio.AbstractEventLoop) -> Iterator[None]:
        """In a query's thread: let another query have its turn, and wait for one again at the end."""
        if not self._may_idle.acquire(blocking=False):
            yield
            return
        turns = [self._all_running] if self._all_running is self._running else [self._all_running, self._running]
        try:
            for one in turns:
                loop.call_soon_threadsafe(one.release)
            try:
                yield
            finally:
                again = asyncio.run_coroutine_threadsafe(_acquired(*reversed(turns)), loop)
                while not again.done() and not self._closing.is_set():  # The loop waits for threads then.
                    wait([again], timeout=IDLE_LOOK_S)
        finally:
            self._may_idle.release()

    def close(self) -> None:
        """Let running queries end and take no more."""
        self._closing.set()
        self._pool.shutdown(wait=True, cancel_futures=True)


async def _acquired(*turns: asyncio.Semaphore) -> None:
    for one in turns:
        await one.acquire()
