"""`/api/explain`: what was left out, looked at and found adds up, and the query is run as it is by its own API."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from collector.otlp.signals import LOGS
from collector.query.deadline import Deadline
from collector.query.traceql.conditions import PROBED
from tests.api.asgi import Answer, call
from tests.live import Live

S = 10**9
BLOCKS, RECORDS = 30, 10
"""Requests of log records, and records in each; the ring holds half of them."""


def logs(number: int) -> bytes:
    """Ten records, one second apart from the ones before: in every third request of `db`, else of `shop`."""
    made = LOGS.request_type()
    envelope = made.resource_logs.add()
    service = "db" if number % 3 == 0 else "shop"
    envelope.resource.attributes.add(key="service.name").value.string_value = service
    scope = envelope.scope_logs.add()
    for row in range(RECORDS):
        one = scope.log_records.add(time_unix_nano=(1000 + number) * S + row)
        one.body.string_value = f"line {row} of {number}"
        one.attributes.add(key="row").value.string_value = ("even", "odd")[row % 2]
    return made.SerializeToString()


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    async with Live(tmp_path, capacity=BLOCKS * RECORDS // 2, segment_bytes=4096) as made:
        for number in range(BLOCKS):
            await made.stores["logs"].append(logs(number))
            await made.send(RECORDS)
        yield made


async def ask(live: Live, q: str, language: str = "logql", **query: Any) -> Answer:
    return await call(live.app, "/api/explain", {"q": q, "language": language, **query})


async def explained(live: Live, q: str, language: str = "logql", **query: Any) -> Any:
    times = {"start": "0", "end": "2000.0"} if language == "logql" else {}
    answer = await ask(live, q, language, **{**times, **query})
    assert answer.status == 200, answer.text
    for one in answer.json["passes"]:
        memory = one["memory"]
        spared = one.get("remembered", {}).get("blocks", 0)
        ends = ("leftOutByIndex", "leftOutByKeywords", "leftOutByTime", "notWanted", "lookedAt")
        assert memory["blocks"] == sum(memory[name] for name in ends) + spared, one
        log = one["log"]
        ends = ("leftOutByIndex", "leftOutByTime", "notWanted", "readByIndex", "readWhole")
        assert log["segments"] == sum(log[name] for name in ends), one
        assert log["framesRead"] + log["framesCached"] == log["lookedAt"]
        for before, after in zip(one["stages"], one["stages"][1:], strict=False):
            assert before["recordsOut"] == after["recordsIn"]
    return answer.json


def the_pass(answer: Any, name: str) -> Any:
    return next(one for one in answer["passes"] if one["pass"] == name)


async def test_stages_of_a_log_query(live: Live) -> None:
    answer = await explained(live, '{service_name="db"} |= "of 18" | row="odd"')
    assert [(one["part"], one.get("index")) for one in answer["plan"]] == [
        ('{service_name="db"}', "service"),
        ("the line has 'of 18'", "tokens"),
        ("an attribute is 'odd'", "tokens"),
        ('|= "of 18"', None),
        ('| row="odd"', None),
    ]
    assert (answer["plan"][0]["key"], answer["plan"][0]["recordsInMemory"]) == ("db", 50)
    words = [word for one in answer["plan"] for word in one.get("words", ())]
    assert [(one["word"], one["stands"]) for one in words] == [
        ("of", "at the end"),
        ("18", "at the beginning"),
        ("odd", "whole"),
    ]
    for word, held in zip(words, (150, 10, 75), strict=True):
        assert word["recordsInMemory"] >= held, "that is the most there can be"
    found = the_pass(answer, "query")
    assert found["keywords"] == {"records": 150, "candidates": 5}
    assert found["memory"]["records"] == 5
    came = 5 + found["log"]["records"]
    assert [(one["recordsIn"], one["recordsOut"]) for one in found["stages"]] == [(came, came), (came, 5), (5, 5)]
    assert answer["answer"]["lines"] == 5
    assert answer["coverage"] == {"oldestOffset": "0", "oldestOffsetInMemory": "150", "nextOffset": "300"}


async def test_a_trace_id_in_a_label_filter(live: Live) -> None:
    made = LOGS.request_type()
    scope = made.resource_logs.add().scope_logs.add()
    scope.log_records.add(trace_id=b"\5" * 16, time_unix_nano=1500 * S).body.string_value = "x"
    await live.stores["logs"].append(made.SerializeToString())
    answer = await explained(live, f'{{service_name=~".+"}} | trace_id="{"05" * 16}"')
    assert answer["plan"][1]["part"] == f"the trace is {'05' * 16} or an attribute is '{'05' * 16}'"
    assert answer["plan"][1]["words"][0] == {"word": "05" * 16, "stands": "whole", "recordsInMemory": 1}
    # The other one is in no index any more: the ring has let go of it, and its oldest block still has it.
    assert (answer["answer"]["lines"], the_pass(answer, "query")["memory"]["records"]) == (1, 2)


async def test_what_a_limit_a_range_and_an_index_leave_out(live: Live) -> None:
    newest = the_pass(await explained(live, '{service_name=~".+"}', limit=RECORDS), "query")
    assert newest["memory"] | {"blocks": 0} == {
        "blocks": 0,
        "leftOutByIndex": 0,
        "leftOutByKeywords": 0,
        "leftOutByTime": 0,
        "notWanted": 14,
        "lookedAt": 1,
        "records": RECORDS,
    }
    assert newest["log"]["lookedAt"] == 0
    rare = the_pass(await explained(live, '{service_name=~".+"} |= "of 20"'), "query")
    assert (rare["memory"]["leftOutByKeywords"], rare["memory"]["records"]) == (14, 10)
    middle = the_pass(await explained(live, '{service_name=~".+"}', start="1020.0", end="1022.0"), "query")
    assert (middle["memory"]["leftOutByTime"], middle["memory"]["lookedAt"], middle["log"]["lookedAt"]) == (13, 2, 0)


async def test_segments_that_are_left_out(live: Live) -> None:
    everything = the_pass(await explained(live, '{service_name=~".+"}', limit=5000), "query")["log"]
    assert (everything["readWhole"], everything["records"]) == (everything["segments"], 150)
    assert everything["segments"] > 2
    narrow = the_pass(await explained(live, '{service_name=~".+"}', end="1001.0", limit=5000), "query")["log"]
    assert (narrow["leftOutByTime"], narrow["records"]) == (everything["segments"] - 1, RECORDS)
    none = the_pass(await explained(live, '{service_name="none"}'), "query")["log"]
    assert (none["leftOutByIndex"], none["lookedAt"]) == (everything["segments"], 0)
    some = the_pass(await explained(live, '{service_name="db"}', limit=5000), "query")["log"]
    assert (some["readByIndex"] > 0, some["stretches"] > 0, some["records"]) == (True, True, 50)
    few = the_pass(await explained(live, '{service_name=~".+"}', limit=160), "query")["log"]
    assert few["notWanted"] > 0


async def test_metrics_of_logs(live: Live) -> None:
    query = 'sum(count_over_time({service_name="shop"} |= "line 3"[1h]))'
    once = await explained(live, query, start="", end="", time="2000.0")
    stages = the_pass(once, "query")["stages"]
    assert [one["recordsOut"] for one in stages] == [stages[0]["recordsIn"], 20]
    assert once["answer"]["series"] == 1
    over_time = await explained(live, query, step="100")
    assert over_time["answer"]["bytes"] > once["answer"]["bytes"]


async def test_remembered_labels_are_named(live: Live) -> None:
    query = 'sum by (row) (count_over_time({service_name="shop"} | row="odd"[1h]))'
    for _ in range(3):
        found = the_pass(await explained(live, query, start="", end="", time="2000.0"), "query")
        selector, odd = found["stages"]
        assert (odd["recordsIn"], odd["recordsOut"]) == (selector["recordsOut"], 100)
    assert selector["how"] == "remembered labels"
    assert found["remembered"] == {"blocks": 15, "records": 150, "mayMatch": 100}


async def test_search(live: Live) -> None:
    answer = await explained(live, "{ name = `even` && span.number > 100 }", "traceql")
    spans = the_pass(answer, "spans")
    [stage] = spans["stages"]
    assert (answer["plan"][0]["index"], answer["plan"][0]["key"]) == ("name", "even")
    assert stage["recordsOut"] == 99
    assert the_pass(answer, "what is returned of traces")["memory"]["records"] == 150
    trees = await explained(live, "{ name = `even` } >> { name = `odd` }", "traceql")
    assert {one["pass"] for one in trees["passes"]} >= {"spans", "whole traces"}
    assert [one["part"] for one in trees["plan"][2:5]] == [
        "some field has 'odd'",
        'name = "even"',
        "some field has 'even'",
    ]
    rates = await explained(live, "{ name = `even` } | rate()", "traceql", start="999999999", end="1000000001")
    assert rates["answer"]["series"] == 1
    by_default = await call(live.app, "/api/explain", {"q": "{ }"})
    assert by_default.json["language"] == "traceql"


async def test_remembered_columns_are_named(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=1000) as live:
        for _ in range(40):
            await live.send(RECORDS)
        for query, how in (
            ("{ span.number = 7 }", "remembered columns"),
            ("{ span.number = 7 && span.number * 2 = 14 }", "remembered columns tell which records may match"),
        ):
            spans = the_pass(await explained(live, query, "traceql"), "spans")
            assert spans["stages"][0]["how"].startswith(how)
            assert spans["remembered"] == {"blocks": 40 - PROBED, "records": 400, "mayMatch": 1}


async def test_metrics(live: Live) -> None:
    answer = await explained(live, "rate(up[5m]) + up / rate(up[5m])", "promql")
    assert answer["answer"]["series"] == 0
    assert [one["part"] for one in answer["plan"]] == ["up"]
    wrong = await ask(live, "rate(", "promql")
    assert (wrong.status, wrong.json["errorType"]) == (400, "bad_data")


@pytest.mark.parametrize("query", ["{a=", '{a="b"} |', "sum(", '{a=~".*"}'])
async def test_errors_are_those_of_the_query_s_own_api(live: Live, query: str) -> None:
    answer = await ask(live, query)
    own = await call(live.app, "/loki/api/v1/query_range", {"query": query})
    assert (answer.status, answer.text) == (own.status, own.text)
    assert answer.status == 400
    search = await ask(live, query, "traceql")
    own = await call(live.app, "/api/search", {"q": query})
    assert (search.status, search.text) == (own.status, own.text)
    limit = await ask(live, '{service_name="a"}', limit="100000")
    assert "max entries limit" in limit.text


async def test_languages(live: Live) -> None:
    answer = await ask(live, "SELECT 1", "sql")
    assert (answer.status, "language must be traceql, logql, promql" in answer.text) == (400, True)


async def test_a_query_that_is_not_explained_notes_nothing(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Deadline] = []
    check = Deadline.check
    monkeypatch.setattr(Deadline, "check", lambda self: (made.append(self), check(self))[1])
    await call(live.app, "/api/search", {"q": "{ name = `even` } >> { name = `odd` }"})
    await call(live.app, "/loki/api/v1/query_range", {"query": '{service_name="db"} |= "x"'})
    assert made
    assert all(one.effort is None for one in made)
