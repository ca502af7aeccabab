"""Well-behaved clients: a steady rate, one request at a time on each connection, and retries as the specification has them.

Their goodput is what was acknowledged of what was due, the backlog of refused requests included; latency is from the
first sending of a request to its acknowledgement, and, apart from it, of the attempt that was taken.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from collector.otlp.signals import SIGNALS, TRACES
from collector.testing import otlp
from tests.hostile.actor import Target, ready
from tests.hostile.exporters import Exporter, GrpcExporter, HttpExporter, nap
from tests.hostile.wire import LOST

GRACE_S = 2.0
"""How long after the end a request that was due before may still be acknowledged."""
JITTER = (1.0, 1.3)
"""What a client waits, in times of what it was told: never less."""


@dataclass(slots=True)
class Tally:
    """What clients have counted."""

    due: int = 0
    acknowledged: int = 0
    records: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    """Records of requests without an answer."""
    codes: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    """Refusals that are not retryable, or not said properly."""
    seconds: list[float] = field(default_factory=list)
    attempt_seconds: list[float] = field(default_factory=list)

    def result(self) -> dict[str, Any]:
        """Return it for the parent."""
        return {
            "due": self.due,
            "acknowledged": self.acknowledged,
            "goodput": round(self.acknowledged / max(1, self.due), 4),
            "p50_ms": quantile_ms(self.attempt_seconds, 0.5),
            "p99_ms": quantile_ms(self.attempt_seconds, 0.99),
            "with_retries_p99_ms": quantile_ms(self.seconds, 0.99),
            "records": dict(self.records),
            "unread": dict(self.unread),
            "codes": dict(self.codes),
            "wrong": dict(self.wrong),
        }


def quantile_ms(seconds: list[float], share: float) -> float:
    """Return a quantile in milliseconds; 0 of nothing."""
    if not seconds:
        return 0.0
    ordered = sorted(seconds)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 2)


async def steady(
    target: Target, http: int = 10, grpc: int = 10, rate: float = 5.0, records: int = 50, signal: str = ""
) -> dict[str, Any]:
    """Send `rate` requests a second on each of so many connections; all signals in turn, or one."""
    signals = [one for one in SIGNALS if signal in ("", one.name)]
    payloads = {one: otlp.BUILDERS[one](records) for one in signals}
    tally = Tally()
    exporters: list[Exporter] = [HttpExporter(target.http) for _ in range(http)]
    exporters += [GrpcExporter(target.grpc) for _ in range(grpc)]
    for begin in range(0, len(exporters), 100):
        await asyncio.gather(*(one.open() for one in exporters[begin : begin + 100]))  # type: ignore[attr-defined]
    ready()
    start = time.monotonic()
    until = target.until

    async def run(index: int, exporter: Exporter) -> None:
        due = start + (index + random.random()) / len(exporters) / rate
        turn = index
        while not until.is_set():
            wait = due - time.monotonic()
            if wait > 0 and await nap(until, wait):
                return
            due += 1 / rate
            one = signals[turn % len(signals)]
            turn += 1
            first = time.monotonic()
            while True:
                begun = time.monotonic()
                reply = await exporter.export(one, payloads[one])
                tally.codes[reply.code] += 1
                if reply.wrong or not (reply.ok or reply.retryable):
                    tally.wrong[f"{reply.code} {reply.wrong}"] += 1
                if reply.code == LOST:
                    tally.unread[one.name] += records
                if reply.ok:
                    now = time.monotonic()
                    tally.acknowledged += 1
                    tally.records[one.name] += records
                    tally.seconds.append(now - first)
                    tally.attempt_seconds.append(now - begun)
                    break
                if await nap(until, (reply.retry_after_s or 1.0) * random.uniform(*JITTER)):
                    return

    tasks = [asyncio.create_task(run(index, one)) for index, one in enumerate(exporters)]
    await until.wait()
    tally.due = int((time.monotonic() - start) * rate * len(exporters))
    _, late = await asyncio.wait(tasks, timeout=GRACE_S)
    for task in late:
        task.cancel()
        tally.unread[signals[0].name] += records if len(signals) == 1 else 0
        for one in signals if len(signals) > 1 else ():
            tally.unread[one.name] += records
    for task in tasks:
        if task.done() and not task.cancelled() and (error := task.exception()):
            raise error
    tally.acknowledged = min(tally.acknowledged, tally.due)
    return tally.result()


async def flat_out(target: Target, http: int = 100, grpc: int = 50, records: int = 50) -> dict[str, Any]:
    """Send as fast as answers come, on so many connections: what these clients can reach."""
    payload = otlp.traces(records)
    exporters: list[Exporter] = [HttpExporter(target.http) for _ in range(http)]
    exporters += [GrpcExporter(target.grpc) for _ in range(grpc)]
    codes: Counter[str] = Counter()
    ready()
    start = time.monotonic()

    async def run(exporter: Exporter) -> None:
        while not target.until.is_set():
            codes[(await exporter.export(TRACES, payload)).code] += 1

    await asyncio.gather(*(run(one) for one in exporters))
    done = codes["200"] + codes["grpc 0"]
    return {
        "rate": done / (time.monotonic() - start),
        "codes": dict(codes),
        "records": {"traces": done * records},
        "unread": {"traces": codes[LOST] * records},
    }
