"""The writer of the SQLite backend killed again and again, with nothing around it.

    python -m tests.crash.killed_sqlite DIRECTORY SEED KILLS [early]

Hundreds of kills where tests/crash/test_sqlite.py has tens of whole daemons. The writer is forked from this process, which stays
single-threaded for that. It begins before the position that the file tells, as after a cursor was lost, and tells through a
pipe what it would acknowledge. It is killed a random time after a random
number of batches, one in five while it opens the file, or makes it. After
each kill the file must be whole, hold every offset before its position once and none behind it, and what was acknowledged
lies before that. A record's time is its offset.

Prints what was done as JSON; what is wrong is an AssertionError. `early` is the canary: it acknowledges, then writes.
"""

from __future__ import annotations

import json
import os
import random
import select
import shutil
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from typing import Final

from collector.exporters.base import Batch, Source
from collector.exporters.sqlite import schema
from collector.exporters.sqlite.connection import open_writer
from collector.exporters.sqlite.settings import SqliteSettings
from collector.exporters.sqlite.write import Writer
from collector.otlp.scan import scan
from collector.otlp.signals import BY_NAME, LOGS, METRICS, SIGNALS, TRACES, Signal

KILLS_PER_FILE: Final = 15
BATCHES_MAX: Final = 16
"""How many batches a writer stores before its last moments, at most."""
LAST_S: Final = (0.0, 0.01)
"""How long those are."""
OPENING_S: Final = (0.0, 0.01)
IN_OPENING: Final = 0.2
REPEATED: Final = 300
"""Records that are handed over again, at most."""
PATIENCE_S: Final = 60.0
INSTANCE: Final = "0" * 32
TABLES: Final = {TRACES: "otlp_spans", LOGS: "otlp_logs", METRICS: "otlp_points"}


def payload(of: Signal, offset: int, count: int) -> bytes:
    """A request whose records' times are their offsets."""
    request = of.request_type()
    for at in range(offset, offset + count):
        if of is TRACES:
            scope = request.resource_spans.add().scope_spans.add()
            scope.spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, start_time_unix_nano=at, end_time_unix_nano=at)
        elif of is LOGS:
            record = request.resource_logs.add().scope_logs.add().log_records.add(time_unix_nano=at)
            record.body.string_value = f"write {at} of many words"
        else:
            metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=f"writes.{at % 7}")
            metric.gauge.data_points.add(time_unix_nano=at, as_int=at)
    return bytes(request.SerializeToString())


def batch_of(of: Signal, offset: int, chance: random.Random) -> Batch:
    """The next batch of a signal."""
    blocks = []
    end = offset
    for _ in range(chance.choice((1, 3, 20))):
        count = chance.choice((1, 1, 5, 40))
        blocks.append(scan(of, payload(of, end, count), end))
        end += count
    return Batch(Source(INSTANCE, "", of), tuple(blocks), offset, end)


def write(path: str, seed: str, pipe: int, early: bool) -> None:
    """Write until killed, and tell through the pipe what is stored: signal and position."""
    chance = random.Random(seed)
    connection = open_writer(SqliteSettings(path=path))
    schema.bring_up(connection, path)
    writer = Writer(connection)
    at = {}
    for one in SIGNALS:
        position = writer.position(Source(INSTANCE, "", one)) or 0
        at[one] = max(0, position - chance.randint(0, REPEATED))
    os.write(pipe, b"\n")
    while True:
        of = chance.choice(SIGNALS)
        batch = batch_of(of, at[of], chance)
        at[of] = batch.end_offset
        told = f"{of.name} {batch.end_offset}\n".encode()
        if early:
            os.write(pipe, told)
        writer.write(batch)
        os.write(pipe, told)


def fork_writer(path: str, seed: str, early: bool) -> tuple[int, int]:
    """Start a writer: its process id, and the pipe to read from."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    try:
        write(path, seed, writing, early)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    os._exit(1)


def kill_one(path: str, seed: str, early: bool) -> tuple[dict[Signal, int], bool]:
    """Let a writer live for a while: what it has acknowledged, and whether it had opened the file."""
    chance = random.Random(f"kill {seed}")
    child, pipe = fork_writer(path, seed, early)
    told = b""
    try:
        if chance.random() < IN_OPENING:
            time.sleep(chance.uniform(*OPENING_S))
        else:
            lines = chance.randint(1, 1 + BATCHES_MAX)
            while told.count(b"\n") < lines and select.select([pipe], [], [], PATIENCE_S)[0]:
                if not (part := os.read(pipe, 65536)):
                    break
                told += part
            time.sleep(chance.uniform(*LAST_S))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise AssertionError("the writer ended by itself")
        while part := os.read(pipe, 65536):
            told += part
    finally:
        os.close(pipe)
    found: dict[Signal, int] = {}
    for line in told.decode().splitlines():
        if line:
            name, end = line.split()
            found[BY_NAME[name]] = max(int(end), found.get(BY_NAME[name], 0))
    return found, bool(told)


def judge(path: str, acknowledged: Mapping[Signal, int]) -> dict[Signal, int]:
    """Find the file whole, and return the positions that it tells."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        if connection.execute("PRAGMA user_version").fetchone() == (0,):  # killed before it was made
            assert not any(acknowledged.values()), acknowledged
            return {}
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.execute("INSERT INTO otlp_log_text (otlp_log_text) VALUES ('integrity-check')")
        told = {BY_NAME[name]: end for name, end in connection.execute("SELECT signal, position FROM otlp_sources")}
        for one in SIGNALS:
            end = told.get(one, 0)
            # The shared tables are joined, so that a row whose resource or scope was lost does not count.
            rows = connection.execute(
                "SELECT count(*), count(DISTINCT time), coalesce(sum(time), 0), coalesce(sum(r.id & ? != time), 0) "
                f"FROM {TABLES[one]} r JOIN otlp_resources o ON o.id = r.resource_id "
                "JOIN otlp_scopes s ON s.id = r.scope_id",
                (schema.OFFSET_MASK,),
            ).fetchone()
            assert rows == (end, end, end * (end - 1) // 2, 0), f"{one.name} before {end}: {rows}"
            assert end >= acknowledged.get(one, 0), f"{one.name}: {acknowledged[one]} acknowledged, {end} stored"
    return told


def torture(directory: str, seed: int, kills: int, early: bool = False) -> Counter[str]:
    """Kill so many writers; returns what happened how often. AssertionError when anything is wrong."""
    done: Counter[str] = Counter(kills=0)
    while done["kills"] < kills:
        number = done["kills"] // KILLS_PER_FILE
        inside = os.path.join(directory, str(number))
        os.makedirs(inside)
        path = os.path.join(inside, "killed.sqlite")
        acknowledged: Counter[Signal] = Counter()
        stored: dict[Signal, int] = {}
        for turn in range(min(KILLS_PER_FILE, kills - done["kills"])):
            promised, opened = kill_one(path, f"{seed} {number} {turn}", early)
            acknowledged |= Counter(promised)
            stored = judge(path, acknowledged)
            done.update(kills=1, in_opening=not opened)
        done.update(acknowledged_records=acknowledged.total(), stored_records=sum(stored.values()))
        shutil.rmtree(inside)
    return done


if __name__ == "__main__":
    where, number, often = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    print(json.dumps(torture(where, number, often, early="early" in sys.argv[4:])))
