"""Tenants in a real daemon: each reads what it wrote, over restarts, and nobody else's; none takes all the room."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES
from collector.testing import otlp
from tests.daemon import Answer, Daemon

TENANTS = ("tenants.enabled=true", "tenants.max=3", "memory.limit=2GiB")
CANARY = {"red": "crimson-canary", "blue": "azure-canary", "green": "emerald-canary"}
"""The service of each tenant: where it shows up, data has leaked."""
TIME_S = otlp.TIME_NS // 10**9


def scope(name: str) -> dict[str, str]:
    return {"X-Scope-OrgID": name}


def write(daemon: Daemon, name: str, patience_s: float = 10.0) -> None:
    """Send one request of each signal, as an SDK does: again when told to."""
    end = time.monotonic() + patience_s
    for signal in SIGNALS:
        body = otlp.BUILDERS[signal](10, seed=len(name), service=CANARY.get(name, name))
        while True:
            answer = daemon.export(signal.http_path, body, scope(name))
            if answer.code == 200:
                break
            assert answer.code == 503, answer
            assert answer.headers["retry-after"]
            assert time.monotonic() < end
            time.sleep(0.05)


QUERIES = (
    "/api/search?limit=100&q=%7B%7D&start={start}&end={end}",
    "/api/v2/search/tag/resource.service.name/values?start={start}&end={end}",
    "/loki/api/v1/query_range?limit=100&query=%7Bservice_name%3D~%22.%2B%22%7D&start={start}&end={end}",
    "/loki/api/v1/label/service_name/values?start={start}&end={end}",
    "/api/v1/series?match[]=%7B__name__%3D~%22.%2B%22%7D&start={start}&end={end}",
    "/api/v1/label/job/values?start={start}&end={end}",
    "/metrics/received",
    "/metrics/spans",
    "/api/v1/label/service/values?start={start}",
    "/jaeger/api/services",
    "/jaeger/api/v3/services",
    "/jaeger/api/dependencies?endTs={end}000&lookback=1200000",
)


def answers(daemon: Daemon, name: str) -> str:
    """Everything that the query APIs tell a tenant."""
    told = ""
    for query in QUERIES:
        answer = daemon.get(query.format(start=TIME_S - 600, end=TIME_S + 600), scope(name))
        assert answer.code == 200, (query, answer)
        told += answer.body.decode()
    return told


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path, *TENANTS) as running:
        yield running


def test_each_reads_what_it_wrote_and_nothing_else(tmp_path: Path) -> None:
    with Daemon(tmp_path, *TENANTS) as daemon:
        for name in CANARY:
            write(daemon, name)
        for name, canary in CANARY.items():
            told = answers(daemon, name)
            assert told.count(canary) > 3
            assert not [other for other in CANARY.values() if other != canary and other in told]
            held = daemon.get("/api/stats", scope(name)).json()["signals"]
            assert [held[one.name]["records"] for one in SIGNALS] == [10, 10, 10]
        assert not [one for one in CANARY.values() if one in answers(daemon, "nobody")]
        daemon.kill()
    with Daemon(tmp_path, *TENANTS) as daemon:
        for name, canary in CANARY.items():
            told = answers(daemon, name)
            assert told.count(canary) > 3
            assert not [other for other in CANARY.values() if other != canary and other in told]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../red", "a/b", "a\\b", "a|b", "a" * 65, ".hidden", "%2e%2e", "a b", "é"]
)
def test_a_name_that_is_none_is_refused_everywhere(daemon: Daemon, tmp_path: Path, name: str) -> None:
    headers = {"X-Scope-OrgID": name.encode().decode("latin-1")} if name else {}
    code = 400 if name else 401
    assert daemon.export("/v1/traces", otlp.traces(1), headers).code == code
    assert daemon.get("/api/search", headers).code == code
    with grpc.insecure_channel(daemon.grpc) as channel:
        call = channel.unary_unary(f"/{TRACES.service}/Export")
        metadata = [("x-scope-orgid", name)] if name.isascii() and name else []
        if metadata or not name:
            with pytest.raises(grpc.RpcError) as caught:
                call(otlp.traces(1), metadata=metadata)
            wanted = grpc.StatusCode.INVALID_ARGUMENT if name else grpc.StatusCode.UNAUTHENTICATED
            assert caught.value.code() is wanted  # type: ignore[attr-defined]
    data = tmp_path / "data"
    assert sorted(one.name for one in data.iterdir()) == ["LOCK", "RESERVE"]


def test_by_grpc_too(daemon: Daemon) -> None:
    with grpc.insecure_channel(daemon.grpc) as channel:
        call = channel.unary_unary(f"/{LOGS.service}/Export")
        end = time.monotonic() + 10
        while True:
            try:
                assert call(otlp.logs(5, service="by-grpc"), metadata=[("x-scope-orgid", "red")]) == b""
                break
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
                assert time.monotonic() < end
                time.sleep(0.05)
    assert "by-grpc" in answers(daemon, "red")


def test_there_are_no_more_than_allowed(daemon: Daemon) -> None:
    for name in CANARY:
        write(daemon, name)
    answer = daemon.export("/v1/traces", otlp.traces(1), scope("fourth"))
    assert answer.code == 503
    assert b"tenants.max" in answer.body
    write(daemon, "red")
    exposition = daemon.get("/metrics").body.decode()
    assert 'ringtail_ring_records{signal="traces",tenant="red"} 20.0' in exposition
    assert "fourth" not in exposition


def test_more_directories_than_allowed_is_a_mistake(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        (tmp_path / "data" / "tenants" / name).mkdir(parents=True)
    with Daemon(tmp_path, *TENANTS, wait=False) as daemon:
        assert daemon.wait() == 2
        assert "tenants.max" in json.dumps(daemon.events)


def test_one_that_floods_does_not_keep_another_out(tmp_path: Path) -> None:
    """Twenty connections of one tenant, against one of another that sends little, into a small budget."""
    limits = ["receivers.otlp.max_in_flight_bytes=4MiB", "stores.metrics.max_bytes=64MiB"]
    with Daemon(tmp_path, *TENANTS, *limits) as daemon:
        write(daemon, "red")
        write(daemon, "blue")
        ending = threading.Event()
        codes: list[int] = []

        def flood() -> None:
            body = otlp.metrics(4000)
            while not ending.is_set():
                codes.append(daemon.export(METRICS.http_path, body, scope("red")).code)

        floods = [threading.Thread(target=flood) for _ in range(20)]
        for thread in floods:
            thread.start()
        body = otlp.metrics(50)
        kept = [daemon.export(METRICS.http_path, body, scope("blue")) for _ in range(100)]
        ending.set()
        for thread in floods:
            thread.join()
        refused = [answer for answer in kept if answer.code != 200]
        assert codes.count(503) > 0, "it was no flood"
        assert len(refused) <= 10, refused[0]
        stats = daemon.get("/api/stats", scope("blue")).json()["signals"]["metrics"]
        assert stats["records"] == 10 + 50 * (len(kept) - len(refused)), "a flood evicts its own records only"


def test_whose_credential_is_for_one_tenant_reaches_no_other(tmp_path: Path) -> None:
    """The name in the header proves nothing: a token is for its tenants, over every route and RPC."""
    tokens = {name: f"token-of-{name}-0123456789" for name in ("red", "blue", "admin")}
    credentials = [
        {"name": name, "rights": ["read", "write"], "tenants": [name], "tokens": [tokens[name]]}
        for name in ("red", "blue")
    ]
    credentials.append({"name": "admin", "rights": ["read", "write", "administer"], "tokens": [tokens["admin"]]})
    settings = [*TENANTS, f"auth={{credentials: {json.dumps(credentials)}}}"]
    with Daemon(tmp_path, *settings, headers={"Authorization": f"Bearer {tokens['admin']}"}) as daemon:
        for name in ("red", "blue"):
            write(daemon, name)

        def asked(path: str, token: str, name: str) -> Answer:
            return daemon.get(path, {**scope(name), "Authorization": f"Bearer {tokens[token]}"})

        for query in QUERIES:
            path = query.format(start=TIME_S - 600, end=TIME_S + 600)
            own, foreign = asked(path, "red", "red"), asked(path, "red", "blue")
            assert own.code == 200
            assert foreign.code == 403, path
            assert CANARY["blue"].encode() not in own.body + foreign.body
        for path in ("/metrics", "/api/stats"):
            assert daemon.get(path, {"Authorization": f"Bearer {tokens['red']}"}).code == 403
            assert daemon.get(path).code == 200
        for signal in SIGNALS:
            body = otlp.BUILDERS[signal](1)
            foreign = daemon.export(
                signal.http_path, body, {**scope("blue"), "Authorization": f"Bearer {tokens['red']}"}
            )
            assert foreign.code == 403
            with grpc.insecure_channel(daemon.grpc) as channel:
                metadata = [("authorization", f"Bearer {tokens['red']}"), ("x-scope-orgid", "blue")]
                with pytest.raises(grpc.RpcError) as caught:
                    channel.unary_unary(f"/{signal.service}/Export")(body, metadata=metadata)
                assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED  # type: ignore[attr-defined]
        held = asked("/api/stats", "blue", "blue").json()["signals"]
        assert [held[one.name]["records"] for one in SIGNALS] == [10, 10, 10]


def test_tenants_of_a_credential_want_tenants(tmp_path: Path) -> None:
    setting = "auth={credentials: [{name: a, rights: read, tenants: b, tokens: 0123456789abcdef}]}"
    with Daemon(tmp_path, setting, wait=False) as daemon:
        assert daemon.wait() == 2
        assert "tenants.enabled" in "".join(daemon.lines)


def test_without_tenants_the_header_means_nothing(tmp_path: Path) -> None:
    with Daemon(tmp_path) as daemon:
        answer: Answer = daemon.export("/v1/traces", otlp.traces(3), scope("../anything"))
        assert answer.code == 200
        assert daemon.stats()["traces"]["records"] == 3
