"""The backend `clickhouse` under load while the server, Ringtail or both are killed: what was acknowledged is there, once.
Row R20. `make torture-exporters` is the long form.

The server is chdb, the real engine, behind an HTTP server of the tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from tests.crash.storing import CARELESS, Storing
from tests.daemon import COMMAND
from tests.effort import Effort
from tests.exporters.clickhouse.served import Served
from tests.exporters.clickhouse.server import need_engine

MENDED = "the server knew an insert without having its rows"
IDS = {
    TRACES: "SELECT reinterpretAsUInt64(reverse(unhex(SpanId))), count() FROM otel_traces GROUP BY 1",
    LOGS: "SELECT reinterpretAsUInt64(reverse(unhex(SpanId))), count() FROM otel_logs GROUP BY 1",
    METRICS: "SELECT toUInt64(Value), count() FROM otel_metrics_gauge GROUP BY 1",
}


def found(server: Served) -> dict[Signal, Counter[int]]:
    """The numbers that the records of each signal have, and how often each is there."""
    return {
        signal: Counter({int(one): int(times) for one, times in server.rows(query)}) for signal, query in IDS.items()
    }


def storing(directory: Path, seed: int, server: Served, command: Sequence[str] = COMMAND) -> Storing:
    keys = (f"endpoint={server.url}", "sending_queue.batch.flush_timeout=100ms")
    return Storing(directory, seed, server, "clickhouse", keys, frozenset({MENDED}), command)


@pytest.mark.slow
def test_what_was_acknowledged_is_stored_once_whoever_is_killed(tmp_path: Path, effort: Effort) -> None:
    need_engine()
    server = Served(tmp_path / "server")
    storing(tmp_path, effort.seed, server).runs_well(lambda: found(server), effort)


@pytest.mark.slow
def test_a_backend_that_acknowledges_too_early_or_writes_twice_is_caught(tmp_path: Path) -> None:
    """The canary."""
    need_engine()
    server = Served(tmp_path / "server")
    storing(tmp_path, 5, server, CARELESS).is_caught(lambda: found(server))
