"""The OpenTelemetry SDK for Python over TLS with a token, by gRPC and by HTTP: everything arrives, and only then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcTraces
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpTraces
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.daemon import Daemon
from tests.e2e.answers import accounted, assert_everything
from tests.e2e.python_sdk import send
from tests.security.certificates import Authority

WRITER, READER = "writer-writer-writer", "reader-reader-reader"


@pytest.fixture(autouse=True)
def no_other_authorities(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the exporters' certificate_file count: these variables would win over it in `requests`."""
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Daemon]:
    crt, key = authority.issue("server")
    tls = f"tls={{cert_file: {crt}, key_file: {key}}}"
    with Daemon(
        tmp_path_factory.mktemp("secure"),
        *(f"{one}.{tls}" for one in ("receivers.otlp.protocols.grpc", "receivers.otlp.protocols.http", "api")),
        "auth.credentials=[{name: w, rights: write, tokens: '${env:WRITER}'}, "
        "{name: r, rights: read, tokens: '${env:READER}'}]",
        variables={"WRITER": WRITER, "READER": READER},
        tls=authority.client(),
        headers={"Authorization": f"Bearer {READER}"},
    ) as running:
        yield running


def exporters(daemon: Daemon, protocol: str, authority: Path, token: str) -> tuple[Any, Any, Any]:
    headers = {"authorization": f"Bearer {token}"}
    if protocol == "grpc":
        credentials = grpc.ssl_channel_credentials(authority.read_bytes())
        options: dict[str, Any] = {"endpoint": daemon.grpc, "credentials": credentials, "headers": headers}
        return GrpcTraces(**options), GrpcLogs(**options), GrpcMetrics(**options)
    options = {"certificate_file": str(authority), "headers": headers}
    base = f"https://{daemon.http}/v1"
    return (
        HttpTraces(endpoint=f"{base}/traces", **options),
        HttpLogs(endpoint=f"{base}/logs", **options),
        HttpMetrics(endpoint=f"{base}/metrics", **options),
    )


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_what_the_sdk_sends_is_found(secure: Daemon, authority: Authority, protocol: str) -> None:
    sent: list[dict[str, object]] = []
    with accounted(secure, protocol, sent):
        sent.append(send(exporters(secure, protocol, authority.path, WRITER), f"secure-{protocol}"))
    assert_everything(secure, sent[0])


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("token", [READER, "wrong-wrong-wrong-wrong"])
def test_the_sdk_gives_up_at_once_without_the_right(
    secure: Daemon, authority: Authority, protocol: str, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(seen))
    provider.get_tracer("x").start_span("refused").end()
    spans = seen.get_finished_spans()
    exporter = exporters(secure, protocol, authority.path, token)[0]
    before = secure.stats()["traces"]["records"]
    assert exporter.export(spans) is SpanExportResult.FAILURE
    exporter.shutdown()
    provider.shutdown()
    assert secure.stats()["traces"]["records"] == before
    assert "retrying" not in caplog.text.lower()
