"""The backend `postgres` under load while the server, Ringtail or both are killed: what was acknowledged is there, once.
Row R20. `make torture-exporters` is the long form.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from collector.otlp.signals import LOGS, METRICS, TRACES, Signal
from tests.crash.storing import Storing
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


@pytest.mark.slow
def test_what_was_acknowledged_is_stored_once_whoever_is_killed(tmp_path: Path, effort: Effort) -> None:
    server = Server()
    try:
        keys = (
            *(f"endpoint=127.0.0.1:{server.port}", f"database={server.database}", f"username={server.user}"),
            *(f"password={server.password}", "tls.insecure=true", "partitions_ahead=0"),
        )
        storing = Storing(tmp_path, effort.seed, server, "postgres", keys, frozenset({"upkeep fails"}))
        storing.run(lambda: found(server), effort)
    finally:
        server.stop()
