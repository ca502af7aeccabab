"""Answers that last end when who gets them may not have them any more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from collector.api import grpc as service
from collector.api import standing as module
from collector.api import tail as transport
from collector.api.access import AccessControl
from collector.api.server import ApiServer
from collector.api.standing import Standing
from collector.errors import Unauthenticated
from collector.security.credentials import Credential
from collector.security.gate import Authenticator
from collector.security.hosts import HostGuard
from collector.security.rights import READ
from collector.security.tls import Peer, peer_names
from tests.api.test_grpc import asking, failure
from tests.live import Live
from tests.receivers.doubles import MemoryLogger

TOKEN, OTHER = "token-token-token-1", "token-token-token-2"


class Guarded:
    """A daemon's parts whose readers show a token of a file."""

    def __init__(self, live: Live, path: Path) -> None:
        self._file = path / "tokens"
        self._file.write_text(TOKEN)
        credentials = [Credential("readers", READ, token_file=str(self._file))]
        self._authenticator = Authenticator(credentials, MemoryLogger(), CollectorRegistry())
        gate = self._authenticator.gate("api")
        live.api = ApiServer(AccessControl(live.app, gate, HostGuard((), "api.allowed_hosts", is_local=True)))
        live.queries.gate = gate

    def revoke(self) -> None:
        """The file has another token now, and is looked at."""
        self._file.write_text(OTHER)
        self._authenticator.reload()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for one in (module, transport, service):
        monkeypatch.setattr(one, "CHECK_S", 0.02)


@pytest.mark.usefixtures("soon")
async def test_a_live_tail_over_http(tmp_path: Path) -> None:
    async with Live(tmp_path) as live:
        guarded = Guarded(live, tmp_path)
        await live.listen()
        async with live.sse("limit=0", {"Authorization": f"Bearer {TOKEN}"}) as events:
            assert (await events.next()).name == "start"
            await live.send(1)
            assert (await events.next()).data["resourceSpans"]
            guarded.revoke()
            end = await events.next()
            assert (end.name, list(end.data)) == ("end", ["error"])
            with pytest.raises(EOFError):
                await events.next()
        await live.until(lambda: live.metric("ringtail_tails_ended_total", reason="revoked") == 1)
        assert live.metric("ringtail_tails") == 0


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("method", "fields"), [("Tail", {}), ("ReadLog", {"follow": True})])
async def test_a_live_tail_over_grpc(tmp_path: Path, method: str, fields: dict[str, Any]) -> None:
    async with Live(tmp_path) as live:
        guarded = Guarded(live, tmp_path)
        async with asking(live, metadata=(("authorization", f"Bearer {TOKEN}"),)) as client:
            await live.send(1)
            call = getattr(client, method)(**fields)
            assert await call.read()
            guarded.revoke()
            code, _ = await failure(call)
            assert code is grpc.StatusCode.UNAUTHENTICATED
        if method == "Tail":
            await live.until(lambda: live.metric("ringtail_tails_ended_total", reason="revoked") == 1)


class Time:
    """A clock that goes on when it is asked to."""

    def __init__(self) -> None:
        self.s = 1000.0

    def monotonic(self) -> float:
        return self.s

    def now_ns(self) -> int:
        return int(self.s * 1e9)


async def test_a_certificate_that_ends() -> None:
    class Transport:
        def get_extra_info(self, name: str) -> Any:
            assert name == "ssl_object"
            return self

        def getpeercert(self) -> dict[str, Any]:
            return {"subject": ((("commonName", "reader"),),), "notAfter": "Jan  1 00:20:00 1970 GMT"}

    peer = peer_names(Transport())  # type: ignore[arg-type]
    assert (peer, peer.ends_s) == (frozenset({"reader"}), 1200)
    clock: Any = Time()
    asked = 0

    async def again() -> None:
        nonlocal asked
        asked += 1

    standing = Standing(again, peer, clock)
    for _ in range(100):
        clock.s += 1.99
        await standing.require()
    assert asked == 50, "not more often than it has to"
    clock.s = 1202.0
    with pytest.raises(Unauthenticated, match="certificate has expired"):
        await standing.require()
    forever = Standing(None, Peer(), clock)
    clock.s += 10**9
    await forever.require()
