"""Listening beyond loopback (S15): allowed, never silent, and visible while the daemon runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.config import Config
from collector.exposure import openings
from collector.settings import load
from tests.daemon import Daemon
from tests.security.certificates import Authority

TOKEN = "auth.credentials=[{name: a, rights: [read, write], tokens: token-token-token-1}]"
EVERYWHERE = {
    "otlp/grpc": "receivers.otlp.protocols.grpc.endpoint=0.0.0.0:0",
    "otlp/http": "receivers.otlp.protocols.http.endpoint=:0",
    "api": "api.endpoint=[::]:0",
}


def warnings(*options: str) -> dict[str, list[str]]:
    return {one.name: one.warnings() for one in openings(load([], options, {}))}


def test_by_default_nothing_is_reached_from_outside() -> None:
    for one in openings(Config()):
        assert one.host == "127.0.0.1"
        assert one.is_local
        assert one.warnings() == []


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "[::1]", "localhost"])
def test_loopback_is_not_warned_about(host: str) -> None:
    assert warnings(f"api.endpoint={host}:1")["api"] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "", "[::]", "10.1.2.3", "example.com", "[fe80::1]"])
def test_what_is_missing_is_told_with_the_keys_that_set_it(host: str) -> None:
    key = "receivers.otlp.protocols.http"
    tls, auth = warnings(f"{key}.endpoint={host}:1")["otlp/http"]
    assert tls == f"no TLS: set {key}.tls.cert_file and key_file"
    assert auth.startswith("no authentication, whoever reaches it may use it: set auth.credentials or ")
    (clear,) = warnings(f"{key}.endpoint={host}:1", TOKEN)["otlp/http"]
    assert clear == f"no TLS; credentials travel in the clear: set {key}.tls.cert_file and key_file"
    group = f"{key}.tls={{cert_file: x, key_file: y}}"
    (unasked,) = warnings(f"{key}.endpoint={host}:1", group)["otlp/http"]
    assert unasked == auth
    (switched_off,) = warnings(f"{key}.endpoint={host}:1", group, TOKEN, f"{key}.auth.enabled=false")["otlp/http"]
    assert switched_off.endswith(f"{key}.auth.enabled is false")
    assert warnings(f"{key}.endpoint={host}:1", group, TOKEN)["otlp/http"] == []
    mutual = f"{key}.tls={{cert_file: x, key_file: y, client_ca_file: z}}"
    assert warnings(f"{key}.endpoint={host}:1", mutual)["otlp/http"] == []


def test_a_start_says_it_and_statistics_show_it(tmp_path: Path) -> None:
    with Daemon(tmp_path, *list(EVERYWHERE.values())[:2], allow={"open to the network"}) as daemon:
        told = [event for event in daemon.events if event["event"] == "open to the network"]
        assert {event["level"] for event in told} == {"warning"}
        assert sorted((event["what"], event["missing"][:5]) for event in told) == [
            ("otlp/grpc", "no TL"),
            ("otlp/grpc", "no au"),
            ("otlp/http", "no TL"),
            ("otlp/http", "no au"),
        ]
        listeners = daemon.get("/api/stats").json()["listeners"]
        assert {name: len(one["warnings"]) for name, one in listeners.items()} == {
            "otlp/grpc": 2,
            "otlp/http": 2,
            "api": 0,
            "api/grpc": 0,
        }
        assert listeners["api"] == {
            "loopback": True,
            "tls": False,
            "client_certificates": False,
            "authentication": False,
            "warnings": [],
        }


def test_a_start_with_both_is_silent(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    crt, key = authority.issue("server")
    groups = [
        f"{one}.tls={{cert_file: {crt}, key_file: {key}}}"
        for one in ("receivers.otlp.protocols.grpc", "receivers.otlp.protocols.http", "api")
    ]
    headers = {"Authorization": "Bearer token-token-token-1"}
    # The daemon is asked by the address that it tells, which is of all interfaces.
    tls = authority.client()
    tls.check_hostname = False
    with Daemon(
        tmp_path, *list(EVERYWHERE.values())[:2], "api.endpoint=0.0.0.0:0", TOKEN, *groups, tls=tls, headers=headers
    ) as daemon:
        assert daemon.troubles() == []
        assert daemon.stats()["traces"]["records"] == 0


def test_a_reload_changes_who_is_known(tmp_path: Path) -> None:
    path = tmp_path / "collector.yaml"
    old, new = "old-old-old-old-old", "new-new-new-new-new"
    text = "auth: {credentials: [{name: NAME, rights: [read, write, administer], tokens: TOKEN}]}"
    path.write_text(text.replace("NAME", "a").replace("TOKEN", old))
    as_old, as_new = ({"Authorization": f"Bearer {one}"} for one in (old, new))
    with Daemon(tmp_path, files=[str(path)], headers=as_old, allow={"configuration not reloaded"}) as daemon:
        path.write_text(text.replace("NAME", "b").replace("TOKEN", "short"))
        refused = daemon.request(daemon.api, "POST", "/-/reload", b"")
        assert refused.code == 400
        assert b"short" not in refused.body.replace(b"too short", b"")
        path.write_text(text.replace("NAME", "b").replace("TOKEN", new))
        assert daemon.request(daemon.api, "POST", "/-/reload", b"").json()["data"]["applied"] == ["auth.credentials"]
        assert daemon.get("/api/stats").code == 401
        assert daemon.get("/api/stats", as_new).code == 200
        path.write_text("")
        ended = daemon.request(daemon.api, "POST", "/-/reload", b"", as_new)
        assert ended.json()["data"] == {"applied": [], "restart": ["auth.credentials"]}
        assert daemon.get("/api/stats").code == 401


def test_a_page_cannot_reload(local: Daemon) -> None:
    headers = {"Origin": "https://attacker.example", "Content-Type": "text/plain"}
    assert local.request(local.api, "POST", "/-/reload", b"", headers).code == 421


# Browsers, at the query API


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("local"), "api.allowed_hosts=[grafana.example]") as daemon:
        yield daemon


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/api/stats", "/readyz", "/api/v1/labels", "/loki/api/v1/labels", "/no"]
)
def test_a_foreign_host_is_misdirected(local: Daemon, path: str) -> None:
    for host in ("attacker.example", "attacker.example:8888", "10.0.0.1:8888", "localhost.attacker.example"):
        answer = local.get(path, {"Host": host})
        assert answer.code == 421
        assert b"api.allowed_hosts can allow it" in answer.body
        assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "host", ["localhost:8888", "LOCALHOST", "[::1]:1", "127.0.0.1", "grafana.example:80", "a.localhost"]
)
def test_local_and_allowed_hosts_are_answered(local: Daemon, host: str) -> None:
    assert local.get("/api/stats", {"Host": host}).code == 200


@pytest.mark.parametrize("origin", ["https://attacker.example", "http://localhost:3000", "null", "http://localhost"])
def test_a_foreign_page_is_refused(local: Daemon, origin: str) -> None:
    answer = local.get("/api/stats", {"Origin": origin, "Host": "localhost:8888"})
    assert answer.code == 421
    assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_of_the_same_origin_and_an_allowed_one_are_answered(local: Daemon) -> None:
    for origin in ("http://localhost:8888", "https://grafana.example", "http://grafana.example:3000"):
        answer = local.get("/api/stats", {"Origin": origin, "Host": "localhost:8888"})
        assert answer.code == 200
        assert not [name for name in answer.headers if name.startswith("access-control-")], "CORS is closed"


def test_the_receiver_is_guarded_too(local: Daemon) -> None:
    headers = {"Content-Type": "application/json", "Host": "attacker.example"}
    assert local.request(local.http, "POST", "/v1/traces", b"{}", headers).code == 421
    assert local.request(local.http, "POST", "/v1/traces", b"{}", {"Content-Type": "text/plain"}).code == 415
