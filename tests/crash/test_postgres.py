"""The backend `postgres` under load while the server, Ringtail or both are killed: what was acknowledged is there, once.
Row R20. `make torture-exporters` is the long form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from tests.crash.storing import CARELESS, Storing
from tests.daemon import COMMAND
from tests.effort import Effort
from tests.exporters.postgres_server import Server

IDS = {
    TRACES: "SELECT span_id FROM ringtail.spans",
    LOGS: "SELECT span_id FROM ringtail.log_records",
    METRICS: "SELECT value::bigint FROM ringtail.data_points",
}


def found(server: Server) -> dict[Signal, Counter[int]]:
    """The numbers that the records of each signal have, and how often each is there."""
    with server.connect() as connection:
        return {
            signal: Counter(
                one if isinstance(one, int) else int.from_bytes(one, "big")
                for (one,) in connection.execute(query)  # type: ignore[misc]
            )
            for signal, query in IDS.items()
        }


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    try:
        yield one
    finally:
        one.stop()


def storing(directory: Path, seed: int, server: Server, command: Sequence[str] = COMMAND) -> Storing:
    keys = (
        *(f"endpoint=127.0.0.1:{server.port}", f"database={server.database}", f"username={server.user}"),
        *(f"password={server.password}", "tls.insecure=true", "partitions_ahead=0"),
    )
    return Storing(directory, seed, server, "postgres", keys, frozenset({"upkeep fails"}), command)


@pytest.mark.slow
def test_what_was_acknowledged_is_stored_once_whoever_is_killed(tmp_path: Path, effort: Effort, server: Server) -> None:
    storing(tmp_path, effort.seed, server).runs_well(lambda: found(server), effort)


@pytest.mark.slow
def test_a_backend_that_acknowledges_too_early_or_writes_twice_is_caught(tmp_path: Path, server: Server) -> None:
    """The canary."""
    storing(tmp_path, 5, server, CARELESS).is_caught(lambda: found(server))
