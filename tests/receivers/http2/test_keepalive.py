"""How long a connection lives, on a clock that moves when it is told to."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from collector.config import Config
from collector.listeners import keepalive as rules
from collector.receivers.http2.frames import Code
from collector.receivers.http2.keepalive import AGE_JITTER, STRIKES_MAX, Keepalive, Life
from collector.settings import load
from collector.testing import otlp
from tests.receivers.doubles import Receiving
from tests.receivers.http2.peer import ACK, PING, Peer, frame

SPANS = otlp.traces(3)
MakePeer = Callable[..., Peer]


@pytest.fixture
def peer_of(receiving: Receiving) -> MakePeer:
    def make(**rules: float) -> Peer:
        receiving.grpc.keepalive = Keepalive(**rules)  # type: ignore[arg-type]
        return Peer(receiving)

    return make


def pass_time(peer: Peer, seconds: float) -> None:
    peer.receiving.clock.seconds += seconds
    if peer.connection.deadline <= peer.receiving.clock.seconds:
        peer.connection.expire()
    peer.read()


def test_an_idle_connection_is_closed(peer_of: MakePeer) -> None:
    peer = peer_of(idle_s=60.0)
    peer.send(peer.export(1, SPANS))
    pass_time(peer, 61)
    assert not peer.transport.closed, "there was a call"
    pass_time(peer, 61)
    assert peer.goaway == Code.NO_ERROR
    assert peer.transport.closed


def test_a_call_under_way_is_not_idle(peer_of: MakePeer) -> None:
    peer = peer_of(idle_s=60.0)
    store = peer.receiving.stores["traces"]
    store.holds = True
    peer.send(peer.export(1, SPANS))
    for _ in range(5):
        pass_time(peer, 61)
    assert peer.goaway is None
    store.settle()
    peer.turn()
    assert peer.streams[1].grpc_status == 0


def test_an_old_connection_answers_what_it_has_and_closes(peer_of: MakePeer) -> None:
    peer = peer_of(age_s=100.0)
    store = peer.receiving.stores["traces"]
    store.holds = True
    peer.send(peer.export(1, SPANS))
    pass_time(peer, 100 * (1 - AGE_JITTER) - 1)
    assert peer.goaway is None
    pass_time(peer, 100 * 2 * AGE_JITTER + 2)
    assert peer.goaway == Code.NO_ERROR
    assert not peer.transport.closed
    for _ in range(7):
        pass_time(peer, 1000)
    assert not peer.transport.closed, "calls may take as long as they want"
    store.settle()
    peer.turn()
    assert peer.streams[1].grpc_status == 0
    assert peer.transport.closed
    assert not peer.transport.aborted


def test_an_old_connection_is_cut_when_its_grace_is_over(peer_of: MakePeer) -> None:
    peer = peer_of(age_s=100.0, age_grace_s=10.0)
    peer.receiving.stores["traces"].holds = True
    peer.send(peer.export(1, SPANS))
    pass_time(peer, 111)
    assert peer.goaway == Code.NO_ERROR
    pass_time(peer, 9)
    assert not peer.transport.aborted
    pass_time(peer, 2)
    assert peer.transport.aborted


def test_other_deadlines_hold_beside_a_life_that_is_looked_at(peer_of: MakePeer) -> None:
    peer = peer_of(idle_s=1.0)
    peer.send(peer.headers(1))
    for _ in range(8):
        pass_time(peer, 1.1)
        assert not peer.streams, "the message has its time"
    pass_time(peer, 1.5)
    assert peer.streams[1].grpc_status == 4


def test_ages_differ(peer_of: MakePeer) -> None:
    rules = Keepalive(age_s=100.0)
    ages = {Life(rules, 0.0, Random(seed)).ends_at for seed in range(50)}
    assert len(ages) == 50
    assert 90 <= min(ages) < 95 < 105 < max(ages) <= 110
    assert Life(Keepalive(), 0.0, Random(1)).next_look == float("inf")


def ping(peer: Peer, count: int = 1) -> None:
    for _ in range(count):
        peer.send(frame(PING, 0, 0, b"12345678"))


def test_too_many_pings(peer_of: MakePeer) -> None:
    peer = peer_of(ping_interval_s=10.0)
    ping(peer, STRIKES_MAX + 1)
    assert peer.goaway is None
    assert [one for one in peer.frames if one[0] == PING] == [(PING, ACK, 0, b"12345678")] * (STRIKES_MAX + 1)
    ping(peer)
    assert peer.goaway == Code.ENHANCE_YOUR_CALM


def test_pings_in_their_time_and_between_answers_are_well(peer_of: MakePeer) -> None:
    peer = peer_of(ping_interval_s=10.0)
    for _ in range(20):
        pass_time(peer, 10)
        ping(peer)
    for i in range(20):
        ping(peer, STRIKES_MAX)
        peer.send(peer.export(2 * i + 1, SPANS))
    assert peer.goaway is None


def test_pings_without_a_call(peer_of: MakePeer) -> None:
    peer = peer_of(ping_interval_s=10.0, idle_pings=False)
    for _ in range(STRIKES_MAX + 1):
        pass_time(peer, 1000)
        ping(peer)
    assert peer.goaway == Code.ENHANCE_YOUR_CALM
    peer = peer_of(ping_interval_s=0.0)
    ping(peer, 100)
    assert peer.goaway is None


def test_settings_become_rules() -> None:
    key = "receivers.otlp.protocols.grpc.keepalive"
    settings = load([], [f"{key}.server_parameters.max_connection_age=1h", f"{key}.enforcement_policy.min_time=0"], {})
    for config, expected in (
        (Config(), Keepalive(ping_interval_s=10.0)),
        (settings, Keepalive(age_s=3600.0, ping_interval_s=0.0)),
    ):
        assert config.receivers.otlp.protocols.grpc is not None
        assert rules(config.receivers.otlp.protocols.grpc.keepalive) == expected
