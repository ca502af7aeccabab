"""What the SQLite backend costs beside SQLite itself: `python -m tests.benchmarks.sqlite_backend [--spans 1000000]`.

The floor is the bare bulk insert of the same rows: the statements and values that the writer has bound, run again without
making them. CPU time of the process, medians; shared machines differ by the hour, so only the ratio counts. With `--spans`
a file of so many is filled, and questions are asked of it.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import Batch, Context, Source, Wanted
from collector.exporters.sqlite import schema
from collector.exporters.sqlite.backend import SqliteBackend
from collector.exporters.sqlite.connection import open_writer
from collector.exporters.sqlite.settings import SqliteSettings
from collector.exporters.sqlite.write import Writer
from collector.otlp.block import Block
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from collector.testing import otlp

ROUNDS = 3
BATCH_BLOCKS_RECORDS = 8192
TIME_NS = 1_790_000_000_000_000_000
MAKE: dict[Signal, Callable[..., bytes]] = {TRACES: otlp.traces, LOGS: otlp.logs, METRICS: otlp.metrics}


class Recorded:
    """A connection that remembers what it was asked."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.calls: list[tuple[bool, str, Any]] = []

    def execute(self, statement: str, parameters: Any = ()) -> sqlite3.Cursor:
        self.calls.append((False, statement, parameters))
        return self._connection.execute(statement, parameters)

    def executemany(self, statement: str, rows: Iterable[Any]) -> sqlite3.Cursor:
        found = list(rows)
        self.calls.append((True, statement, found))
        return self._connection.executemany(statement, found)

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction


def batches_of(signal: Signal, records: int, request: int, first: int = 0) -> list[Batch]:
    """Batches of about `BATCH_BLOCKS_RECORDS` records, in requests of so many."""
    blocks: list[Block] = []
    end = first
    while end < first + records:
        blocks.append(scan(signal, MAKE[signal](request, seed=end, time_ns=TIME_NS + end * 1_000_000), end))
        end = blocks[-1].end_offset
    each = max(1, BATCH_BLOCKS_RECORDS // request)
    shares = [blocks[at : at + each] for at in range(0, len(blocks), each)]
    return [Batch(Source("0" * 32, "", signal), tuple(one), one[0].base_offset, one[-1].end_offset) for one in shares]


def opened(directory: str, name: str) -> sqlite3.Connection:
    settings = SqliteSettings(path=os.path.join(directory, name))
    connection = open_writer(settings)
    schema.bring_up(connection, settings.path)
    return connection


def writing(directory: str, signal: Signal, records: int, request: int) -> None:
    batches = batches_of(signal, records, request)
    count = sum(one.records for one in batches)
    name = f"{signal.name}-{request}"
    with closing(opened(directory, f"{name}-recorded")) as connection:
        recorded = Recorded(connection)
        writer = Writer(recorded)  # type: ignore[arg-type]
        for batch in batches:
            writer.write(batch)
    ours, bare = [], []
    for number in range(ROUNDS):
        with closing(opened(directory, f"{name}-ours-{number}")) as connection:
            writer = Writer(connection)
            began = time.process_time()
            for batch in batches:
                writer.write(batch)
            ours.append((time.process_time() - began) / count * 1e6)
        with closing(opened(directory, f"{name}-bare-{number}")) as connection:
            began = time.process_time()
            for many, statement, rows in recorded.calls:
                (connection.executemany if many else connection.execute)(statement, rows)
            bare.append((time.process_time() - began) / count * 1e6)
    size = os.stat(os.path.join(directory, f"{name}-ours-0")).st_size / count
    mine, floor = statistics.median(ours), statistics.median(bare)
    print(
        f"{signal.name:8} {request:4} a request: {mine:5.1f} µs a record, bare {floor:5.1f} µs, {mine / floor:.2f} times; "
        f"payload {sum(one.payload_bytes for one in batches) / count:.0f} B, file {size:.0f} B a record"
    )


async def asking(directory: str, spans: int) -> None:
    settings = SqliteSettings(path=os.path.join(directory, "asked"))
    with ThreadPoolExecutor(1) as threads:
        context = Context("sqlite", SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, None)
        backend = SqliteBackend(settings, context)
        await backend.start()
        ids = []
        for first in range(0, spans, BATCH_BLOCKS_RECORDS):
            for batch in batches_of(TRACES, BATCH_BLOCKS_RECORDS, 512, first):
                await backend.export(batch)
                ids.append(batch.blocks[0].column("trace_id")[0].tobytes())
        middle = TIME_NS + spans // 2 * 1_000_000
        questions = {
            "a trace": [Wanted(TRACES, trace_ids=(one,)) for one in ids[:100]],
            "newest block": [Wanted(TRACES)] * 10,
            "newest block of a service": [Wanted(TRACES, services=("checkout",))] * 10,
            "a second": [Wanted(TRACES, start_ns=middle, end_ns=middle + 10**9)] * 10,
            "a name that is not there": [Wanted(TRACES, names=("nowhere",))],
        }
        for name, asked in questions.items():
            taken = []
            for wanted in asked:
                began = time.perf_counter()
                async for _ in backend.read(wanted):
                    if name.startswith("newest"):
                        break
                taken.append((time.perf_counter() - began) * 1e3)
            print(f"{name}: {statistics.median(taken):.1f} ms, at most {max(taken):.1f} ms")
        await backend.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--spans", type=int, default=0, help="fill a file with so many, and ask")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        for signal in MAKE:
            writing(directory, signal, arguments.records, 512)
        writing(directory, TRACES, arguments.records // 5, 1)
        if arguments.spans:
            asyncio.run(asking(directory, arguments.spans))


if __name__ == "__main__":
    main()
