"""S6: every record with another trace id, service and name. Bytes stay inside, and Ringtail's own series stay as many.

RINGTAIL_TEST_CARDINALITY says how many of each; a million in docs/security.md.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from tests.daemon import Daemon
from tests.fuzz.wire import varint
from tests.hostile.resident import growth

COUNT = int(os.environ.get("RINGTAIL_TEST_CARDINALITY", "30000"))
EACH = 1000
RING_BYTES = 16 << 20
SLACK = 96 << 20
"""Beyond the rings: the logs' key indexes, what is being received, and what the allocator keeps."""
TIME_NS = 1_790_000_000_000_000_000


def delimited(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def request(signal: Signal, first: int, chance: Random) -> bytes:
    """`EACH` records, each of a service, a name and ids of its own; quicker than by the protobuf library."""
    made = []
    for number in range(first, first + EACH):
        text = b"%s-%012d" % (signal.name.encode(), number)
        pair = delimited(1, b"unique") + delimited(2, delimited(1, text))
        time = TIME_NS.to_bytes(8, "little")
        if signal is TRACES:
            ids = delimited(1, chance.randbytes(16)) + delimited(2, chance.randbytes(8))
            record = delimited(2, ids + delimited(5, text) + b"\x39" + time + delimited(9, pair))
        elif signal is LOGS:
            ids = delimited(9, chance.randbytes(16)) + delimited(10, chance.randbytes(8))
            record = delimited(2, b"\x09" + time + delimited(5, delimited(1, text)) + delimited(6, pair) + ids)
        else:
            point = b"\x19" + time + b"\x21" + bytes(8) + delimited(7, pair)
            record = delimited(2, delimited(1, text) + delimited(5, delimited(1, point)))
        service = delimited(1, b"service.name") + delimited(2, delimited(1, b"service-" + text))
        made.append(delimited(1, delimited(1, delimited(1, service)) + delimited(2, record)))
    return b"".join(made)


def own_series(daemon: Daemon) -> set[str]:
    text = daemon.get("/metrics").body.decode()
    return {line.rpartition(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}


def test_cardinality_costs_no_more_than_its_bytes(tmp_path: Path) -> None:
    chance = Random(6)
    with Daemon(
        tmp_path,
        "wal.sync=never",
        "wal.retention.max_bytes=64MiB",
        *(f"stores.{signal.name}.max_bytes={RING_BYTES}" for signal in SIGNALS),
    ) as daemon:
        for signal in SIGNALS:
            assert daemon.export(f"/v1/{signal.name}", request(signal, 0, chance)).code == 200
        daemon.get("/metrics")
        before = own_series(daemon)
        with growth(daemon) as grown:
            for signal in SIGNALS:
                for first in range(EACH, COUNT, EACH):
                    answer = daemon.export(f"/v1/{signal.name}", request(signal, first, chance))
                    while answer.code in (429, 503):
                        answer = daemon.export(f"/v1/{signal.name}", request(signal, first, chance))
                    assert answer.code == 200, answer
        assert own_series(daemon) == before
        assert grown.bytes <= len(SIGNALS) * RING_BYTES + SLACK
        for signal, stats in daemon.stats().items():
            assert stats["total_bytes"] <= RING_BYTES
            assert stats["records"] + stats["evicted"] == COUNT, signal
        for path in ("/api/v2/search/tags", "/api/v2/search/tag/resource.service.name/values", "/metrics/received",
                     "/api/v1/labels", "/loki/api/v1/labels", "/loki/api/v1/label/service_name/values"):  # fmt: skip
            assert daemon.get(path).code in (200, 400, 422), path
