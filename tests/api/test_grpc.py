"""`ringtail.v1.QueryService`, asked by grpcio."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.api import grpc as service
from collector.api.messages import SERVICE, message
from collector.otlp.signals import BY_NAME, SIGNALS, TRACES
from collector.query import tail as tailing
from collector.testing import otlp
from tests.daemon import Daemon
from tests.live import Live, numbers_of

PATIENCE_S = 30.0


class Client:
    """The service's methods, with messages made of our own descriptors."""

    def __init__(self, channel: Any, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._channel = channel
        self._metadata = metadata

    def __getattr__(self, name: str) -> Any:
        method = self._channel.unary_stream(
            f"/{SERVICE}/{name}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=message(f"{name}Response").FromString,
        )

        def ask(**fields: Any) -> Any:
            return method(message(f"{name}Request")(**fields), timeout=PATIENCE_S, metadata=self._metadata)

        return ask


@asynccontextmanager
async def asking(
    live: Live, *options: tuple[str, Any], metadata: tuple[tuple[str, str], ...] = ()
) -> AsyncIterator[Client]:
    await live.listen()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{live.grpc_port}", options=options) as channel:
        yield Client(channel, metadata)


async def everything(call: Any) -> list[Any]:
    found = []
    while (one := await call.read()) is not grpc.aio.EOF:
        found.append(one)
    return found


async def failure(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await everything(call)
    return caught.value.code(), caught.value.details()


# --- one trace, and search --------------------------------------------------------------------------------


async def test_a_trace_comes_in_parts_and_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PART_BYTES", 1000)
    async with Live(tmp_path, capacity=50) as live, asking(live) as client:
        for _ in range(14):
            await live.send(10)
        parts = await everything(client.GetTrace(trace_id=b"\3" * 16))
        assert len(parts) > 1
        assert [one for part in parts for one in numbers_of(part.trace)] == list(range(2, 140, 7))
        coverage = parts[0].coverage
        assert (coverage.first_offset, coverage.ring_offset, coverage.next_offset) == (0, 90, 140)
        some = await everything(
            client.GetTrace(trace_id=b"\3" * 16, start_time_unix_nano=10**18 + 1030, end_time_unix_nano=10**18 + 90)
        )
        assert [one for part in some for one in numbers_of(part.trace)] == list(range(30, 91, 7)), "that overlap"
        monkeypatch.setattr(service, "TRACE_BYTES_MAX", 200)
        [cut] = await everything(client.GetTrace(trace_id=b"\3" * 16))
        assert (len(numbers_of(cut.trace)), cut.spans_left_out) == (2, 18)


async def test_traces_that_are_not_there(tmp_path: Path) -> None:
    async with Live(tmp_path) as live, asking(live) as client:
        assert await failure(client.GetTrace(trace_id=b"\1" * 16)) == (
            grpc.StatusCode.NOT_FOUND,
            f"trace {'01' * 16} not found",
        )
        code, says = await failure(client.GetTrace(trace_id=b"\1"))
        assert (code, says) == (grpc.StatusCode.INVALID_ARGUMENT, "a trace id has 16 bytes, not 1")


async def test_search_returns_the_newest_matching_spans_as_otlp(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=50) as live, asking(live) as client:
        for _ in range(10):
            await live.send(10)
        [found] = await everything(client.Search(query="{ .number > 60 }", limit=3, spans_per_trace=2))
        assert [one.trace_id[0] for one in found.traces] == [2, 1, 7], "of spans 99, 98, 97"
        assert [sorted(numbers_of(one.spans)) for one in found.traces] == [[92, 99], [91, 98], [90, 97]]
        assert [one.matched_spans for one in found.traces] == [6, 6, 6]
        assert found.traces[0].root_service_name == "shop"
        assert found.traces[0].duration_nano == 98 + 1000
        assert found.coverage.next_offset == 100
        [nothing] = await everything(client.Search(query="{ .number > 600 }"))
        assert not nothing.traces
        assert nothing.coverage.next_offset == 100


async def test_a_search_goes_on_behind_an_answer_over_what_was_there(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=50) as live, asking(live) as client:
        await live.send(100)
        seen: list[int] = []
        after = None
        while True:
            [found] = await everything(client.Search(query="{ } | count() > 14", limit=1, after=after))
            seen += [one.trace_id[0] for one in found.traces]
            await live.send(7)
            if not found.HasField("next"):
                break
            after = found.next
        assert seen == [2, 1], "traces with 15 spans; later ones do not count"
        [structural] = await everything(client.Search(query="{ name = `even` } ~ { name = `odd` }"))
        assert not structural.traces, "none has a parent"


async def test_what_is_missing_is_said(tmp_path: Path) -> None:
    data = TracesData()
    scope = data.resource_spans.add().scope_spans.add()
    scope.spans.add(trace_id=b"\1" * 16, span_id=b"\2" * 8, parent_span_id=b"\3" * 8, start_time_unix_nano=1)
    async with Live(tmp_path) as live, asking(live) as client:
        await live.store.append(data.SerializeToString())
        [trace] = await everything(client.GetTrace(trace_id=b"\1" * 16))
        assert "03" * 8 in trace.missing
        [found] = await everything(client.Search())
        assert (found.traces[0].spans_without_their_parent, found.traces[0].root_is_missing) == (1, True)


async def test_a_search_that_finds_much_comes_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PART_BYTES", 1000)
    async with Live(tmp_path) as live, asking(live) as client:
        await live.send(100)
        parts = await everything(client.Search(spans_per_trace=5))
        assert len(parts) > 1
        assert [one.trace_id[0] for part in parts for one in part.traces] == [2, 1, 7, 6, 5, 4, 3]


@pytest.mark.parametrize(
    ("method", "fields", "says"),
    [
        ("Search", {"query": "{ .a = 1 "}, "at column"),
        ("Search", {"query": "{ } | rate()"}, "metrics query"),
        ("Search", {"limit": 10_001}, "limit is at most 10000"),
        ("Search", {"spans_per_trace": 1001}, "spans_per_trace is at most 1000"),
        ("Tail", {"query": "{ .a = 1 } >> { .b = 2 }"}, ">>"),
        ("Tail", {"past": 1001}, "past is at most 1000"),
        ("Tail", {"signal": 7}, "there is no signal 7"),
        ("ReadLog", {"signal": 7}, "there is no signal 7"),
    ],
)
async def test_mistakes_are_invalid_arguments(tmp_path: Path, method: str, fields: dict[str, Any], says: str) -> None:
    async with Live(tmp_path) as live, asking(live) as client:
        call = getattr(client, method)(**fields)
        code, found = await failure(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert says in found
        details = dict(await call.trailing_metadata())["grpc-status-details-bin"]
        status = status_pb2.Status.FromString(details)
        assert (status.code, status.message) == (3, found)
        assert status.details[0].type_url.endswith("google.rpc.BadRequest")


async def test_what_is_no_request(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        await live.listen()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{live.grpc_port}") as channel:
            code, says = await failure(channel.unary_stream(f"/{SERVICE}/Tail")(b"\xff"))
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert "this is no TailRequest" in says
            code, _ = await failure(channel.unary_stream(f"/{SERVICE}/Nothing")(b""))
            assert code is grpc.StatusCode.UNIMPLEMENTED
            code, says = await failure(channel.unary_stream(f"/{SERVICE}/Search")(bytes((1 << 20) + 1)))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "receivers.otlp" not in says
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            for name in ("", SERVICE):
                answer = await check(health_pb2.HealthCheckRequest(service=name).SerializeToString())
                assert health_pb2.HealthCheckResponse.FromString(answer).status == 1


# --- tail -------------------------------------------------------------------------------------------------


async def test_past_live_and_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "HEARTBEAT_S", 0.05)
    async with Live(tmp_path, capacity=20) as live, asking(live) as client:
        await live.send(10)
        call = client.Tail(query='{ name = "odd" }', past=2)
        first = await call.read()
        assert (first.next_offset, first.WhichOneof("told")) == (10, None)
        past = await call.read()
        assert (past.next_offset, numbers_of(past.traces)) == (10, [7, 9])
        beat = await call.read()
        assert (beat.next_offset, beat.WhichOneof("told")) == (10, None)
        await live.send(5)
        while True:
            told = await call.read()
            if told.WhichOneof("told"):
                break
        assert (told.next_offset, numbers_of(told.traces)) == (15, [11, 13])
        call.cancel()
        await live.until(lambda: live.metric("ringtail_tails") == 0)
        assert live.store._subscribers == ()
        for _ in range(6):
            await live.send(10)
        again = client.Tail(query='{ name = "odd" }', from_offset=told.next_offset)
        seen: list[int] = []
        while 73 not in seen:
            seen += numbers_of((await again.read()).traces)
        assert seen == list(range(15, 74, 2)), "from the log, too"
        again.cancel()


async def test_log_records_and_what_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailing, "TOLD_BYTES", 100)
    async with Live(tmp_path) as live, asking(live) as client:
        await live.stores["logs"].append(otlp.logs(2))
        call = client.Tail(signal=2, from_offset=0)
        await call.read()
        found = [await call.read() for _ in range(2)]
        assert [(one.missed.reason, one.missed.first_offset, one.missed.matches) for one in found] == [
            (3, 0, 1),
            (3, 1, 1),
        ]
        call.cancel()
        assert (await failure(client.Tail(signal=3)))[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_client_that_takes_nothing_is_given_up_and_costs_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tailing, "PACE_S", 0.0)
    async with Live(tmp_path, capacity=500) as live:
        live.queries.idle_timeout_s = 0.5
        async with asking(live, ("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1 << 16)) as client:
            call = client.Tail(from_offset=0)
            await call.read()
            while not live.metric("ringtail_tails_ended_total", reason="stuck"):
                await live.send(25, padding=20_000)
                assert live.tails.held_bytes <= tailing.ROOM_BYTES
            assert live.metric("ringtail_tails") == 0
            assert live.tails.held_bytes == 0
            code, _ = await failure(call)
            assert code in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)


async def test_endless_answers_end_when_the_daemon_stops(tmp_path: Path) -> None:
    async with Live(tmp_path) as live, asking(live) as client:
        calls = [client.Tail(), client.ReadLog(follow=True)]
        await live.send(1)
        for call in calls:
            await call.read()
        live.tails.stop()
        stopping = asyncio.ensure_future(live.queries.stop(5.0))
        for call in calls:
            code, says = await failure(call)
            assert (code, says) == (grpc.StatusCode.UNAVAILABLE, "the daemon is shutting down")
        await stopping
        assert live.metric("ringtail_tails") == 0


# --- the log ----------------------------------------------------------------------------------------------


async def test_every_signal_is_read_as_it_came(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=30) as live, asking(live) as client:
        payloads = {one: [otlp.BUILDERS[one](20, seed=seed) for seed in range(4)] for one in SIGNALS}
        for one, each in payloads.items():
            for payload in each:
                await live.stores[one.name].append(payload)
        for one, kind in ((TRACES, "traces"), (BY_NAME["logs"], "logs"), (BY_NAME["metrics"], "metrics")):
            parts = await everything(client.ReadLog(signal=one.code))
            types = {"traces": one.request_type, "logs": LogsData, "metrics": MetricsData}
            whole = b"".join(getattr(part, kind).SerializeToString() for part in parts)
            expected = types[kind].FromString(b"".join(payloads[one]))
            assert types[kind].FromString(whole) == expected
            assert parts[0].base_offset == 0
            assert sum(part.count for part in parts) == 80


@settings(max_examples=8)
@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 4)), min_size=1, max_size=8),
    st.integers(1, 40),
    st.integers(0, 100),
    st.integers(0, 100),
    st.sampled_from([100, 700, 1 << 18]),
)
def test_records_are_read_once_and_in_order_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory,
    requests: list[tuple[int, int]],
    capacity: int,
    first: int,
    end: int,
    part_bytes: int,
) -> None:
    async def run() -> None:
        async with Live(tmp_path_factory.mktemp("log"), capacity) as live:
            for count, scopes in requests:
                await live.send(count, scopes=scopes)
            with live.store.view() as view:
                position = first
                last = min(end, view.next_offset)
                while True:
                    base, count, data = service._read(None, view, position, last)  # type: ignore[arg-type]
                    if not count:
                        break
                    assert base == position
                    assert numbers_of(data) == list(range(base, base + count))
                    position += count
                assert position == max(first, last)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(service, "PART_BYTES", part_bytes)
        asyncio.run(run())


async def test_following_the_log_under_load_leaves_no_gap(tmp_path: Path) -> None:
    async with Live(tmp_path, capacity=40) as live, asking(live) as client:

        async def write() -> None:
            for count in (1, 30, 2, 7) * 5:
                await live.send(count, scopes=2)

        writers = [asyncio.ensure_future(write()) for _ in range(3)]
        position = 0
        seen: list[int] = []
        while position < 600:
            call = client.ReadLog(from_offset=position, follow=True, end_offset=600)
            for _ in range(3):
                part = await call.read()
                if part is grpc.aio.EOF:
                    break
                assert part.base_offset == position
                position += part.count
                seen += numbers_of(part.traces)
            call.cancel()
        await asyncio.gather(*writers)
        assert sorted(seen) == list(range(600))


async def test_a_log_that_is_read_to_its_end_ends(tmp_path: Path) -> None:
    async with Live(tmp_path) as live, asking(live) as client:
        assert await everything(client.ReadLog()) == []
        await live.send(5)
        [part] = await everything(client.ReadLog(from_offset=2, end_offset=4))
        assert (part.base_offset, part.count, numbers_of(part.traces)) == (2, 2, [2, 3])
        assert await everything(client.ReadLog(from_offset=5)) == []
        assert await everything(client.ReadLog(from_offset=2**64 - 1)) == []


# --- the daemon -------------------------------------------------------------------------------------------

WRITER, READER, STRANGER = (f"token-token-token-{name}" for name in ("writer", "reader", "other"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    credentials = [
        {"name": "writers", "rights": "write", "tokens": WRITER},
        {"name": "readers", "rights": "read", "tenants": ["one"], "tokens": READER},
        {"name": "others", "rights": "read", "tenants": ["two"], "tokens": STRANGER},
    ]
    with Daemon(
        tmp_path_factory.mktemp("guarded"),
        f"auth.credentials={json.dumps(credentials)}",
        "tenants.enabled=true",
        headers={"Authorization": f"Bearer {WRITER}"},
    ) as daemon:
        while daemon.export("/v1/traces", otlp.traces(10), {"X-Scope-OrgID": "one"}).code == 503:
            pass  # it is being opened
        yield daemon


@pytest.mark.parametrize(
    ("token", "tenant", "code"),
    [
        (READER, "one", None),
        (STRANGER, "one", grpc.StatusCode.PERMISSION_DENIED),
        (WRITER, "one", grpc.StatusCode.PERMISSION_DENIED),
        ("wrong-wrong-wrong-wrong", "one", grpc.StatusCode.UNAUTHENTICATED),
        ("", "one", grpc.StatusCode.UNAUTHENTICATED),
        (STRANGER, "two", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_who_may_ask_and_for_what(guarded: Daemon, token: str, tenant: str, code: grpc.StatusCode | None) -> None:
    metadata = [("x-scope-orgid", tenant), *([("authorization", f"Bearer {token}")] if token else [])]
    with grpc.insecure_channel(guarded.queries) as channel:
        client = Client(channel, tuple(metadata))
        for call in (client.Tail(past=1000), client.GetTrace(trace_id=_a_trace())):
            try:
                first = next(iter(call))
                assert code is None, first
            except grpc.RpcError as error:
                assert error.code() is code
            call.cancel()


def test_the_same_over_http(guarded: Daemon) -> None:
    def ask(token: str, tenant: str) -> int:
        headers = {"Authorization": f"Bearer {token}", "X-Scope-OrgID": tenant}
        return guarded.get("/api/tail?limit=x", headers).code

    assert ask(READER, "one") == 400, "let in, and refused for what is asked"
    assert ask(STRANGER, "one") == 403
    assert ask(STRANGER, "two") == 404
    assert ask("wrong-wrong-wrong-wrong", "one") == 401


def _a_trace() -> bytes:
    data = TRACES.request_type.FromString(otlp.traces(10))
    return bytes(data.resource_spans[0].scope_spans[0].spans[0].trace_id)
