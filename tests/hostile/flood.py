"""Attacks by volume: more than the daemon takes, over many connections or over one."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from typing import Any

from collector.otlp.signals import SIGNALS, Signal
from collector.testing import otlp
from tests.hostile.actor import Target, ready
from tests.hostile.exporters import Exporter, GrpcExporter, HttpExporter, nap
from tests.hostile.wire import LOST

SIZES = ((1, 20), (20, 30), (200, 30), (2000, 15), (8000, 4), (20_000, 1))
"""Records of a request, and how often: 400 B to 8 MiB."""


def payloads(sizes: int) -> list[tuple[Signal, int, bytes, int]]:
    """Return what the floods send, in so many of the sizes: signal, records, bytes and weight."""
    return [(one, count, otlp.BUILDERS[one](count), weight) for one in SIGNALS for count, weight in SIZES[:sizes]]


class Counts:
    """What a flood has counted."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self.offered = self.taken = 0
        self.start = time.monotonic()

    async def send(self, exporter: Exporter, choice: tuple[Signal, int, bytes, int]) -> float | None:
        """Send a request, and return what a refused one was told to wait, or None."""
        signal, count, payload, _ = choice
        reply = await exporter.export(signal, payload)
        self.codes[reply.code] += 1
        self.offered += len(payload)
        if reply.wrong or not (reply.ok or reply.retryable):
            self.wrong[f"{reply.code} {reply.wrong}"] += 1
        if reply.ok:
            self.taken += len(payload)
            self.records[signal.name] += count
            return None
        if reply.code == LOST:
            self.unread[signal.name] += count
        return reply.retry_after_s or 0.0

    def result(self, shares: list[int]) -> dict[str, Any]:
        """Return it for the parent; `shares` are what each connection got, in requests that were taken."""
        seconds = time.monotonic() - self.start
        squares = sum(one * one for one in shares)
        return {
            "codes": dict(self.codes),
            "wrong": dict(self.wrong),
            "records": dict(self.records),
            "unread": dict(self.unread),
            "offered_mb_s": round(self.offered / seconds / 1e6, 1),
            "taken_mb_s": round(self.taken / seconds / 1e6, 1),
            # Jain's index: 1 when all got the same, 1/n when one got everything.
            "fairness": round(sum(shares) ** 2 / (len(shares) * squares), 3) if squares else 0.0,
            "least": min(shares, default=0),
            "most": max(shares, default=0),
        }


async def flood(target: Target, connections: int = 1000, rude: float = 0.5, sizes: int = len(SIZES)) -> dict[str, Any]:
    """Send all sizes and signals over both transports as fast as answers come.

    A share of the connections is rude: it does not wait when it is told to.
    """
    exporters: list[Exporter] = [
        GrpcExporter(target.grpc) if i % 2 else HttpExporter(target.http) for i in range(connections)
    ]
    choices = payloads(sizes)
    weights = [one[-1] for one in choices]
    counts = Counts()
    taken = [0] * connections
    ready()

    async def run(index: int, exporter: Exporter) -> None:
        is_rude = index < rude * connections
        while not target.until.is_set():
            wait = await counts.send(exporter, random.choices(choices, weights)[0])
            if wait is None:
                taken[index] += 1
            elif await nap(target.until, 0.001 if is_rude else wait):
                return

    tasks = [asyncio.create_task(run(index, one)) for index, one in enumerate(exporters)]
    await target.until.wait()
    await asyncio.wait(tasks, timeout=3)
    for task in tasks:
        if not task.done():
            # It may yet be taken.
            for signal in SIGNALS:
                counts.unread[signal.name] += SIZES[-1][0]
    return counts.result(taken)


async def greedy(target: Target, streams: int = 400, records: int = 2000) -> dict[str, Any]:
    """Keep hundreds of calls under way on one gRPC connection, waiting for nothing."""
    exporter = GrpcExporter(target.grpc)
    choices = [(one, records, otlp.BUILDERS[one](records), 1) for one in SIGNALS]
    counts = Counts()
    await exporter.open()
    ready()

    async def run() -> None:
        while not target.until.is_set():
            if await counts.send(exporter, random.choice(choices)) is not None:
                await asyncio.sleep(0.001)

    tasks = [asyncio.create_task(run()) for _ in range(streams)]
    await target.until.wait()
    await asyncio.wait(tasks, timeout=3)
    for task in tasks:
        if not task.done():
            for signal in SIGNALS:
                counts.unread[signal.name] += records
    return counts.result([counts.codes["grpc 0"]])
