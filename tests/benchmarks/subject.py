"""A backend as `make bench-backends` measures it: what tests/benchmarks/backends.py asks of each.

One place at a time: `fresh` and `floor` both begin with an empty one, and nobody asks for what was there before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import Backend, Batch, Context
from collector.exporters.kinds import Kind
from collector.exporters.settings import ExporterSettings

Replay = Callable[[], Awaitable[None]]


class Missing(Exception):
    """The engine, or its driver, is not on this machine."""


class Subject(ABC):
    """See the module. `start` comes first, `stop` last."""

    name: ClassVar[str]
    driver: ClassVar[str]
    """What makes the floor: driver and call, for the table's legend."""

    def __init__(self, directory: Path, threads: ThreadPoolExecutor) -> None:
        """Files, if any, go to the directory, which is there and empty."""
        self.directory = directory
        self._threads = threads

    def made(self, kind: Kind, settings: ExporterSettings) -> Backend:
        """Return a backend of these settings, not yet started."""
        logger = structlog.get_logger()
        context = Context(self.name, SystemClock(), logger, CollectorRegistry(), self._threads, str(self.directory))
        backend = kind.make(settings, context)
        assert isinstance(backend, Backend)
        return backend

    async def start(self) -> None:  # noqa: B027 - not every engine is a server
        """Bring the engine up. Raises Missing."""

    @abstractmethod
    async def fresh(self) -> Backend:
        """Return a backend, started, with nothing in it. Who asked stops it."""

    @abstractmethod
    async def recorded(self, batches: Sequence[Batch]) -> Any:
        """Write batches, and return what the driver was given for them, as it was given: the rows, in the same statements
        and transactions."""

    @abstractmethod
    async def floor(self, recorded: Any) -> Replay:
        """Make an empty place of the same schema, and return what gives all of that to the driver again, and nothing else."""

    async def stored(self, backend: Backend) -> int | None:
        """Bytes that what was written occupies, without what is only there until the engine has tidied up."""
        return await backend.size()

    def engine_cpu_s(self) -> float:
        """CPU time so far, in seconds, of an engine that is another process."""
        return 0.0

    async def stop(self) -> None:  # noqa: B027 - as in `start`
        """Let go of everything."""
