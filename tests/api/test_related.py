"""`/api/related`: a trace's log records, and a log record's trace, from ring and log."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from collector.otlp.signals import LOGS, METRICS, TRACES
from tests.api.asgi import Answer, call
from tests.live import Live

S = 10**9
START = 1_700_000_000 * S
TRACE, OTHER = b"\1" * 16, b"\2" * 16
ROOT, CHILD, GONE = b"root1234", b"child123", b"gone1234"


def spans() -> bytes:
    """A root in `shop` and two children in `db`: one failed, one whose parent is not there."""
    made = TRACES.request_type()
    for service, rows in (
        ("shop", [(ROOT, b"", "GET /", 0, 3 * S, 1)]),
        ("db", [(CHILD, ROOT, "SELECT", S, 2 * S, 2), (b"orphan12", GONE, "q", S, S, 0)]),
    ):
        envelope = made.resource_spans.add()
        envelope.resource.attributes.add(key="service.name").value.string_value = service
        for span, parent, name, start, end, status in rows:
            envelope.scope_spans.add().spans.add(
                trace_id=TRACE,
                span_id=span,
                parent_span_id=parent,
                name=name,
                start_time_unix_nano=START + start,
                end_time_unix_nano=START + end,
            ).status.code = status  # type: ignore[assignment]
    return made.SerializeToString()


def logs(*records: tuple[int, bytes, bytes, str], severity: int = 9) -> bytes:
    """Log records of `db`: (seconds, trace, span, body)."""
    made = LOGS.request_type()
    envelope = made.resource_logs.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = "db"
    scope = envelope.scope_logs.add()
    for seconds, trace, span, body in records:
        one = scope.log_records.add(
            time_unix_nano=START + seconds * S, trace_id=trace, span_id=span, severity_number=severity
        )
        one.body.string_value = body
    return made.SerializeToString()


async def ask(live: Live, **query: Any) -> Answer:
    return await call(live.app, "/api/related", query)


async def asked(live: Live, **query: Any) -> Any:
    answer = await ask(live, **query)
    assert answer.status == 200, answer.text
    return answer.json


def bodies(answer: Any) -> dict[str, list[Any]]:
    return {bytes.fromhex(one["spanId"]).decode(): [r["body"] for r in one["logRecords"]] for one in answer["spans"]}


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    """Rings of four records: most of what was sent is in the logs only."""
    async with Live(tmp_path, capacity=4) as made:
        await made.stores["traces"].append(spans())
        store = made.stores["logs"]
        await store.append(logs((2, TRACE, CHILD, "late"), (1, TRACE, ROOT, "begun"), (1, OTHER, ROOT, "of another")))
        await store.append(logs((2, TRACE, CHILD, "failed"), severity=17))
        await store.append(logs(*[(5, b"", b"", "of none")] * 3))
        await store.append(logs((3, TRACE, b"", "at the end")))
        yield made


async def test_from_a_trace_to_its_logs(live: Live) -> None:
    answer = await asked(live, trace_id=TRACE.hex())
    assert answer["traceId"] == TRACE.hex()
    assert answer["trace"] == {
        "rootServiceName": "shop",
        "rootTraceName": "GET /",
        "rootSpanId": ROOT.hex(),
        "startTimeUnixNano": str(START),
        "durationNano": str(3 * S),
        "spanCount": 3,
        "errorCount": 1,
        "serviceStats": {"shop": {"spanCount": 1, "errorCount": 0}, "db": {"spanCount": 2, "errorCount": 1}},
        "complete": False,
        "message": f"the trace is incomplete: 1 parent span is not held ({GONE.hex()}): not received, so far",
    }
    assert bodies(answer) == {"root1234": ["begun"], "child123": ["late", "failed"], "": ["at the end"]}
    root, child, none = answer["spans"]
    assert (root["name"], root["service"], root["error"], root["parentSpanId"]) == ("GET /", "shop", False, "")
    assert (child["name"], child["error"], child["durationNano"]) == ("SELECT", True, str(S))
    assert none == {"spanId": "", "held": False, "logRecords": none["logRecords"]}
    assert child["logRecords"][1] == {
        "offset": "3",
        "timeUnixNano": str(START + 2 * S),
        "level": "error",
        "severityNumber": 17,
        "severityText": "",
        "service": "db",
        "body": "failed",
        "attributes": {},
    }
    assert "nextCursor" not in answer
    coverage = answer["coverage"]
    assert coverage["traces"] == {"oldestOffset": "0", "oldestOffsetInMemory": "0", "nextOffset": "3"}
    assert coverage["logs"] == {"oldestOffset": "0", "oldestOffsetInMemory": "4", "nextOffset": "8"}


async def test_of_one_span(live: Live) -> None:
    answer = await asked(live, trace_id=TRACE.hex(), span_id=CHILD.hex())
    assert bodies(answer) == {"child123": ["late", "failed"]}
    silent = await asked(live, trace_id=TRACE.hex(), span_id=b"orphan12".hex())
    assert bodies(silent) == {"orphan12": []}
    assert silent["spans"][0]["name"] == "q"


async def test_pages_by_time_and_offset_and_nothing_new_between(live: Live) -> None:
    seen: list[str] = []
    cursor = ""
    for _ in range(4):
        answer = await asked(live, trace_id=TRACE.hex(), limit=1, cursor=cursor)
        seen += [body for found in bodies(answer).values() for body in found]
        cursor = answer.get("nextCursor", "")
        await live.stores["logs"].append(logs((9, TRACE, ROOT, "new")))
    assert (seen, cursor) == (["begun", "late", "failed", "at the end"], "")


async def test_pages_are_what_a_plain_search_finds(tmp_path: Path) -> None:
    """Over ring and log, with times out of order and twice, and small pages."""
    chance = Random(7)
    held: list[tuple[int, int, bytes, bytes]] = []
    async with Live(tmp_path, capacity=60, segment_bytes=4096) as live:
        for _ in range(40):
            rows = [
                (chance.randrange(20), chance.choice((TRACE, OTHER, b"")), chance.choice((ROOT, CHILD)), "x")
                for _ in range(5)
            ]
            held += [(row[0], len(held) + at, row[1], row[2]) for at, row in enumerate(rows)]
            await live.stores["logs"].append(logs(*rows))
        for span in (None, CHILD):
            expected = [one[1] for one in sorted(held) if one[2] == TRACE and span in (None, one[3])]
            query: dict[str, Any] = {"trace_id": TRACE.hex(), "limit": 7} | ({"span_id": span.hex()} if span else {})
            seen: list[int] = []
            cursor = None
            while cursor != "":
                answer = await asked(live, **query, cursor=cursor or "")
                page = [record for one in answer["spans"] for record in one["logRecords"]]
                seen += sorted((int(one["offset"]) for one in page), key=lambda offset: (held[offset][0], offset))
                cursor = answer.get("nextCursor", "")
            assert seen == expected
            assert len(seen) > 30


async def test_from_a_log_record_to_its_trace(live: Live) -> None:
    answer = await asked(live, log_offset=3)
    assert (answer["log"]["body"], answer["log"]["spanId"]) == ("failed", CHILD.hex())
    whole = await asked(live, trace_id=TRACE.hex())
    assert {name: answer[name] for name in whole} == whole
    none = await asked(live, log_offset=5)
    assert (none["log"]["body"], none["traceId"], none["trace"], none["spans"]) == ("of none", "", None, [])


async def test_a_trace_without_spans_or_without_logs(live: Live) -> None:
    answer = await asked(live, trace_id=OTHER.hex())
    assert (answer["trace"], bodies(answer)) == (None, {"root1234": ["of another"]})
    assert answer["spans"][0]["held"] is False
    await live.send(1)
    answer = await asked(live, trace_id=(b"\1" * 16).hex(), span_id="0" * 15 + "1")
    assert answer["trace"]["spanCount"] == 4


async def test_exemplars(live: Live) -> None:
    await live.stores["traces"].append(spans())
    made = METRICS.request_type()
    envelope = made.resource_metrics.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = "db"
    metric = envelope.scope_metrics.add().metrics.add(name="db.duration")
    metric.histogram.aggregation_temporality = 2  # type: ignore[assignment]
    for trace, late_s in ((TRACE, 60), (OTHER, 60), (TRACE, 301 + 3)):
        point = metric.histogram.data_points.add(time_unix_nano=START + late_s * S, count=1)
        point.attributes.add(key="op").value.string_value = "SELECT"
        point.attributes.add(key="looks like one").value.bytes_value = b"\x2a\x10" + TRACE
        for value in (1.5, math.inf):
            exemplar = point.exemplars.add(trace_id=trace, span_id=CHILD, time_unix_nano=START + S)
            exemplar.as_double = value
    assert (await live.stores["metrics"].append(made.SerializeToString())).records == 3
    found = (await asked(live, trace_id=TRACE.hex()))["exemplars"]
    assert [one["value"] for one in found] == [1.5, "Infinity"]
    assert (found[0]["metric"], found[0]["service"], found[0]["spanId"]) == ("db.duration", "db", CHILD.hex())
    assert found[0]["attributes"]["op"] == "SELECT"
    assert (await asked(live, trace_id=TRACE.hex(), span_id=ROOT.hex()))["exemplars"] == []


@pytest.mark.parametrize(
    ("query", "status", "says"),
    [
        ({}, 400, "what is asked about is missing"),
        ({"trace_id": "xyz"}, 400, "hex digits"),
        ({"span_id": "0" * 16}, 400, "what is asked about is missing"),
        ({"trace_id": "1", "span_id": "12"}, 400, "span_id must have 16 hex digits"),
        ({"trace_id": "1", "log_offset": "1"}, 400, "give it alone"),
        ({"log_offset": "-1"}, 400, "log_offset must be a whole number"),
        ({"log_offset": "8"}, 404, "from 0 to before 8"),
        ({"trace_id": "1"}, 404, "neither a span nor a log record"),
        ({"trace_id": TRACE.hex(), "span_id": "a" * 16}, 404, "neither the span"),
        ({"trace_id": TRACE.hex(), "limit": "5001"}, 400, "limit must be"),
        ({"trace_id": TRACE.hex(), "cursor": "x"}, 400, "cursor is"),
    ],
)
async def test_refused(live: Live, query: dict[str, str], status: int, says: str) -> None:
    answer = await ask(live, **query)
    assert (answer.status, says in answer.text) == (status, True), answer.text
