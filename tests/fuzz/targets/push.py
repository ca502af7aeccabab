"""Loki's push requests: any bytes are a request that becomes valid OTLP, or are refused by name.

The first byte says how they come: protobuf, snappy around it, JSON, or gzipped JSON. What is made of them is read by the
protobuf library, and by the scanner that the store reads it with.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

from collector.errors import Malformed, TooLarge, Unsupported
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.receivers.loki import JSON, PROTOBUF, Converter, unpacked
from tests.fuzz.target import Target
from tests.receivers.pushing import request, snappy

PLAIN, SNAPPY, TEXT, GZIPPED = range(4)
STREAMS = (
    (
        '{job="varlogs", filename="/var/log/syslog"}',
        [(10**18, "one"), (10**18 + 1, "two", {"user": "a", "level": "warn"})],
    ),
    (
        '{app="shop", k8s_pod_name="p", level="error"}',
        [(10**18, "é", {"trace_id": "0af7651916cd43dd8448eb211c80319c"})],
    ),
)


def _check(data: bytes) -> None:
    if not data:
        return
    kind, body = data[0] % 4, data[1:]
    told: list[int] = []
    try:
        if kind == PLAIN:
            made, media_type = body, PROTOBUF
        else:
            media_type = PROTOBUF if kind == SNAPPY else JSON
            made = unpacked(body, media_type, "gzip" if kind == GZIPPED else "", told.append)
        converted = Converter().convert(made, media_type)
    except (Malformed, TooLarge, Unsupported) as error:
        str(error).encode()
        return
    payload = LOGS.request_type.FromString(converted.payload)
    records = sum(len(scope.log_records) for one in payload.resource_logs for scope in one.scope_logs)
    if records:
        block = scan(LOGS, converted.payload, 0)
        assert block.count == records
    assert converted.refused >= 0


def _seeds() -> Iterator[bytes]:
    made = request(STREAMS).SerializeToString()
    streams = [
        {"stream": {"job": "x"}, "values": [["1800000000000000000", "line"], ["1800000000000000000", "é", {"a": "b"}]]}
    ]
    text = json.dumps({"streams": streams}).encode()
    yield bytes([PLAIN]) + made
    yield bytes([SNAPPY]) + snappy(made)
    yield bytes([TEXT]) + text
    yield bytes([GZIPPED]) + gzip.compress(text, mtime=0)
    yield bytes([PLAIN]) + made.replace("é".encode(), b"\xff\xfe")
    yield bytes([TEXT]) + text.replace(b'"x"', b'""')


TARGETS = [Target("push", _check, _seeds, (b'{"streams":[', b'"values":', b"\x12\x00", b'{a="b"}'))]
