"""S14: where exporters connect to, and what they take from there."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from collector.errors import InvalidConfig, Malformed, Retryable, RingtailError, Unwelcome
from collector.exporters import outbound
from collector.exporters.otlp.grpc import grpc_exporter
from collector.exporters.otlp.http import http_exporter
from collector.exporters.otlp.settings import GrpcSettings, HttpSettings
from collector.exporters.outbound import ANSWER_BYTES_MAX, parse_endpoint, refused, resolve
from collector.exporters.settings import ClientTls
from collector.otlp.signals import TRACES
from collector.settings import load
from collector.testing.corpus import corpus
from collector.testing.exporters import batch_of
from tests.exporters.stubs import HttpStub, context

NEVER = (
    "169.254.169.254",
    "169.254.170.2",
    "169.254.0.1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "::ffff:169.254.169.254",
    "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::1",
)
NOBODY = ("0.0.0.0", "::", "224.0.0.1", "255.255.255.255", "ff02::1", "240.0.0.1")
WELL = ("127.0.0.1", "::1", "10.1.2.3", "192.168.1.1", "8.8.8.8", "2001:4860:4860::8888", "fd12::1", "100.64.0.1")


@pytest.mark.parametrize("address", [*NEVER, *NOBODY])
def test_addresses_that_are_not_connected_to(address: str) -> None:
    assert refused(address, allow_link_local=False)
    assert bool(refused(address, allow_link_local=True)) == (address in NOBODY)


@pytest.mark.parametrize("address", WELL)
def test_addresses_that_are(address: str) -> None:
    assert refused(address, allow_link_local=False) == ""


@pytest.mark.parametrize(
    "text",
    [
        "ftp://a:1",
        "file:///etc/passwd",
        "gopher://a:1",
        "//a:1/",
        "a",
        "http://",
        "http://a:99999",
        "http://user:secret@a:1",
        "http://a:1/?q=1",
        "http://a:1/#x",
        "http://[::1",
    ],
)
def test_endpoints_that_are_none(text: str) -> None:
    with pytest.raises(Malformed) as caught:
        parse_endpoint(text, ("http", "https"), {"http": 80, "https": 443})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "setting",
    [
        "exporters.otlphttp.endpoint=http://169.254.169.254/latest",
        "exporters.otlphttp.endpoint=http://[::ffff:a9fe:a9fe]:80",
        "exporters.otlphttp.endpoint=ftp://a:1",
        "exporters.otlphttp.traces_endpoint=http://169.254.169.254/",
        "exporters.otlp.endpoint=169.254.169.254:4317",
        "exporters.otlp.endpoint=unix:/var/run/docker.sock",
        "exporters.otlp.endpoint=http://a:4317/path",
    ],
)
def test_the_configuration_is_refused(setting: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load([], [setting], {})
    assert "exporters.otlp" in caught.value.problems[0]


def names(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Let every name have these addresses."""

    async def getaddrinfo(host: str, port: int, **_: Any) -> Any:
        return [
            (socket.AF_INET6 if ":" in one else socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port))
            for one in addresses
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)


async def test_names_are_looked_at_when_they_are_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    names(monkeypatch, "169.254.169.254", "127.0.0.1", "127.0.0.1")
    assert [address for _, address in await resolve("a", 1, allow_link_local=False)] == ["127.0.0.1"]
    names(monkeypatch, "169.254.169.254")
    with pytest.raises(Unwelcome, match="link-local"):
        await resolve("a", 1, allow_link_local=False)
    names(monkeypatch)
    with pytest.raises(Retryable):
        await resolve("a", 1, allow_link_local=False)


@pytest.mark.parametrize("transport", ["grpc", "http"])
async def test_a_name_that_leads_to_the_metadata_service_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch, transport: str
) -> None:
    settings: Any = (
        GrpcSettings(endpoint=("innocent.example:80",), tls=ClientTls(insecure=True))
        if transport == "grpc"
        else HttpSettings(endpoint=("http://innocent.example",))
    )
    exporter = grpc_exporter(settings, context()) if transport == "grpc" else http_exporter(settings, context())
    names(monkeypatch, "169.254.169.254")
    try:
        with pytest.raises(Unwelcome, match="link-local"):
            await exporter.export(batch_of(TRACES, [corpus(TRACES, 1)]))
    finally:
        await exporter.stop()


async def outcome(stub: HttpStub, **settings: Any) -> RingtailError:
    exporter = http_exporter(HttpSettings(endpoint=(stub.url,), **settings), context())
    try:
        with pytest.raises(RingtailError) as caught:
            await exporter.export(batch_of(TRACES, [corpus(TRACES, 1)]))
    finally:
        await exporter.stop()
    return caught.value


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with (
        HttpStub() as other,
        HttpStub(lambda one: (status, {"Location": f"{other.url}/v1/traces"}, b"")) as stub,
    ):
        found = await outcome(stub)
    assert isinstance(found, Unwelcome)
    assert other.requests == []
    assert len(stub.requests) == 1


async def test_answers_are_read_so_far_and_no_further() -> None:
    for status in (200, 503):
        async with HttpStub(lambda one, status=status: (status, {}, bytes(ANSWER_BYTES_MAX + 1))) as stub:  # type: ignore[misc]
            assert "larger than" in str(await outcome(stub))


async def test_a_compressed_answer_is_not_inflated() -> None:
    import gzip

    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    async with HttpStub(lambda one: (503, {"Content-Encoding": "gzip"}, bomb)) as stub:
        assert isinstance(await outcome(stub), Retryable)
        assert stub.requests[0].headers["accept-encoding"] == "identity"


async def test_a_server_that_says_nothing_is_given_up() -> None:
    async with HttpStub(lambda one: None) as stub:
        assert isinstance(await outcome(stub, timeout=0.1), Retryable)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with HttpStub() as proxy, HttpStub() as stub:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, proxy.url)
        exporter = http_exporter(HttpSettings(endpoint=(stub.url,)), context())
        await exporter.export(batch_of(TRACES, [corpus(TRACES, 1)]))
        await exporter.stop()
        assert (len(proxy.requests), len(stub.requests)) == (0, 1)


async def test_resolving_takes_no_longer_than_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(host: str, port: int, **_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo, raising=False)
    monkeypatch.setattr(outbound, "CONNECT_S", 0.01)
    with pytest.raises(Retryable):
        await resolve("a", 1, allow_link_local=False)
