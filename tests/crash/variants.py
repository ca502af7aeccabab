"""Daemons that are not quite Ringtail, for the crash tests.

    python -m tests.crash.variants VARIANT run --set …

`stepwise` is right, but takes its time: files are written in pieces, and there is a pause before each change to a file
or directory. So kills meet half-written frames, segments without a name, indexes not yet renamed, which on a fast disk
is rare. And it compacts as soon as it can, so that kills meet that, too. `faulty` is right, with files that fail and a
clock that jumps as orders.py says. `early`, `retrying`, `hasty` and `careless` are broken: the first acknowledges a batch before
it is written, and writes it when the next one comes; the second, with orders as `faulty`, takes a sync that fails for one that
did not; the third moves an exporter's cursor when a batch is handed over, not when it was taken; the fourth's backends take
spans as `early` does, and do not know log records that come again, as the first ones do. The crash tests must catch them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import collector.daemon
import collector.exporters.exports
import collector.tenant
from collector.cli import main
from collector.errors import Retryable
from collector.exporters.base import Batch, Source
from collector.exporters.delivery import Delivery
from collector.otlp.signals import LOGS, TRACES
from collector.wal import compactor
from collector.wal.commit import Committer
from collector.wal.cursor import State
from collector.wal.files import BLOCK_BYTES, OperatingSystemFiles
from tests.crash.orders import OrderedClock, OrderedFiles

PAUSE_S = 0.002
PIECES = 4
"""Into how many steps a write falls."""


class StepwiseFiles(OperatingSystemFiles):
    """The operating system's files, with time for a kill between any two steps."""

    def pwritev(self, handle: int, pieces: Sequence[bytes | memoryview], position: int, *, sync: bool = False) -> int:
        """Write a part, as the system call may."""
        time.sleep(PAUSE_S)
        first = memoryview(pieces[0])
        # In whole blocks and where they lie: writes may be direct ones.
        part = len(first) // PIECES // BLOCK_BYTES * BLOCK_BYTES or min(len(first), BLOCK_BYTES)
        return super().pwritev(handle, [first[:part]], position, sync=sync)

    def fdatasync(self, handle: int) -> None:
        time.sleep(PAUSE_S)
        super().fdatasync(handle)

    def allocate(self, handle: int, position: int, length: int) -> None:
        time.sleep(PAUSE_S)
        super().allocate(handle, position, length)

    def truncate(self, handle: int, size: int) -> None:
        time.sleep(PAUSE_S)
        super().truncate(handle, size)

    def rename(self, source: str, target: str) -> None:
        time.sleep(PAUSE_S)
        super().rename(source, target)

    def unlink(self, path: str) -> None:
        time.sleep(PAUSE_S)
        super().unlink(path)

    def fsync_directory(self, path: str) -> None:
        time.sleep(PAUSE_S)
        super().fsync_directory(path)


class EarlyCommitter(Committer[Any]):
    """Acknowledges, and then keeps the batch for a while."""

    _kept: tuple[Any, ...] = ()

    def _commit(self, group: list[Any]) -> None:
        log = self._log
        offset = log.next_offset + sum(batch.count for batch in self._kept)
        for batch in group:
            self._done(batch, offset)
            offset += batch.count
        for batch in self._kept:
            log.append(batch.payloads, batch.count, batch.min_time, batch.max_time)
        log.sync()
        self._kept = tuple(group)


class DeafFiles(OrderedFiles):
    """Takes the second fsync for the truth."""

    def _sync(self, handle: int) -> None:
        try:
            super()._sync(handle)
        except OSError:
            pass


class HastyDelivery(Delivery):
    """Takes a batch that was handed over for one that was taken."""

    def _state(self) -> State:
        return State(self._taken)

    async def _hand_over(self, batch: Batch) -> None:
        await self._note(sync=True)
        await super()._hand_over(batch)


def careless(export: Any) -> Any:
    """Return what a careless backend does in place of its `export`."""
    kept: dict[Source, Batch] = {}
    answered: set[Source] = set()

    async def instead(self: Any, batch: Batch) -> Any:
        source = batch.source
        if source.signal is TRACES:
            before, kept[source] = kept.get(source), batch
            return await export(self, before) if before is not None else None
        if source.signal is LOGS:
            found = await export(self, replace(batch, source=source._replace(instance=os.urandom(16).hex())))
            if source not in answered:
                answered.add(source)
                raise Retryable("the answer was lost")
            return found
        return await export(self, batch)

    return instead


def _careless(kind: Any) -> Any:
    def make(settings: Any, context: Any) -> Any:
        made = kind.make(settings, context)
        of = type("Careless", (type(made),), {"export": careless(type(made).export)})
        made.__class__ = of
        return made

    return replace(kind, make=make)


def run() -> None:
    """Make of the daemon what the first argument says, and go on as `ringtail`."""
    variant = sys.argv.pop(1)
    if variant == "stepwise":
        collector.daemon.OperatingSystemFiles = StepwiseFiles  # type: ignore[attr-defined]  # on purpose
        compactor.SHARE, compactor.IDLE_S = 0.5, 0.01  # type: ignore[misc]  # on purpose
    elif variant in ("faulty", "retrying"):
        files = OrderedFiles if variant == "faulty" else DeafFiles
        collector.daemon.OperatingSystemFiles = lambda: files(Path.cwd())  # type: ignore[attr-defined]  # on purpose
        collector.daemon.SystemClock = lambda: OrderedClock(Path.cwd())  # type: ignore[attr-defined]  # on purpose
        compactor.IDLE_S = 0.01  # type: ignore[misc]  # on purpose
    elif variant == "early":
        collector.tenant.Committer = EarlyCommitter  # type: ignore[attr-defined]  # on purpose
    elif variant == "careless":
        find = collector.exporters.exports.find
        collector.exporters.exports.find = lambda name: _careless(find(name))  # on purpose
    elif variant == "hasty":
        collector.exporters.exports.Delivery = HastyDelivery  # type: ignore[attr-defined]  # on purpose
    else:
        raise SystemExit(f"no variant {variant}")
    main()


if __name__ == "__main__":
    run()
