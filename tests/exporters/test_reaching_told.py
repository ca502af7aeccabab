"""Queries that reach back tell of it: over gRPC (`coverage.missing`), in `/api/explain`, and on the command line."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import grpc
import pytest
import structlog
from click.testing import CliRunner
from prometheus_client import CollectorRegistry

from collector.api.grpc import QueryListener, Served
from collector.cli import explained, main
from collector.clock import SystemClock
from collector.errors import Retryable
from collector.exporters.base import Wanted
from collector.otlp.block import Block
from collector.otlp.records import top_level_fields
from collector.query.tails import Tails
from collector.receivers.admission import Admission
from collector.testing.corpus import SECOND_NS, trace_id
from tests.api.asgi import call
from tests.api.test_grpc import Client, everything, failure
from tests.exporters.memory_backend import KIND, MemoryBackend, MemorySettings
from tests.exporters.reaching import BEGIN, COUNT, Held, made, reduced, whole
from tests.test_cli import server
from tests.wal.logs import FakeClock

_names = (f"told-{number}" for number in itertools.count())
ALL = {"start_time_unix_nano": BEGIN * SECOND_NS, "end_time_unix_nano": (BEGIN + COUNT) * SECOND_NS}
AWAY = "the backend tested could not be read: it is away"


class Moody(MemoryBackend):
    """Away when it is told so."""

    away = False

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        if self.away:
            raise Retryable("it is away")
        async for one in super().read(wanted):
            yield one


@pytest.fixture
async def moody(tmp_path: Path) -> AsyncIterator[Moody]:
    async with made(replace(KIND, make=Moody), MemorySettings(name=next(_names)), tmp_path) as backend:
        assert isinstance(backend, Moody)
        yield backend


# --- over gRPC --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def asking(held: Held) -> AsyncIterator[Client]:
    """A client of the query service over these stores."""
    clock = SystemClock()
    listener = QueryListener(
        lambda name: Served(held.stores, held.engine),
        Tails(1, clock, CollectorRegistry()),
        Admission(1 << 24),
        clock,
        structlog.get_logger(),
    )
    port = await listener.start("127.0.0.1", 0)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Client(channel)
    await listener.stop(1.0)


def spans(data: Any) -> list[bytes]:
    """The ids of spans, in order."""
    return sorted(one.span_id for around in data.resource_spans for scope in around.scope_spans for one in scope.spans)


def missing(answer: Any) -> list[str]:
    """`coverage.missing`, by its number: also for who has older descriptors."""
    fields = top_level_fields(answer.coverage.SerializeToString())
    return [content.decode() for number, content in fields if number == 4]


async def traces(client: Client, **asked: Any) -> tuple[dict[bytes, list[bytes]], list[str], Any]:
    """What a search finds, page by page of 7 traces: spans by trace id. And why something may be missing."""
    found: dict[bytes, list[bytes]] = {}
    told: list[str] = []
    after: dict[str, Any] = {}
    while True:
        parts = await everything(client.Search(**ALL, limit=7, spans_per_trace=100, **asked, **after))
        for one in (one for part in parts for one in part.traces):
            assert one.trace_id not in found
            found[one.trace_id] = spans(one.spans)
        told += [reason for reason in missing(parts[0]) if reason not in told]
        if not parts[0].HasField("next"):
            return found, told, parts[0].coverage
        after = {"after": parts[0].next}


async def test_grpc_answers_are_the_same_wherever_the_data_lies(moody: Moody) -> None:
    """Traces, and searches in pages; and nothing is said to be missing."""
    async with whole() as one, asking(one) as client:
        owed, _, _ = await traces(client)
        red, _, _ = await traces(client, query='{ .color = "red" }')
        [trace] = await everything(client.GetTrace(trace_id=trace_id(3)))
        assert len(owed) == COUNT // 3
        assert red
    async with reduced(moody) as little, asking(little) as client:
        found, told, coverage = await traces(client)
        assert (found, told) == (owed, [])
        assert coverage.first_offset > 0
        assert (await traces(client, query='{ .color = "red" }'))[0] == red
        [answer] = await everything(client.GetTrace(trace_id=trace_id(3)))
        assert spans(answer.trace) == spans(trace.trace)
        assert missing(answer) == []
        assert (await failure(client.GetTrace(trace_id=trace_id(999))))[0] is grpc.StatusCode.NOT_FOUND


async def test_grpc_says_what_may_be_missing(moody: Moody) -> None:
    """With what there is; a trace that was not found may be there all the same."""
    async with reduced(moody, rest_s=0.0) as little, asking(little) as client:
        everywhere, _, _ = await traces(client)
        moody.away = True
        found, told, _ = await traces(client)
        assert len(told) == 1
        assert AWAY in told[0]
        assert 0 < len(found) < len(everywhere)
        assert found == {one: everywhere[one] for one in found}
        [answer] = await everything(client.GetTrace(trace_id=trace_id(60)))
        assert spans(answer.trace)
        assert [AWAY in one for one in missing(answer)] == [True]
        for number in (3, 999):
            code, says = await failure(client.GetTrace(trace_id=trace_id(number)))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert AWAY in says
        moody.away = False
        assert await traces(client) == (everywhere, [], (await traces(client))[2])
        [answer] = await everything(client.GetTrace(trace_id=trace_id(60)))
        assert missing(answer) == []


# --- explained --------------------------------------------------------------------------------------------------


LOGQL = {"start": BEGIN * SECOND_NS, "end": (BEGIN + COUNT) * SECOND_NS, "limit": 5000}
EARLY = {"start": "1000.0", "end": "2000.0"}
SECONDS = {"start": BEGIN, "end": BEGIN + COUNT}


async def ask(held: Held, language: str, q: str, **query: Any) -> Any:
    answer = await held.ask("/api/explain", {"language": language, "q": q, **query})
    assert answer.status == 200, answer.text
    assert ("missing" in answer.json) == ("x-ringtail-partial" in answer.headers)
    return answer.json


def passes(answer: Any) -> dict[str, Any]:
    return {one["pass"]: one for one in answer["passes"]}


async def test_explain_tells_what_came_from_the_backend(moody: Moody) -> None:
    """Records of memory, log and backend are what comes to the first stage; each is counted once."""
    async with reduced(moody) as little:
        answer = await ask(little, "logql", '{service_name=~".+"} != "accepted"', **LOGQL)
        [one] = answer["passes"]
        backend = one["backend"]
        view = little.stores["logs"].view()
        assert backend["records"] == view.first_offset > 0
        assert backend["asked"] == 1
        assert backend["blocks"] >= 1
        assert backend["bytes"] > 0
        assert 0 <= backend["seconds"] <= one["seconds"]
        assert one["memory"]["records"] + one["log"]["records"] + backend["records"] == COUNT
        assert one["stages"][0]["recordsIn"] == COUNT
        assert answer["answer"]["lines"] == one["stages"][-1]["recordsOut"]
        assert "missing" not in answer


async def test_explain_tells_of_every_pass_that_reaches_back(moody: Moody) -> None:
    """A search looks for spans, and then for what is shown of their traces."""
    async with reduced(moody) as little:
        found = passes(await ask(little, "traceql", '{ .color = "red" }', **SECONDS, limit=300))
        behind = little.stores["traces"].view().first_offset
        assert found["spans"]["backend"]["records"] == behind
        assert found["what is returned of traces"]["backend"]["records"] > 0
        points = passes(await ask(little, "promql", "plain_gauge_0_bytes", **SECONDS, step=5))
        assert sum(one["backend"]["records"] for one in points.values() if "backend" in one) > 0


async def test_explain_tells_whether_it_was_asked(moody: Moody) -> None:
    """Asked in vain is not the same as not asked, of what arrived here lately."""
    async with reduced(moody, clock=FakeClock()) as little:
        [one] = (await ask(little, "logql", '{service_name=~".+"}', **LOGQL))["passes"]
        assert "backend" not in one
    async with reduced(moody) as little:
        [one] = (await ask(little, "logql", '{service_name=~".+"}', **EARLY))["passes"]
        assert one["backend"] | {"seconds": 0} == {"asked": 1, "seconds": 0, "blocks": 0, "bytes": 0, "records": 0}
        [one] = (await ask(little, "logql", '{service_name=~".+"}', **{**LOGQL, "limit": 5}))["passes"]
        assert one["backend"]["asked"] == 1, "there may be newer ones"
        assert one["backend"]["blocks"] == 1
        assert one["backend"]["records"] == 0
        nothing = passes(await ask(little, "promql", "nowhere", **SECONDS, step=5))
        assert [one["backend"]["records"] for one in nothing.values() if "backend" in one] == [0]


async def test_explain_says_what_may_be_missing(moody: Moody) -> None:
    """As the query's own API does."""
    moody.away = True
    async with reduced(moody) as little:
        for language, q, query in (
            ("logql", '{service_name=~".+"}', LOGQL),
            ("traceql", "{}", {**SECONDS, "limit": 300}),
            ("promql", "plain_gauge_0_bytes", {**SECONDS, "step": 5}),
        ):
            answer = await ask(little, language, q, **query)
            assert len(answer["missing"]) == 1
            assert AWAY in answer["missing"][0]
            asked = [one["backend"] for one in answer["passes"] if "backend" in one]
            assert [(one["asked"], one["records"]) for one in asked] == [(1, 0)]
            again = await ask(little, language, q, **query)
            assert again["missing"] == answer["missing"], "it is left alone for a while"
            assert not [one for one in again["passes"] if "backend" in one]


async def test_the_command_line_explains_it(moody: Moody, monkeypatch: pytest.MonkeyPatch) -> None:
    async with reduced(moody) as little:
        query = {"language": "logql", "q": '{service_name=~".+"}', **LOGQL}
        bodies = [await little.ask("/api/explain", query)]
        bodies.append(await little.ask("/api/explain", {**query, **EARLY}))
        moody.away = True
        bodies.append(await little.ask("/api/explain", query))
    printed = []
    for body in bodies:
        monkeypatch.setattr(explained, "asked", lambda *_, found=body: found.body)

        @click.command()
        def show() -> None:
            explained.show(None, "http://x", "logql", {}, as_json=False)  # type: ignore[arg-type]

        printed.append(CliRunner().invoke(show).output)
    assert "  backend 1 block, " in printed[0]
    assert " of waiting" in printed[0]
    assert "  backend nothing, after " in printed[1]
    assert AWAY in printed[2]
    assert AWAY not in printed[0]


async def test_the_command_line_says_what_may_be_missing(moody: Moody) -> None:
    """Beside every answer that was made without the backend, once, and beside no other one."""
    protobuf, end = {"accept": "application/protobuf"}, (BEGIN + COUNT) * SECOND_NS
    trace = trace_id(60).hex()
    asked: tuple[tuple[list[str], str, dict[str, Any], dict[str, str]], ...] = (
        (["query", "traces"], "/api/search", {"limit": 1000, **SECONDS}, {}),
        (["query", "traces", "--json"], "/api/search", {"limit": 1000, **SECONDS}, {}),
        (["query", "logs", "{}"], "/loki/api/v1/query_range", {"query": '{service_name=~".+"}', **LOGQL}, {}),
        (["query", "logs", "{}", "--json"], "/loki/api/v1/query_range", {"query": '{service_name=~".+"}', **LOGQL}, {}),
        (["query", "logs", "1"], "/loki/api/v1/query", {"query": 'sum(rate({a!=""}[1h]))', "time": end}, {}),
        (["query", "metrics", "x"], "/api/v1/query", {"query": "plain_gauge_0_bytes", "time": BEGIN + 60}, {}),
        (["trace", trace], f"/api/v2/traces/{trace}", {}, protobuf),
        (["trace", trace, "--json"], f"/api/v2/traces/{trace}", {}, protobuf),
        (["trace", trace, "--logs", "--json"], "/api/related", {"trace_id": trace}, {}),
    )
    async with reduced(moody, rest_s=0.0) as little:
        for away in (False, True):
            moody.away = away
            for arguments, path, query, headers in asked:
                answer = await call(little.app, path, query, headers=headers)
                assert answer.status == 200, answer.text
                with server(200, answer.body) as endpoint:
                    result = CliRunner().invoke(main, [*arguments, "--endpoint", endpoint])
                assert result.exit_code == 0, result.output
                told = result.stdout if arguments == ["trace", trace] else result.stderr
                assert told.count(AWAY) == away, (arguments, result.output)
