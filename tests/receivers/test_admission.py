"""The in-flight budget."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from prometheus_client import CollectorRegistry

from collector.errors import Overloaded, Unavailable
from collector.receivers.admission import Admission


def test_what_does_not_fit_is_told_to_come_again() -> None:
    admission = Admission(100)
    admission.admit(60)
    with pytest.raises(
        Overloaded, match=r"60 bytes .* 41 more .* 100 \(receivers.otlp.max_in_flight_bytes\)"
    ) as caught:
        admission.admit(41)
    assert 0 < caught.value.retry_after_s < 9, "Python's exporter gives up on delays above nine seconds"
    admission.admit(40)
    with pytest.raises(Overloaded):
        admission.grow(1)
    admission.release(60)
    admission.admit(60)


def test_alone_any_size_fits() -> None:
    admission = Admission(100)
    admission.admit(500)
    admission.grow(500)
    with pytest.raises(Overloaded):
        admission.admit(0)
    admission.release(1000)
    admission.admit(100)


def test_the_gauge() -> None:
    registry = CollectorRegistry()
    admission = Admission(100, registry)
    admission.admit(7)
    assert registry.get_sample_value("ringtail_receiver_in_flight_bytes") == 7


async def test_draining() -> None:
    admission = Admission(100)
    admission.admit(1)
    admission.admit(0)
    drained = asyncio.ensure_future(admission.drain())
    await asyncio.sleep(0)
    assert admission.draining
    with pytest.raises(Unavailable, match="shutting down"):
        admission.admit(1)
    admission.grow(5)
    admission.release(6)
    await asyncio.sleep(0)
    assert not drained.done(), "a request of no bytes is a request"
    admission.release(0)
    await drained
    await Admission(1).drain()


class AdmissionMachine(RuleBasedStateMachine):
    """Any order of admitting, growing and releasing, against a list of what is held."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(100)
        self.held: list[int] = []

    @rule(size=st.integers(0, 130))
    def admit(self, size: int) -> None:
        fits = not self.held or sum(self.held) + size <= 100
        try:
            self.admission.admit(size)
        except Overloaded:
            assert not fits
        else:
            assert fits
            self.held.append(size)

    @rule(size=st.integers(0, 60), at=st.integers(0, 9))
    def grow(self, size: int, at: int) -> None:
        if not self.held:
            return
        fits = len(self.held) == 1 or sum(self.held) + size <= 100
        try:
            self.admission.grow(size)
        except Overloaded:
            assert not fits
        else:
            assert fits
            self.held[at % len(self.held)] += size

    @rule(at=st.integers(0, 9))
    def release(self, at: int) -> None:
        if self.held:
            self.admission.release(self.held.pop(at % len(self.held)))

    @invariant()
    def figures_agree(self) -> None:
        assert self.admission.in_flight_bytes == sum(self.held)
        assert self.admission.in_flight_requests == len(self.held)


TestAdmission = AdmissionMachine.TestCase
