"""TLS on every listener of a daemon: versions, certificates, reloads under open connections, and what is no TLS."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import pytest
from grpc_health.v1 import health_pb2

from collector.otlp.signals import TRACES
from collector.testing import otlp
from tests.daemon import Daemon
from tests.security.certificates import Authority, serial_of

LISTENERS = ("grpc", "http", "api", "queries")
KEYS = {
    "grpc": "receivers.otlp.protocols.grpc",
    "http": "receivers.otlp.protocols.http",
    "api": "api",
    "queries": "api.grpc",
}
NAMES = {"grpc": "otlp/grpc", "http": "otlp/http", "api": "api", "queries": "api/grpc"}
PROTOCOLS = {"grpc": "h2", "http": "http/1.1", "api": "http/1.1", "queries": "h2"}
CHECK = b"/grpc.health.v1.Health/Check"


def settings(certificate: tuple[Path, Path], *more: str) -> list[str]:
    """Return the settings that give every listener TLS; `more` are pairs within its group."""
    group = ", ".join([f"cert_file: {certificate[0]}", f"key_file: {certificate[1]}", "reload_interval: 100ms", *more])
    return [f"{key}.tls={{{group}}}" for key in KEYS.values()]


class Client:
    """One TLS connection to a listener, on which it is asked something again and again."""

    def __init__(self, daemon: Daemon, listener: str, context: ssl.SSLContext) -> None:
        self.listener = listener
        host, _, port = str(getattr(daemon, listener)).partition(":")
        self.host = host
        context.set_alpn_protocols([PROTOCOLS[listener]])
        raw = socket.create_connection((host, int(port)), timeout=30)
        try:
            self.socket = context.wrap_socket(raw, server_hostname="localhost")
        except BaseException:
            raw.close()
            raise
        if PROTOCOLS[listener] == "h2":
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
            self.h2.initiate_connection()

    def ask(self) -> None:
        """Ask for something, and assert that the answer is right."""
        if PROTOCOLS[self.listener] == "h2":
            self._check_health()
            return
        connection = http.client.HTTPConnection(self.host)
        connection.sock = self.socket
        if self.listener == "api":
            connection.request("GET", "/readyz")
        else:
            payload = otlp.traces(3000)  # large enough to be read straight into its own buffer
            connection.request("POST", "/v1/traces", payload, {"Content-Type": "application/x-protobuf"})
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"ready\n" if self.listener == "api" else b"")

    def _check_health(self) -> None:
        stream = self.h2.get_next_available_stream_id()
        fields = [
            (":method", "POST"),
            (":scheme", "https"),
            (":path", CHECK.decode()),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]
        self.h2.send_headers(stream, fields)
        self.h2.send_data(stream, bytes(5), end_stream=True)
        data = b""
        while True:
            self.socket.sendall(self.h2.data_to_send())
            came = self.socket.recv(65536)
            assert came, "the connection was closed"
            for event in self.h2.receive_data(came):
                if isinstance(event, h2.events.DataReceived):
                    data += event.data
                if isinstance(event, h2.events.StreamEnded):
                    assert health_pb2.HealthCheckResponse.FromString(data[5:]).status == 1
                    return

    def close(self) -> None:
        self.socket.close()


def refused(daemon: Daemon, listener: str, context: ssl.SSLContext) -> None:
    """Assert that a client gets no connection: with TLS 1.3 it learns that with its first read."""
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected, AssertionError)) as caught:
        client = Client(daemon, listener, context)
        try:
            client.ask()
        finally:
            client.close()
    if isinstance(caught.value, AssertionError):
        assert "the connection was closed" in str(caught.value)


def handshakes(daemon: Daemon, listener: str) -> dict[str, float]:
    """Return a listener's counts by outcome."""
    pattern = rf'^ringtail_tls_handshakes_total{{listener="{NAMES[listener]}",outcome="(\w+)"}} (\S+)$'
    return {name: float(count) for name, count in re.findall(pattern, metrics(daemon), re.MULTILINE)}


def metrics(daemon: Daemon) -> str:
    return daemon.get("/metrics").body.decode()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Daemon]:
    server = authority.issue("server")
    with Daemon(tmp_path_factory.mktemp("tls"), *settings(server), tls=authority.client()) as running:
        yield running


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Daemon]:
    server = authority.issue("mutual-server")
    more = settings(server, f"client_ca_file: {authority.path}")
    tls = authority.client(authority.issue("client"))
    with Daemon(tmp_path_factory.mktemp("mutual"), *more, tls=tls) as running:
        yield running


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("listener", LISTENERS)
def test_tls_1_2_and_1_3(daemon: Daemon, authority: Authority, listener: str, version: ssl.TLSVersion) -> None:
    context = authority.client()
    context.minimum_version = context.maximum_version = version
    client = Client(daemon, listener, context)
    assert client.socket.version() == f"TLSv1.{version - ssl.TLSVersion.TLSv1}"
    assert client.socket.selected_alpn_protocol() == PROTOCOLS[listener]
    for _ in range(3):
        client.ask()
    client.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
@pytest.mark.parametrize("listener", LISTENERS)
def test_tls_1_1_is_refused(daemon: Daemon, authority: Authority, listener: str) -> None:
    context = authority.client()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    before = handshakes(daemon, listener)["protocol"]
    refused(daemon, listener, context)
    assert handshakes(daemon, listener)["protocol"] == before + 1


@pytest.mark.parametrize("listener", LISTENERS)
def test_certificates_are_verified(mutual: Daemon, authority: Authority, tmp_path: Path, listener: str) -> None:
    good = Client(mutual, listener, authority.client(authority.issue("client")))
    good.ask()
    good.close()
    stranger = Authority(tmp_path, "stranger")
    before = handshakes(mutual, listener)["certificate"]
    for certificate in (None, authority.issue("late", expired=True), stranger.issue("client")):
        refused(mutual, listener, authority.client(certificate))
    assert handshakes(mutual, listener)["certificate"] == before + 3
    refused(mutual, listener, stranger.client(authority.issue("client")))  # the daemon is not the client's


def test_grpc_needs_its_protocol_to_be_agreed_on(daemon: Daemon, authority: Authority) -> None:
    host, _, port = daemon.grpc.partition(":")
    before = handshakes(daemon, "grpc")["protocol"]
    for protocols in ([], ["http/1.1"]):
        context = authority.client()
        if protocols:
            context.set_alpn_protocols(protocols)
        with (
            pytest.raises((ssl.SSLError, ConnectionError, EOFError)),
            socket.create_connection((host, int(port)), timeout=30) as raw,
            context.wrap_socket(raw, server_hostname="localhost") as secure,
        ):
            secure.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
            if not secure.recv(100):
                raise EOFError
    assert handshakes(daemon, "grpc")["protocol"] == before + 2


@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_plaintext_on_a_tls_port_is_closed_at_once(daemon: Daemon, listener: str, sent: bytes) -> None:
    before = handshakes(daemon, listener)["plaintext"]
    host, _, port = str(getattr(daemon, listener)).partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(sent)
        try:
            assert b"HTTP/1.1 200" not in raw.recv(1000)
        except ConnectionError:
            pass
    assert handshakes(daemon, listener)["plaintext"] == before + 1


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_client_that_leaves_in_its_handshake_leaves_nothing_behind(daemon: Daemon, listener: str) -> None:
    before = handshakes(daemon, listener)["incomplete"]
    host, _, port = str(getattr(daemon, listener)).partition(":")
    for sent in (b"", b"\x16\x03\x01"):
        with socket.create_connection((host, int(port)), timeout=30) as raw:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(10) == b""  # the daemon has closed
    assert handshakes(daemon, listener)["incomplete"] == before + 2


@pytest.mark.parametrize("listener", LISTENERS)
def test_a_new_certificate_is_for_new_connections_and_ends_none(
    authority: Authority, tmp_path: Path, listener: str
) -> None:
    first, second = authority.issue("first"), authority.issue("second")
    served = tmp_path / "served.crt", tmp_path / "served.key"
    replace(first, served)
    stranger = Authority(tmp_path, "stranger")
    with Daemon(
        tmp_path, *settings(served), tls=authority.client(), allow={"certificate not reloaded, the old one stays"}
    ) as daemon:
        old = Client(daemon, listener, authority.client())
        old.ask()
        other = stranger.issue("other")
        # half of a change: a key of another certificate
        replace((first[0], other[1]), served)
        daemon.wait_for("certificate not reloaded, the old one stays", listener=NAMES[listener])
        still = Client(daemon, listener, authority.client())
        assert serial_of(still.socket) == serial_of(old.socket)
        replace(second, served)
        daemon.wait_for("certificate reloaded", listener=NAMES[listener])
        new = Client(daemon, listener, authority.client())
        assert serial_of(new.socket) != serial_of(old.socket)
        for client in (old, still, new):
            client.ask()
            client.close()
        text = metrics(daemon)
        assert f'ringtail_tls_reloads_total{{listener="{NAMES[listener]}",outcome="success"}} 1.0' in text
        failures = re.search(rf'tls_reloads_total{{listener="{NAMES[listener]}",outcome="failure"}} (\S+)', text)
        assert failures is not None
        assert float(failures[1]) >= 1


def replace(certificate: tuple[Path, Path], served: tuple[Path, Path]) -> None:
    """Put a certificate and its key where they are served from, each in one step."""
    for source, target in zip(certificate, served, strict=True):
        shutil.copy(source, f"{target}.new")
        os.replace(f"{target}.new", target)


def test_an_authority_that_was_removed_is_forgotten(authority: Authority, tmp_path: Path) -> None:
    old = Authority(tmp_path, "old")
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(authority.path.read_bytes() + old.path.read_bytes())
    mine = authority.client(authority.issue("client"))
    more = settings(authority.issue("server-2"), f"client_ca_file: {trusted}")
    with Daemon(tmp_path, *more, tls=mine) as daemon:
        theirs = authority.client(old.issue("their-client"))
        connected = Client(daemon, "http", theirs)
        connected.ask()
        trusted.write_bytes(authority.path.read_bytes())
        daemon.wait_for("certificate reloaded", listener="otlp/http")
        refused(daemon, "http", theirs)
        connected.ask()
        connected.close()


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (lambda crt, key: os.unlink(crt), "cert_file: {crt}: cannot be read: No such file or directory"),
        (lambda crt, key: key.write_text("nothing"), "cert_file, key_file: {crt}, {key}: not valid PEM"),
    ],
)
def test_a_daemon_does_not_start_on_files_that_do_not_fit(
    authority: Authority, tmp_path: Path, break_it: Callable[[Path, Path], Any], expected: str
) -> None:
    crt, key = authority.issue("broken")
    break_it(crt, key)
    daemon = Daemon(tmp_path, *settings((crt, key)), wait=False)
    assert daemon.wait() == 2
    for line, listener in zip(daemon.lines, KEYS.values(), strict=False):
        assert line.startswith(f"{listener}.tls.{expected.format(crt=crt, key=key)}")
    assert len(daemon.lines) == len(KEYS) + 1


def test_a_key_with_a_password_is_refused_and_not_asked_for(authority: Authority, tmp_path: Path) -> None:
    certificate = authority.issue("locked", password=b"canary")
    daemon = Daemon(tmp_path, *settings(certificate), wait=False)
    assert daemon.wait() == 2
    assert "the key has a password, which ringtail cannot enter" in daemon.lines[0]


def test_a_certificate_that_has_expired_is_warned_about(authority: Authority, tmp_path: Path) -> None:
    """It is served: somebody may have to be let in until there is a new one."""
    certificate = authority.issue("was", expired=True)
    tls = f"api.tls={{cert_file: {certificate[0]}, key_file: {certificate[1]}, reload_interval: 100ms}}"
    allow = {"certificate is not valid now"}
    with Daemon(tmp_path, tls, wait=False, allow=allow, tls=authority.client()) as daemon:
        daemon.wait_for("ready")
        warning = daemon.wait_for("certificate is not valid now", listener="api", level="warning")
        assert warning["reason"].startswith(f"api.tls.cert_file: {certificate[0]}: the certificate has expired, on ")
        authority.issue("was")
        daemon.wait_for("certificate reloaded")
        assert len([one for one in daemon.events if one["event"] == "certificate is not valid now"]) == 1
        text = daemon.get("/metrics").body.decode()
        (ends,) = re.findall(r'^ringtail_tls_certificate_expiry_seconds{listener="api"} (\S+)$', text, re.MULTILINE)
        context = ssl.create_default_context(cafile=str(authority.path))
        host, _, port = daemon.api.partition(":")
        with (
            socket.create_connection((host, int(port))) as raw,
            context.wrap_socket(raw, server_hostname=host) as shown,
        ):
            assert ssl.cert_time_to_seconds(str(shown.getpeercert()["notAfter"])) == float(ends)  # type: ignore[index]


def test_a_grpc_client_of_others_over_tls(daemon: Daemon, authority: Authority) -> None:
    credentials = grpc.ssl_channel_credentials(authority.path.read_bytes())
    with grpc.secure_channel(daemon.grpc, credentials) as channel:
        for _ in range(3):
            assert channel.unary_unary(f"/{TRACES.service}/Export")(otlp.traces(3000), timeout=30) == b""
