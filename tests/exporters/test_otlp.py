"""The OTLP exporter by both transports: what goes out, and what answers mean."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from collector.errors import Permanent, Retryable, RingtailError, Unwelcome
from collector.exporters.base import Rejected
from collector.exporters.kinds import find
from collector.exporters.otlp.answers import of_http
from collector.exporters.otlp.exporter import OtlpExporter
from collector.exporters.otlp.grpc import grpc_exporter
from collector.exporters.otlp.http import http_exporter
from collector.exporters.otlp.kind import GRPC, HTTP
from collector.exporters.otlp.settings import GrpcSettings, HttpSettings
from collector.exporters.settings import ClientTls, ExporterSettings
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.security.secret import Secret
from collector.testing.corpus import corpus, wholes
from collector.testing.exporters import ExporterContract, batch_of
from collector.testing.server import Server
from tests.exporters.stubs import GrpcStub, HttpStub, Refusal, Request, context, partial
from tests.security.certificates import Authority

PLAIN = ClientTls(insecure=True)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


class TestGrpc(ExporterContract):
    kind = GRPC

    @pytest.fixture
    def settings(self, server: Server) -> ExporterSettings:
        return GrpcSettings(endpoint=(server.grpc,), tls=PLAIN)


class TestHttp(ExporterContract):
    kind = HTTP

    @pytest.fixture
    def settings(self, server: Server) -> ExporterSettings:
        return HttpSettings(endpoint=(server.endpoint,), compression="zstd")


class TestJson(ExporterContract):
    kind = HTTP

    @pytest.fixture
    def settings(self, server: Server) -> ExporterSettings:
        return HttpSettings(endpoint=(server.endpoint,), encoding="json")


@asynccontextmanager
async def exporting(settings: Any) -> AsyncIterator[OtlpExporter]:
    exporter = (
        grpc_exporter(settings, context()) if isinstance(settings, GrpcSettings) else http_exporter(settings, context())
    )
    await exporter.start()
    try:
        yield exporter
    finally:
        await exporter.stop()


async def http_outcome(answer: tuple[int, dict[str, str], bytes] | None, **settings: Any) -> Any:
    """What an answer comes to: what is returned, or raised."""
    async with (
        HttpStub(lambda one: answer) as stub,
        exporting(HttpSettings(endpoint=(stub.url,), **settings)) as exporter,
    ):
        try:
            return await exporter.export(batch_of(TRACES, [corpus(TRACES, 3)]))
        except RingtailError as error:
            return error


async def grpc_outcome(answer: Any) -> Any:
    async with (
        GrpcStub(lambda signal, payload: answer) as stub,
        exporting(GrpcSettings(endpoint=(f"127.0.0.1:{stub.port}",), tls=PLAIN)) as exporter,
    ):
        try:
            return await exporter.export(batch_of(TRACES, [corpus(TRACES, 3)]))
        except RingtailError as error:
            return error


# --- what goes out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
async def test_http_requests_are_what_otlp_asks_for(signal: Signal, compression: Any) -> None:
    secret = {"x-api-key": Secret("key")}
    async with HttpStub() as stub:
        settings = HttpSettings(endpoint=(f"{stub.url}/base/",), compression=compression, headers=secret)
        async with exporting(settings) as exporter:
            batch = batch_of(signal, [corpus(signal, 20, seed=seed) for seed in range(2)], tenant="team")
            for _ in range(3):
                assert await exporter.export(batch) is None
        assert stub.connections == 1, "connections are kept"
        request = stub.requests[0]
        assert request.path == f"/base/v1/{signal.name}"
        assert request.payload == batch.payload
        assert request.headers["content-type"] == "application/x-protobuf"
        assert (request.headers["x-api-key"], request.headers["x-scope-orgid"]) == ("key", "team")
        assert "cookie" not in request.headers


async def test_a_signal_may_have_an_endpoint_of_its_own() -> None:
    async with HttpStub() as stub:
        settings = HttpSettings(endpoint=(stub.url,), logs_endpoint=f"{stub.url}/elsewhere")
        async with exporting(settings) as exporter:
            for signal in (LOGS, METRICS):
                await exporter.export(batch_of(signal, [corpus(signal, 2)]))
        assert [one.path for one in stub.requests] == ["/elsewhere", "/v1/metrics"]


async def test_json_is_otlps_json() -> None:
    async with (
        HttpStub(lambda one: (200, {"Content-Type": "application/json"}, b"{}")) as stub,
        exporting(HttpSettings(endpoint=(stub.url,), encoding="json", compression="none")) as exporter,
    ):
        assert await exporter.export(batch_of(TRACES, [corpus(TRACES, 5)])) is None
    found = json.loads(stub.requests[0].body)
    spans = [span for one in found["resourceSpans"] for scope in one["scopeSpans"] for span in scope["spans"]]
    assert len(spans) == 5
    assert len(spans[0]["traceId"]) == 32
    assert stub.requests[0].headers["content-type"] == "application/json"


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
async def test_grpc_calls_are_what_otlp_asks_for(signal: Signal, compression: Any) -> None:
    async with GrpcStub() as stub:
        settings = GrpcSettings(
            endpoint=(f"http://localhost:{stub.port}",), compression=compression, headers={"x-api-key": Secret("key")}
        )
        async with exporting(settings) as exporter:
            batch = batch_of(signal, [corpus(signal, 20)], tenant="team")
            assert await exporter.export(batch) is None
    (name, payload, metadata) = stub.calls[0]
    assert (name, payload) == (signal.name, batch.payload)
    assert (metadata["x-api-key"], metadata["x-scope-orgid"]) == ("key", "team")


async def test_a_token_is_read_from_its_file_again(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with HttpStub() as stub:
        settings = HttpSettings(endpoint=(stub.url,), bearer_token_file=str(file), tls=ClientTls(reload_interval=0.1))
        async with exporting(settings) as exporter:
            batch = batch_of(TRACES, [corpus(TRACES, 1)])
            await exporter.export(batch)
            file.write_text("second\n")
            async with asyncio.timeout(20):
                while stub.requests[-1].headers["authorization"] != "Bearer second":
                    await asyncio.sleep(0.02)
                    await exporter.export(batch)
    assert stub.requests[0].headers["authorization"] == "Bearer first"


# --- what answers mean ------------------------------------------------------------------------------------------------

STATUSES = [
    *((code, Retryable) for code in (408, 429, 500, 502, 503, 504)),
    *((code, Unwelcome) for code in (301, 302, 307, 308, 401, 403, 404, 405, 415, 501)),
    *((code, Permanent) for code in (400, 409, 413, 422)),
]


@pytest.mark.parametrize(("status", "cause"), STATUSES)
async def test_http_statuses(status: int, cause: type[Exception]) -> None:
    headers = {"Content-Type": "text/plain", "Location": "http://169.254.169.254/"}
    found = await http_outcome((status, headers, b"so   it\nis"))
    assert type(found) is cause
    assert str(found).startswith(f"{status}: so it is")
    assert getattr(found, "too_large", False) == (status == 413)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), ("0", 0.0), ("soon", None), ("-3", None), ("Wed, 21 Oct 2026 07:28:30 GMT", 30.0)],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    found = of_http(503, value, "", b"", 1_792_567_680.0)
    assert isinstance(found, Retryable)
    assert found.after_s == seconds


async def test_messages_of_http_answers_are_read() -> None:
    from google.rpc.status_pb2 import Status

    status = Status(code=3, message="span 3 is\nwrong").SerializeToString()
    found = await http_outcome((400, {"Content-Type": "application/x-protobuf"}, status))
    assert str(found) == "400: span 3 is wrong"
    found = await http_outcome((400, {"Content-Type": "application/json"}, b'{"message": "no", "other": 1}'))
    assert str(found) == "400: no"
    found = await http_outcome((400, {"Content-Type": "application/x-protobuf"}, b"\xff\xff"))
    assert str(found).startswith("400")
    assert len(str(await http_outcome((400, {}, b"x" * 100_000)))) < 400


Code = grpc.StatusCode
GRPC_STATUSES = [
    *(
        (code, Retryable)
        for code in (
            *(Code.CANCELLED, Code.DEADLINE_EXCEEDED, Code.ABORTED, Code.OUT_OF_RANGE, Code.UNAVAILABLE),
            *(Code.DATA_LOSS, Code.UNKNOWN, Code.INTERNAL),
        )
    ),
    *((code, Unwelcome) for code in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.UNIMPLEMENTED, Code.NOT_FOUND)),
    *((code, Permanent) for code in (Code.INVALID_ARGUMENT, Code.FAILED_PRECONDITION, Code.RESOURCE_EXHAUSTED)),
]


@pytest.mark.parametrize(("code", "cause"), GRPC_STATUSES, ids=lambda one: getattr(one, "name", None))
async def test_grpc_statuses(code: Code, cause: type[Exception]) -> None:
    found = await grpc_outcome(Refusal(code))
    assert type(found) is cause
    assert str(found) == f"{code.name}: told to"
    assert getattr(found, "too_large", False) == (code is Code.RESOURCE_EXHAUSTED)


@pytest.mark.parametrize("code", [Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED], ids=lambda one: one.name)
async def test_retry_info_is_honoured(code: Code) -> None:
    found = await grpc_outcome(Refusal(code, retry_s=2.5))
    assert isinstance(found, Retryable)
    assert found.after_s == 2.5


async def test_partial_success_is_told() -> None:
    body = partial("traces", 2, "too old")
    assert await grpc_outcome(body) == Rejected(2, "too old")
    assert await http_outcome((200, {"Content-Type": "application/x-protobuf"}, body)) == Rejected(2, "too old")
    text = b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}'
    assert await http_outcome((200, {"Content-Type": "application/json"}, text)) == Rejected(2, "too old")
    assert await http_outcome((200, {"Content-Type": "application/x-protobuf"}, partial("traces", 0, "a word"))) is None
    assert await http_outcome((200, {}, b"\xff not protobuf")) is None, "the records are there"


async def test_nobody_at_home() -> None:
    async with HttpStub() as stub:
        port = stub.port
    for settings in (
        HttpSettings(endpoint=(f"http://127.0.0.1:{port}",)),
        GrpcSettings(endpoint=(f"127.0.0.1:{port}",), tls=PLAIN, timeout=1.0),
    ):
        async with exporting(settings) as exporter:
            with pytest.raises(Retryable):
                await exporter.export(batch_of(TRACES, [corpus(TRACES, 1)]))


async def test_the_wrong_port_and_missing_http_are_named() -> None:
    async def speak_http_1(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await reader.read(1)
        writer.close()

    async with GrpcStub() as stub, await asyncio.start_server(speak_http_1, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        for settings, hint in (
            (GrpcSettings(endpoint=(f"127.0.0.1:{stub.port}",), timeout=2.0), "which http:// before the endpoint"),
            (GrpcSettings(endpoint=(f"127.0.0.1:{port}",), tls=PLAIN, timeout=2.0), "for which otlphttp is"),
        ):
            async with exporting(settings) as exporter:
                with pytest.raises(Retryable, match=hint):
                    await exporter.export(batch_of(TRACES, [corpus(TRACES, 1)]))


async def test_a_server_that_comes_back_is_found() -> None:
    stub = GrpcStub()
    async with stub:
        pass
    async with exporting(GrpcSettings(endpoint=(f"127.0.0.1:{stub.port}",), tls=PLAIN, timeout=1.0)) as exporter:
        batch = batch_of(TRACES, [corpus(TRACES, 1)])
        with pytest.raises(Retryable):
            await exporter.export(batch)
        async with stub:
            assert await exporter.export(batch) is None


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_both_sides_show_certificates(tmp_path: Path, transport: str) -> None:
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path, "stranger")
    server = authority.issue("server")
    client = tuple(map(str, authority.issue("client")))
    good = ClientTls(ca_file=str(authority.path), cert_file=client[0], key_file=client[1])
    batch = batch_of(TRACES, [corpus(TRACES, 2)])

    async def outcome(stub: Any, tls: ClientTls) -> Any:
        settings: Any
        if transport == "grpc":
            settings = GrpcSettings(endpoint=(f"localhost:{stub.port}",), tls=tls, timeout=2.0)
        else:
            settings = HttpSettings(endpoint=(f"https://localhost:{stub.port}",), tls=tls, timeout=2.0)
        async with exporting(settings) as exporter:
            try:
                return await exporter.export(batch)
            except RingtailError as error:
                return type(error)

    stub: Any
    if transport == "grpc":
        pairs = [(server[1].read_bytes(), server[0].read_bytes())]
        stub = GrpcStub(
            credentials=grpc.ssl_server_credentials(pairs, authority.path.read_bytes(), require_client_auth=True)
        )
    else:
        import ssl

        made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
        made.load_cert_chain(*server)
        made.verify_mode = ssl.CERT_REQUIRED
        stub = HttpStub(tls=made)
    async with stub:
        assert await outcome(stub, good) is None
        assert await outcome(stub, replace(good, ca_file=str(stranger.path))) in (Unwelcome, Retryable)
        assert await outcome(stub, replace(good, cert_file=None, key_file=None)) in (Unwelcome, Retryable)
        assert await outcome(stub, replace(good, server_name_override="other.example")) in (Unwelcome, Retryable)
        assert await outcome(stub, replace(good, ca_file=str(tmp_path / "none"))) is Unwelcome


# --- several endpoints ------------------------------------------------------------------------------------------------


async def test_failover_goes_to_the_next_and_stays_until_it_has_rested() -> None:
    async with (
        HttpStub(lambda one: (503, {}, b"")) as bad,
        HttpStub() as good,
        exporting(HttpSettings(endpoint=(bad.url, good.url))) as exporter,
    ):
        batch = batch_of(TRACES, [corpus(TRACES, 2)])
        for _ in range(3):
            assert await exporter.export(batch) is None
        assert (len(bad.requests), len(good.requests)) == (1, 3)
        assert [one["resting"] for one in exporter.stats()["endpoints"]] == [True, False]


def traces_in(requests: list[Request]) -> set[bytes]:
    return {one.record.trace_id for request in requests for one in wholes(TRACES, request.payload)}


async def test_each_trace_goes_to_one_endpoint_and_to_another_when_that_is_away() -> None:
    batch = batch_of(TRACES, [corpus(TRACES, 90), corpus(TRACES, 60, seed=1)])
    everything = sorted(one.key() for one in wholes(TRACES, batch.payload))
    async with HttpStub() as one, HttpStub() as two, HttpStub() as three:
        settings = HttpSettings(endpoint=(one.url, two.url, three.url), balance="trace_id")
        async with exporting(settings) as exporter:
            assert await exporter.export(batch) is None
        shares = [traces_in(stub.requests) for stub in (one, two, three)]
        assert sum(map(len, shares)) == len(set.union(*shares)) == 30
        assert all(shares)
        sent = [whole.key() for stub in (one, two, three) for r in stub.requests for whole in wholes(TRACES, r.payload)]
        assert sorted(sent) == everything
        for stub in (one, two, three):
            stub.requests.clear()
        two.answer = lambda request: (503, {}, b"")
        async with exporting(settings) as exporter:
            with pytest.raises(Retryable):
                await exporter.export(batch)
            two_failed = list(two.requests)
            assert await exporter.export(batch) is None
            assert two.requests == two_failed, "it rests"
        assert traces_in(one.requests) >= shares[0]
        assert traces_in(three.requests) >= shares[2]
        sent = [whole.key() for stub in (one, three) for r in stub.requests for whole in wholes(TRACES, r.payload)]
        assert sorted(sent) == everything, "what was taken the first time is not sent again"


async def test_records_without_a_trace_go_by_service() -> None:
    for signal in (LOGS, METRICS):
        batch = batch_of(signal, [corpus(signal, 100)])
        async with HttpStub() as one, HttpStub() as two:
            settings = HttpSettings(endpoint=(one.url, two.url), balance="trace_id")
            async with exporting(settings) as exporter:
                assert await exporter.export(batch) is None
            found = [
                {
                    w.service
                    for r in stub.requests
                    for w in wholes(signal, r.payload)
                    if not getattr(w.record, "trace_id", b"")
                }
                for stub in (one, two)
            ]
            assert not found[0] & found[1]
            count = sum(1 for stub in (one, two) for r in stub.requests for _ in wholes(signal, r.payload))
            assert count == 100


async def test_what_one_endpoint_has_refused_is_told_when_all_have_answered() -> None:
    batch = batch_of(TRACES, [corpus(TRACES, 60)])
    answers = [(503, {}, b"")]
    async with (
        HttpStub(lambda one: (200, {}, partial("traces", 2, "old"))) as one,
        HttpStub(lambda one: answers.pop() if answers else (200, {}, b"")) as two,
    ):
        settings = HttpSettings(endpoint=(one.url, two.url), balance="trace_id")
        async with exporting(settings) as exporter:
            with pytest.raises(Retryable):
                await exporter.export(batch)
            found = await exporter.export(batch)
    assert found is not None
    assert found.reason == "old"
    assert found.records >= 2
    assert len(one.requests) == 2, "the rest of it goes to the one that answers"


def test_both_kinds_are_known() -> None:
    assert (find("otlp"), find("otlphttp"), find("nothing")) == (GRPC, HTTP, None)
