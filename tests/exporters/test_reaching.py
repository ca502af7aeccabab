"""Queries reach back: answers are the same wherever the data lies, and say so when it could not be read."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collector.errors import Retryable
from collector.exporters.base import Backend, Exporter, Wanted
from collector.exporters.kinds import Kind, find
from collector.exporters.measured import Measured
from collector.exporters.settings import ExporterSettings
from collector.otlp.block import Block
from collector.otlp.cut import cut
from collector.otlp.signals import TRACES
from collector.otlp.tombstones import NONE
from collector.testing.corpus import trace_id
from collector.testing.exporters import batch_of
from tests.daemon import Daemon
from tests.exporters import memory_backend
from tests.exporters.memory_backend import MemoryBackend, MemorySettings
from tests.exporters.reaching import (
    BEGIN,
    COUNT,
    EACH,
    QUESTIONS,
    Held,
    made,
    reduced,
    requests,
    same,
    whole,
)
from tests.wal.logs import FakeClock

_names = (f"reached-{number}" for number in itertools.count())
EVERYTHING = {"start": BEGIN, "end": BEGIN + COUNT}


def _backend(name: str, directory: Path) -> tuple[Kind, ExporterSettings]:
    if name == "memory":
        return memory_backend.KIND, MemorySettings(name=next(_names))
    kind = find(name)
    assert kind is not None
    return kind, kind.settings(path=str(directory / "records.db"))  # type: ignore[call-arg]


_expected: list[Any] = []
"""What is answered out of memory: asked once."""


async def differing(little: Held, every: int = 1) -> list[Any]:
    """The questions that are answered differently out of memory alone."""
    if not _expected:
        async with whole() as everything:
            _expected.extend([same(await everything.ask(*question)) for question in QUESTIONS])
            assert sum(len(str(one)) > 200 for one in _expected) * 2 > len(QUESTIONS), "questions have answers"
    found = []
    for (path, query), expected in list(zip(QUESTIONS, _expected, strict=True))[::every]:
        answer = await little.ask(path, query)
        assert "x-ringtail-partial" not in answer.headers, answer.headers
        if same(answer) != expected:
            found.append((path, query))
    return found


@pytest.mark.parametrize("name", ["memory", "sqlite"])
async def test_answers_are_the_same_wherever_the_data_lies(name: str, tmp_path: Path) -> None:
    """All languages and APIs, over ranges of which none, some and all is held."""
    kind, settings = _backend(name, tmp_path)
    async with made(kind, settings, tmp_path) as backend, reduced(backend) as little:
        assert await differing(little, every=3 if name == "memory" else 1) == []


async def test_without_a_log_what_the_ring_let_go_of_is_read_too(tmp_path: Path) -> None:
    kind, settings = _backend("memory", tmp_path)
    async with made(kind, settings, tmp_path) as backend, reduced(backend, logged=False) as little:
        assert await differing(little, every=7) == []


class Keyless(MemoryBackend):
    """Gives what is held, too."""

    keyed = False

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        async for one in super().read(replace(wanted, held=())):
            yield one


async def test_what_a_backend_without_offsets_repeats_is_left_out(tmp_path: Path) -> None:
    kind, settings = _backend("memory", tmp_path)
    keyless = replace(kind, make=Keyless)
    async with made(keyless, settings, tmp_path) as backend, reduced(backend) as little:
        assert await differing(little, every=3) == []


class Less(MemoryBackend):
    """Gives less than what is asked."""

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        async for one in super().read(replace(wanted, start_ns=wanted.start_ns + 30 * 10**9)):
            yield one


async def test_a_backend_that_gives_less_is_noticed(tmp_path: Path) -> None:
    """The canary of the corpus."""
    kind, settings = _backend("memory", tmp_path)
    broken = replace(kind, make=Less)
    async with made(broken, settings, tmp_path) as backend, reduced(backend) as little:
        assert await differing(little, every=40)


# --- what goes wrong --------------------------------------------------------------------------------------------


class Troubled(MemoryBackend):
    """Gives the first piece, or nothing, and then does what it is told."""

    pieces = 0

    def __init__(self, settings: MemorySettings, context: Any) -> None:
        super().__init__(settings, context)
        self.reading = asyncio.Event()
        self.ended = asyncio.Event()
        self.asked: list[Wanted] = []
        self.trouble: Exception | None = None

    async def names(self, signal: Any, tenant: str, start_ns: int, end_ns: int) -> None:
        return None

    async def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        self.asked.append(wanted)
        self.reading.set()
        try:
            if self.pieces:
                async for first in super().read(wanted):
                    yield cut(first, 0, first.count // 2 or 1)
                    break
            if self.trouble is not None:
                raise self.trouble
            await asyncio.Event().wait()
        finally:
            self.ended.set()


@pytest.fixture
async def troubled(tmp_path: Path) -> AsyncIterator[Troubled]:
    kind, settings = _backend("memory", tmp_path)
    async with made(replace(kind, make=Troubled), settings, tmp_path) as backend:
        assert isinstance(backend, Troubled)
        yield backend


SAYS: dict[str, Callable[[Any], Any]] = {
    "/api/search": lambda body: body["metrics"]["partial"] and body["metrics"]["message"],
    "/api/metrics/query_range": lambda body: body["metrics"]["partial"] and body["metrics"]["message"],
    "/api/v2/search/tags": lambda body: body["metrics"]["partial"] and body["metrics"]["message"],
    "/loki/api/v1/query_range": lambda body: body["warnings"][0],
    "/loki/api/v1/labels": lambda body: body["warnings"][0],
    "/loki/api/v1/index/volume": lambda body: body["warnings"][0],
    "/loki/api/v1/detected_fields": lambda body: body["warnings"][0],
    "/api/v1/query_range": lambda body: body["warnings"][0],
    "/api/v1/labels": lambda body: body["warnings"][0],
    "/jaeger/api/traces": lambda body: body["errors"][0]["msg"],
    "/jaeger/api/services": lambda body: body["errors"][0]["msg"],
}
"""Where answers say that something may be missing."""
ASKED = {path: next(query for one, query in QUESTIONS if one == path) for path in SAYS}


@pytest.mark.parametrize("pieces", [0, 1])
@pytest.mark.parametrize(
    ("trouble", "reason"),
    [(Retryable("it is away"), "it is away"), (ValueError("who knows"), "a defect"), (None, "no answer within")],
)
async def test_a_backend_in_trouble_makes_an_answer_that_says_so(
    troubled: Troubled, trouble: Exception | None, reason: str, pieces: int
) -> None:
    """With what there is; and the next query does not wait for it again."""
    troubled.trouble, troubled.pieces = trouble, pieces
    async with reduced(troubled, timeout_s=20.0 if trouble else 0.03, rest_s=0.0) as little:
        for path, query in ASKED.items():
            answer = await little.ask(path, query)
            assert answer.status == 200, answer.text
            assert reason in SAYS[path](answer.json), path
            assert reason in answer.headers["x-ringtail-partial"]
        held, gone = f"/api/v2/traces/{trace_id(60).hex()}", f"/api/v2/traces/{trace_id(999).hex()}"
        answer = await little.ask(held, {})
        assert answer.json["status"] == "PARTIAL"
        assert reason in answer.json["message"]
        if not pieces:
            answer = await little.ask(gone, {})
            assert answer.status == 503, "it may be there all the same"
            assert reason in answer.text
        assert len(little.logger.named("queries do not reach back")) == 3, "once for each store"
    await troubled.ended.wait()


async def test_what_has_failed_is_left_alone_for_a_while(troubled: Troubled) -> None:
    troubled.trouble = Retryable("it is away")
    async with reduced(troubled) as little:
        for _ in range(3):
            answer = await little.ask("/api/search", {"q": "{}", **EVERYTHING})
            assert "it is away" in answer.json["metrics"]["message"]
        assert len(troubled.asked) == 1
        assert little.ways["traces"].stats()["failing"] == "it is away"


async def test_one_that_has_not_started_is_told_of() -> None:
    async with reduced(None) as little:
        answer = await little.ask("/loki/api/v1/query_range", ASKED["/loki/api/v1/query_range"])
        assert "has not started" in answer.json["warnings"][0]


async def test_queries_that_wait_let_others_run_and_end_when_nobody_waits_for_them(troubled: Troubled) -> None:
    async with reduced(troubled, threads=1) as little:
        waiting = asyncio.ensure_future(little.ask("/api/search", {"q": "{}", **EVERYTHING}))
        await troubled.reading.wait()
        answer = await little.ask("/api/v2/search/tags", {"start": 2 * 10**9, "end": 2 * 10**9 + 1})
        assert answer.status == 200
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await troubled.ended.wait()


# --- what is asked ----------------------------------------------------------------------------------------------


async def test_it_is_asked_only_about_what_can_be_gone(troubled: Troubled) -> None:
    """All that arrived before the oldest record that is held; of traces, those that may lack spans."""
    troubled.trouble = Retryable("it was asked")
    last = f"/api/v2/traces/{trace_id(79).hex()}"
    async with reduced(troubled, clock=FakeClock(), rest_s=0.0) as little:
        for path, query in ASKED.items():
            if path != "/jaeger/api/services":
                await little.ask(path, query)
        assert (await little.ask(last, {})).json.get("status") is None
        assert not [one for one in troubled.asked if one.trace_ids == () and one.start_ns > 10**18]
        troubled.asked.clear()
        await little.ask(f"/api/v2/traces/{trace_id(3).hex()}", {})
        assert [one.trace_ids for one in troubled.asked] == [(trace_id(3),)]
    async with reduced(troubled, clock=FakeClock(), rest_s=0.0, shared=True) as little:
        await little.ask(last, {})
        assert [one.trace_ids for one in troubled.asked[1:]] == [(trace_id(79),)]


async def test_what_a_query_demands_is_passed_on(troubled: Troubled) -> None:
    troubled.trouble = Retryable("it was asked")
    async with reduced(troubled, rest_s=0.0) as little:
        query = '{ resource.service.name = "cart" && name = "plain 1" && span.color = "red" && .a = "b" && span.n = 5 }'
        await little.ask("/api/search", {"q": query, **EVERYTHING})
        asked = troubled.asked[0]
        assert (asked.services, asked.names) == (("cart",), ("plain 1",))
        assert [tuple(one) for one in asked.attributes] == [("record", "color", ("red",)), ("either", "a", ("b",))]
        assert (asked.start_ns, asked.end_ns) == (BEGIN * 10**9, (BEGIN + COUNT) * 10**9)
        assert asked.held[0].first_offset == little.stores["traces"].view().first_offset
        troubled.asked.clear()
        query = '{service_name="cart"} |= "GET /cart" |~ "order [0-9]+ of (plain|other)" | json'
        await little.ask("/loki/api/v1/query_range", {**ASKED["/loki/api/v1/query_range"], "query": query})
        asked = troubled.asked[0]
        assert asked.services == ("cart",)
        assert asked.texts == ((b"GET /cart",), (b"order ",), (b" of ",), (b"plain", b"other"))


# --- several instances, and pages -------------------------------------------------------------------------------


async def test_what_others_have_written_is_found(tmp_path: Path) -> None:
    """Where the backend is shared; what is held here does not come twice."""
    kind, settings = _backend("memory", tmp_path)
    request = TRACES.request_type()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"o" * 16, span_id=b"o" * 8, name="other")
    span.start_time_unix_nano = (BEGIN + COUNT - 5) * 10**9
    async with made(kind, settings, tmp_path) as backend, reduced(backend, shared=True) as little:
        await backend.export(batch_of(TRACES, [request.SerializeToString()], instance="f" * 32))
        answer = await little.ask("/api/search", {"q": "{}", **EVERYTHING, "limit": 1000})
        found = [one["traceID"] for one in answer.json["traces"]]
        assert len(found) == len(set(found)) == COUNT // 3 + 1
        assert (b"o" * 16).hex() in found
        assert sum(one["spanSets"][0]["matched"] for one in answer.json["traces"]) == COUNT + 1


async def test_traces_that_were_deleted_are_not_shown_before_the_backend_knows(tmp_path: Path) -> None:
    kind, settings = _backend("memory", tmp_path)
    async with made(kind, settings, tmp_path) as backend, reduced(backend) as little:
        gone = trace_id(3).hex()
        assert (await little.ask(f"/api/v2/traces/{gone}", {})).status == 200
        store = little.stores["traces"]
        store.deletions.add(NONE, 0, store.ring.next_offset, [gone], ["tested"])
        assert (await little.ask(f"/api/v2/traces/{gone}", {})).status == 404
        answer = await little.ask("/api/search", {"q": "{}", **EVERYTHING, "limit": 1000})
        found = {one["traceID"] for one in answer.json["traces"]}
        assert found == {trace_id(number).hex() for number in range(COUNT // 3)} - {gone}
        store.deletions.passed_on(store.deletions.pending[0].number, "tested")
        assert (await little.ask(f"/api/v2/traces/{gone}", {})).status == 200, "now it is the backend's matter"


async def test_pages_fit_together(tmp_path: Path) -> None:
    """Also where all traces began at the same time."""
    kind, settings = _backend("memory", tmp_path)
    request = TRACES.request_type()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(30):
        scope.spans.add(
            trace_id=trace_id(number), span_id=b"s" * 8, name="x", start_time_unix_nano=(BEGIN - 100) * 10**9
        )
    async with made(kind, settings, tmp_path) as backend, reduced(backend) as little:
        await backend.export(batch_of(TRACES, [request.SerializeToString()], instance="f" * 32))
        found: list[str] = []
        cursor: dict[str, Any] = {}
        while True:
            asked = {"q": '{ name = "x" }', "limit": 7, "start": BEGIN - 200, "end": BEGIN, **cursor}
            answer = (await little.ask("/api/search", asked)).json
            found += [one["traceID"] for one in answer["traces"]]
            if "nextCursor" not in answer:
                break
            cursor = {"cursor": answer["nextCursor"]}
        assert sorted(found) == [trace_id(number).hex() for number in range(30)]


# --- a daemon ---------------------------------------------------------------------------------------------------


def exported(daemon: Daemon) -> Any:
    return daemon.get("/api/stats").json()["exporters"]["sqlite"]


def test_a_daemon_in_memory_only_reads_what_its_rings_let_go_of(tmp_path: Path) -> None:
    settings = (
        "wal.enabled=false",
        "stores.traces.capacity=20",
        f"exporters.sqlite.path={tmp_path / 'kept.sqlite'}",
        "exporters.sqlite.sending_queue.batch.flush_timeout=10ms",
        "query.backend=sqlite",
    )
    with Daemon(tmp_path, *settings) as daemon:
        sent = requests(TRACES)
        for number, one in enumerate(sent, 1):
            assert daemon.export("/v1/traces", one).code == 200
            while exported(daemon)["signals"]["traces"]["position"] < number * EACH:
                pass  # A ring lets go of what nobody has kept yet.
        answer = daemon.get(f"/api/search?limit=1000&start={BEGIN}&end={BEGIN + COUNT}").json()
        assert len(answer["traces"]) == COUNT // 3
        assert "partial" not in answer["metrics"]
        assert daemon.get(f"/api/v2/traces/{trace_id(0).hex()}").json()["trace"]["resourceSpans"]
        read = exported(daemon)["queries"]["traces"]
        assert read["records"] > 0
        assert read["failing"] == ""


def test_what_backends_tell_is_not_lost_on_the_way() -> None:
    """Queries see a backend through the one that measures it: it passes on all that a backend can say of itself."""
    said = {
        name for kind in (Backend, Exporter) for name, one in vars(kind).items() if callable(one) and name[0] != "_"
    }
    assert said - {"start", "stop"} <= set(vars(Measured))
