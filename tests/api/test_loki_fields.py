"""Fields and patterns, as Logs Drilldown asks for them, over a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from collector.otlp.signals import LOGS
from collector.query.logql import mining
from tests.api.asgi import call
from tests.live import Live

SECOND = 1_000_000_000
BEGIN = 1_800_000_000 * SECOND
PATH = "/loki/api/v1"

LINES = [
    '{"msg":"order placed","user":{"id":17,"name":"ann"},"took":"12ms","size":"4KB","ok":true,"price":1.5,"tags":["x"]}',
    '{"msg":"order placed","user":{"id":18,"name":"bob"},"took":"15ms","size":"9KB","ok":false,"price":2}',
    'ts=1 caller=main.go:66 took=3s msg="cache \\"warm\\"" service_name=x',
    "plain words and nothing else",
]


def request(lines: list[str], *, step_s: int = 1, **fields: Any) -> bytes:
    resource = {"attributes": [{"key": "service.name", "value": {"string_value": "shop"}}]}
    records = [
        {"time_unix_nano": BEGIN + at * step_s * SECOND, "body": {"string_value": line}} | fields
        for at, line in enumerate(lines)
    ]
    message = LOGS.request_type(resource_logs=[{"resource": resource, "scope_logs": [{"log_records": records}]}])
    return bytes(message.SerializeToString())


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with Live(tmp_path, capacity=10_000) as made:
        yield made


async def ask(live: Live, path: str, **query: Any) -> Any:
    query = {"query": '{service_name="shop"}', "start": BEGIN, "end": BEGIN + 3600 * SECOND} | query
    answer = await call(live.app, f"{PATH}{path}", query)
    assert answer.status == 200, answer.text
    return answer.json


async def test_detected_fields(live: Live) -> None:
    attributes = [{"key": "http.status", "value": {"int_value": 200}}]
    await live.stores["logs"].append(request(LINES, attributes=attributes))
    answer = await ask(live, "/detected_fields")
    assert answer["limit"] == 1000
    found = {one.pop("label"): one for one in answer["fields"]}
    assert found == {
        "http_status": {"type": "int", "cardinality": 1, "parsers": None},
        "detected_level": {"type": "string", "cardinality": 1, "parsers": None},
        "ts": {"type": "int", "cardinality": 1, "parsers": ["logfmt"]},
        "caller": {"type": "string", "cardinality": 1, "parsers": ["logfmt"]},
        "took": {"type": "duration", "cardinality": 3, "parsers": ["logfmt", "json"]},
        "msg": {"type": "string", "cardinality": 2, "parsers": ["logfmt", "json"]},
        "service_name_extracted": {"type": "string", "cardinality": 1, "parsers": ["logfmt"]},
        "user_id": {"type": "int", "cardinality": 2, "parsers": ["json"], "jsonPath": ["user", "id"]},
        "user_name": {"type": "string", "cardinality": 2, "parsers": ["json"], "jsonPath": ["user", "name"]},
        "size": {"type": "bytes", "cardinality": 2, "parsers": ["json"], "jsonPath": ["size"]},
        "ok": {"type": "boolean", "cardinality": 2, "parsers": ["json"], "jsonPath": ["ok"]},
        "price": {"type": "int", "cardinality": 2, "parsers": ["json"], "jsonPath": ["price"]},
    }
    assert len((await ask(live, "/detected_fields", limit=3))["fields"]) == 3
    few = await ask(live, "/detected_fields", line_limit=1, field_limit=500)
    assert {one["label"] for one in few["fields"]} == {"http_status", "detected_level"}
    narrowed = await ask(live, "/detected_fields", query='{service_name="shop"} | json | user_name="ann" | drop msg')
    assert {one["label"] for one in narrowed["fields"]} >= {"user_id", "user_name"}
    assert (await ask(live, "/detected_fields", query='{service_name="other"}')) == {"fields": []}


async def test_values_of_a_detected_field(live: Live) -> None:
    await live.stores["logs"].append(request(LINES))
    assert (await ask(live, "/detected_field/took/values")) == {"values": ["3s", "15ms", "12ms"], "limit": 1000}
    assert (await ask(live, "/detected_field/user_name/values", limit=1)) == {"values": ["bob"], "limit": 1}
    assert (await ask(live, "/detected_field/nothing/values")) == {"values": []}


async def test_patterns(live: Live) -> None:
    lines = [f"user {name} logged in from 10.0.0.{n} after {n}ms" for n in range(6) for name in ("ann", "bob")]
    lines += ["connection refused (host=db-1)", "connection refused (host=db-1)"]
    await live.stores["logs"].append(request(lines, severity_number=9))
    await live.stores["logs"].append(request(["connection refused (host=db-1)"], severity_number=17))
    answer = await ask(live, "/patterns", step="5")
    assert answer == {
        "status": "success",
        "data": [
            {
                "pattern": "user <_> logged in from <_> after <_>",
                "level": "info",
                "samples": [[1_800_000_000, 5], [1_800_000_005, 5], [1_800_000_010, 2]],
            },
            {"pattern": "connection refused (host=db-1)", "level": "info", "samples": [[1_800_000_010, 2]]},
            {"pattern": "connection refused (host=db-1)", "level": "error", "samples": [[1_800_000_000, 1]]},
        ],
    }
    for one in answer["data"]:
        query = f'count_over_time({{service_name="shop"}} |> {one["pattern"]!r} [1h])'.replace("'", '"')
        metric = {"query": f"sum({query})", "time": BEGIN + 3000 * SECOND}
        found = (await call(live.app, f"{PATH}/query", metric)).json["data"]["result"]
        assert int(found[0]["value"][1]) >= sum(count for _, count in one["samples"])


async def test_what_patterns_leave_out_is_told(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "LINES_MAX", 10)
    monkeypatch.setattr(mining, "CLUSTERS_MAX", 2)
    await live.stores["logs"].append(request(["old"]))
    words = ["alpha beta", "gamma delta epsilon", "zeta", "eta theta iota kappa"]
    await live.stores["logs"].append(request(["x", *words, *words]))
    answer = await ask(live, "/patterns")
    assert len(answer["data"]) == 2
    assert [text.partition(" ")[0] for text in answer["warnings"]] == ["8"]
    monkeypatch.setattr(mining, "LINES_MAX", 9)
    answer = await ask(live, "/patterns")
    assert "newest 9 lines, since 2027-01-15T08:00:00Z" in answer["warnings"][0]


async def test_damage_is_told(live: Live) -> None:
    from collector.wal.reader import Damage

    await live.stores["logs"].append(request(LINES))
    log = live.stores["logs"].log
    assert log is not None
    log._note_damage(Damage(0, 2, "made up"))
    for path in ("/query_range", "/detected_fields", "/patterns", "/index/volume"):
        [warning] = (await ask(live, path))["warnings"]
        assert warning.startswith("2 log records cannot be read, from offset 0 on")
