"""The in-flight budget."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client import CollectorRegistry

from collector.errors import Overloaded, Unavailable
from collector.receivers.admission import FREE_TIMES, RESERVED_PART, SMALL_PART, Admission


def test_what_does_not_fit_is_told_to_come_again() -> None:
    admission = Admission(100)
    one, other = admission.share(), admission.share()
    one.admit(60)
    with pytest.raises(
        Overloaded, match=r"60 bytes .*, 0 of them .* 11 more .* 100 \(receivers.otlp.max_in_flight_bytes\)"
    ) as caught:
        other.admit(11)
    assert 0 < caught.value.retry_after_s < 9, "Python's exporter gives up on delays above nine seconds"
    other.admit(10)
    with pytest.raises(Overloaded, match="60 of them from this connection"):
        one.grow(1)
    one.release(60)
    other.admit(30)


def test_alone_any_size_fits() -> None:
    admission = Admission(100)
    one, other = admission.share(), admission.share()
    one.admit(500)
    one.grow(500)
    with pytest.raises(Overloaded):
        other.admit(0)
    one.release(1000)
    other.admit(100)


@given(st.integers(1, 30), st.integers(1, 50))
def test_connections_that_want_everything_get_the_same_and_leave_room(count: int, size: int) -> None:
    admission = Admission(10_000)
    shares = [admission.share() for _ in range(count)]
    wanting = set(range(count))
    while wanting:
        for number in sorted(wanting):
            try:
                shares[number].admit(size)
            except Overloaded:
                wanting.discard(number)
    fair = FREE_TIMES * 10_000 * (1 - 1 / RESERVED_PART) / (FREE_TIMES * count + 1)
    assert all(fair - (FREE_TIMES * count + 1) * size <= share.held <= fair + size for share in shares)
    late = admission.share()
    late.admit(min(size, (10_000 - admission.in_flight_bytes) // 2))


def test_a_flood_does_not_keep_others_out() -> None:
    admission = Admission(10_000)
    flood, other = admission.share(), admission.share()
    with pytest.raises(Overloaded):
        for _ in range(1000):
            flood.admit(100)
    for _ in range(12):
        other.admit(100)
        with pytest.raises(Overloaded):
            flood.admit(100)
    assert other.held == 1200


def test_a_flood_of_large_requests_leaves_room_for_small_ones() -> None:
    admission = Admission(10_000)
    refused = 0
    for _ in range(1000):
        try:
            admission.share().admit(200)
        except Overloaded:
            refused += 1
    assert refused > 900
    assert admission.bytes_max - admission.in_flight_bytes >= admission.bytes_max // RESERVED_PART
    for size in (150, 100, 50, 10, 1):
        admission.share().admit(size)
        for _ in range(1000):
            with contextlib.suppress(Overloaded):
                admission.share().admit(size)
    assert admission.in_flight_bytes <= admission.bytes_max


def test_a_tenant_of_many_connections_does_not_keep_another_out() -> None:
    admission = Admission(10_000)
    flooding, other = admission.share(), admission.share()
    for _ in range(500):
        try:
            admission.share().admit(100, flooding)
        except Overloaded as error:
            assert "from this tenant" in str(error)
    assert flooding.held <= FREE_TIMES * (10_000 - admission.in_flight_bytes)
    share = admission.share()
    for _ in range(12):
        share.admit(100, other)
    assert other.held == 1200
    share.release(100, other)
    share.grow(50, other)
    assert (other.held, share.held) == (1150, 1150)


def test_the_gauge() -> None:
    registry = CollectorRegistry()
    admission = Admission(100, registry)
    admission.share().admit(7)
    assert registry.get_sample_value("ringtail_receiver_in_flight_bytes") == 7


async def test_draining() -> None:
    admission = Admission(100)
    share = admission.share()
    share.admit(1)
    share.admit(0)
    drained = asyncio.ensure_future(admission.drain())
    await asyncio.sleep(0)
    assert admission.draining
    with pytest.raises(Unavailable, match="shutting down"):
        share.admit(1)
    share.grow(5)
    share.release(6)
    await asyncio.sleep(0)
    assert not drained.done(), "a request of no bytes is a request"
    share.release(0)
    await drained
    await Admission(1).drain()


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of admitting, growing and releasing by three connections, against lists of what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(640)
        self.shares = [self.admission.share() for _ in range(3)]
        self.held: list[list[int]] = [[], [], []]

    def total(self) -> int:
        return sum(map(sum, self.held))

    def requests(self) -> int:
        return sum(map(len, self.held))

    def fits(self, who: int, size: int) -> bool:
        free = 640 - self.total() - size
        held = sum(self.held[who]) + size
        return held <= max(FREE_TIMES * (free - 160), free // SMALL_PART)

    @rule(who=st.integers(0, 2), size=st.one_of(st.integers(0, 20), st.integers(0, 700)))
    def admit(self, who: int, size: int) -> None:
        fits = not self.requests() or self.fits(who, size)
        try:
            self.shares[who].admit(size)
        except Overloaded:
            assert not fits
        else:
            assert fits
            self.held[who].append(size)

    @rule(who=st.integers(0, 2), size=st.one_of(st.integers(0, 20), st.integers(0, 400)), at=st.integers(0, 9))
    def grow(self, who: int, size: int, at: int) -> None:
        held = self.held[who]
        if not held:
            return
        fits = self.requests() == 1 or self.fits(who, size)
        try:
            self.shares[who].grow(size)
        except Overloaded:
            assert not fits
        else:
            assert fits
            held[at % len(held)] += size

    @rule(who=st.integers(0, 2), at=st.integers(0, 9))
    def release(self, who: int, at: int) -> None:
        held = self.held[who]
        if held:
            self.shares[who].release(held.pop(at % len(held)))

    @invariant()
    def figures_agree(self) -> None:
        assert self.admission.in_flight_bytes == self.total()
        assert self.admission.in_flight_requests == self.requests()
        assert [share.held for share in self.shares] == [sum(held) for held in self.held]


TestAdmission = AdmissionMachine.TestCase
