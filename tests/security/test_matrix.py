"""The matrix of S11: every route and RPC with every kind of credential, against a daemon that asks nobody.

The routes are the application's own list, the RPCs the receivers', so that one which is added is in the matrix, and not
open by accident. Where credentials suffice, the answer is that of a daemon without authentication.
"""

from __future__ import annotations

import asyncio
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import bcrypt
import grpc
import pytest
from google.protobuf import json_format
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from collector.api.access import right_for
from collector.api.app import create_app
from collector.clock import SystemClock
from collector.otlp.signals import SIGNALS
from collector.query.engine import Engine
from collector.ring.ring import Ring
from collector.security.rights import ADMINISTER, NOBODY, READ, WRITE
from collector.store import Store
from collector.testing import otlp
from tests.daemon import Answer, Daemon
from tests.receivers.doubles import Receiving

WRITER, READER, ALL, OLD = (f"token-token-token-{name}" for name in ("writer", "reader", "all", "old"))


@dataclass(frozen=True)
class Who:
    """Somebody, and what they may do; `rights` is None for who is not known."""

    name: str
    authorization: str | None
    rights: int | None

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.authorization is None else {"Authorization": self.authorization}

    def expected(self, right: int, good: int) -> int:
        """Return the HTTP code that a request which needs `right`, and is otherwise answered with `good`, gets."""
        if right == NOBODY:
            return good
        return 401 if self.rights is None else good if self.rights & right else 403


def basic(user: str, password: str) -> str:
    return f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"


EVERYBODY = (
    Who("none", None, None),
    Who("wrong token", "Bearer wrong-wrong-wrong-wrong", None),
    Who("expired token", f"Bearer {OLD}", None),
    Who("wrong password", basic("ann", "wrong"), None),
    Who("other scheme", f"Digest {ALL}", None),
    Who("write only", f"Bearer {WRITER}", WRITE),
    Who("read only", f"Bearer {READER}", READ),
    Who("read by password", basic("ann", "right"), READ),
    Who("good", f"Bearer {ALL}", WRITE | READ | ADMINISTER),
)
by_name = pytest.mark.parametrize("who", EVERYBODY, ids=lambda who: who.name)


async def _routes() -> list[str]:
    loop = asyncio.get_running_loop()
    stores = {signal.name: Store(signal, Ring(signal, 10, 1 << 20), None, loop) for signal in SIGNALS}
    engine = Engine(1, 1.0, SystemClock())
    app: Any = create_app(stores, engine, CollectorRegistry(), list, dict, dict, None)
    engine.close()
    return sorted({re.sub(r"{[^}]*}", "x", route.path) for route in app.routes})


ROUTES = asyncio.run(_routes())
PUSH, TAIL = "/loki/api/v1/push", "/loki/api/v1/tail"
"""Routes that are there when the daemon has a door for them."""


def _methods() -> list[str]:
    loop = asyncio.new_event_loop()
    found = [path.decode() for path in Receiving(loop).grpc.methods]
    loop.close()
    return sorted(found)


METHODS = _methods()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    directory = tmp_path_factory.mktemp("guarded")
    tokens, htpasswd = directory / "tokens", directory / "htpasswd"
    tokens.write_text(f"{ALL}\n{OLD}\n")
    htpasswd.write_text(f"ann:{bcrypt.hashpw(b'right', bcrypt.gensalt(4)).decode()}\n")
    credentials = [
        {"name": "writers", "rights": "write", "tokens": "${env:WRITER}"},
        {"name": "readers", "rights": "read", "tokens": ["${env:READER}"]},
        {"name": "people", "rights": ["read"], "htpasswd_file": str(htpasswd)},
        {"name": "operators", "rights": ["write", "read", "administer"], "token_file": str(tokens)},
    ]
    with Daemon(
        directory,
        f"auth={{reload_interval: 100ms, credentials: {json.dumps(credentials)}}}",
        variables={"WRITER": WRITER, "READER": READER},
        headers={"Authorization": f"Bearer {ALL}"},
    ) as running:
        tokens.write_text(f"{ALL}\n")
        running.wait_for("credentials reloaded")
        yield running


@pytest.fixture(scope="module")
def open_to_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("open")) as running:
        yield running


def bare(daemon: Daemon, address: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
    """Send a request without the daemon's own headers."""
    own, daemon._headers = daemon._headers, {}
    try:
        return daemon.request(address, method, path, body, headers)
    finally:
        daemon._headers = own


def ask(daemon: Daemon, method: str, path: str, who: Who) -> Answer:
    """Ask the query API, with nothing but the headers of `who`."""
    return bare(daemon, daemon.api, method, path, None, who.headers)


@pytest.mark.parametrize("path", [*ROUTES, PUSH, TAIL, "/nothing/here", "/api/v1/nothing", "/-/nothing"])
def test_the_query_api(guarded: Daemon, open_to_all: Daemon, path: str) -> None:
    for method in ("GET", "POST", "DELETE"):
        good = ask(open_to_all, method, path, EVERYBODY[0]).code
        for who in EVERYBODY:
            answer = ask(guarded, method, path, who)
            assert (method, who.name, answer.code) == (method, who.name, who.expected(right_for(method, path), good))
            if answer.code in (401, 403) and path.startswith("/api/v1/"):
                assert json.loads(answer.body)["status"] == "error"
                assert json.loads(answer.body)["errorType"] == {401: "unauthorized", 403: "forbidden"}[answer.code]
            assert ('realm="ringtail"' in answer.headers.get("www-authenticate", "")) == (answer.code == 401)
            assert "retry-after" not in answer.headers


@by_name
def test_a_live_tail(guarded: Daemon, who: Who) -> None:
    """By WebSocket: refused before it opens, or open."""
    url = f"ws://{guarded.api}{TAIL}?query=%7Ba%3D%22b%22%7D"
    try:
        with connect(url, additional_headers=who.headers, proxy=None):
            code = 101
    except InvalidStatus as refused:
        code = refused.response.status_code
        assert ("WWW-Authenticate" in refused.response.headers) == (code == 401)
    assert code == who.expected(READ, 101)


def test_what_is_open() -> None:
    """All that anybody may ask, and all that only operators may: a change here is a change for users."""
    rights = {path: right_for("GET", path) for path in ROUTES}
    assert {path for path, right in rights.items() if right == NOBODY} == {"/healthz", "/readyz"}
    assert {path for path, right in rights.items() if right == ADMINISTER} == {
        path for path in ROUTES if path.startswith("/-/") or path == "/api/delete"
    }
    assert "/api/delete" in ROUTES
    assert (right_for("POST", PUSH), right_for("GET", PUSH), right_for("DELETE", PUSH)) == (WRITE, READ, ADMINISTER)
    assert right_for("POST", "/loki/api/v1/push/") == READ
    assert right_for("GET", "/healthz/") == right_for("GET", "//healthz") == READ
    assert right_for("POST", "/-/reload") == right_for("DELETE", "/api/v1/series") == ADMINISTER


@pytest.mark.parametrize("media_type", ["application/x-protobuf", "application/json"])
@pytest.mark.parametrize("path", [*(signal.http_path for signal in SIGNALS), "/", "/v1/nothing"])
def test_otlp_http(guarded: Daemon, open_to_all: Daemon, path: str, media_type: str) -> None:
    body = b"" if media_type.endswith("protobuf") else b"{}"
    for method in ("GET", "POST"):

        def send(daemon: Daemon, headers: dict[str, str], method: str = method) -> Answer:
            return bare(daemon, daemon.http, method, path, body, {"Content-Type": media_type, **headers})

        good = send(open_to_all, {}).code
        for who in EVERYBODY:
            answer = send(guarded, who.headers)
            assert (method, who.name, answer.code) == (method, who.name, who.expected(WRITE, good))
            if answer.code in (401, 403):
                assert_status(answer, media_type)


def assert_status(answer: Answer, media_type: str) -> None:
    """Assert that a refusal has a Status in the request's encoding, and does not ask to be sent again."""
    assert answer.headers["content-type"] == media_type
    status = status_pb2.Status()
    if media_type.endswith("json"):
        json_format.Parse(answer.body, status)
    else:
        status.ParseFromString(answer.body)
    assert status.code == {401: 16, 403: 7}[answer.code]
    assert status.message
    assert "retry-after" not in answer.headers
    assert ('realm="ringtail"' in answer.headers.get("www-authenticate", "")) == (answer.code == 401)


@by_name
@pytest.mark.parametrize(
    "method", [*METHODS, "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export"]
)
def test_grpc(guarded: Daemon, method: str, who: Who) -> None:
    signals = {f"/{signal.service}/Export": signal for signal in SIGNALS}
    payload = otlp.BUILDERS[signals[method]](3) if method in signals else b""
    metadata = [("authorization", who.authorization)] if who.authorization is not None else []
    good = grpc.StatusCode.OK
    if method not in METHODS:
        good = grpc.StatusCode.UNIMPLEMENTED
    right = NOBODY if method.startswith("/grpc.health.") else WRITE
    codes = {401: grpc.StatusCode.UNAUTHENTICATED, 403: grpc.StatusCode.PERMISSION_DENIED, 200: good}
    expected = codes[who.expected(right, 200)]
    with grpc.insecure_channel(guarded.grpc) as channel:
        calls = channel.unary_stream(method)(payload, metadata=metadata, timeout=30)
        try:
            response = next(calls)
            found = grpc.StatusCode.OK
        except grpc.RpcError as error:
            found = error.code()
            trailers = dict(error.trailing_metadata() or ())
            status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
            assert (status.code, status.message) == (found.value[0], error.details())
            assert ("www-authenticate" in trailers) == (found is grpc.StatusCode.UNAUTHENTICATED)
            assert "google.rpc.retryinfo-bin" not in trailers
        else:
            if right == NOBODY:
                assert health_pb2.HealthCheckResponse.FromString(response).status == 1
            calls.cancel()
    assert found == expected


def test_refusals_are_counted(guarded: Daemon) -> None:
    def count(reason: str) -> float:
        text = guarded.get("/metrics").body.decode()
        found = re.search(rf'ringtail_auth_refusals_total{{listener="api",reason="{reason}"}} (\S+)', text)
        assert found is not None
        return float(found[1])

    before = count("unauthenticated"), count("forbidden")
    for who in EVERYBODY:
        ask(guarded, "GET", "/api/stats", who)
    assert (count("unauthenticated") - before[0], count("forbidden") - before[1]) == (5, 1)


def test_statistics_say_that_clients_are_asked(guarded: Daemon) -> None:
    listeners = guarded.get("/api/stats").json()["listeners"]
    assert {name: one["authentication"] for name, one in listeners.items()} == dict.fromkeys(listeners, True)
