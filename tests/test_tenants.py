"""The registry of tenants: which names it takes, how many, and what happens when one cannot be opened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from collector.errors import Malformed, Overloaded, Unauthenticated, Unavailable
from collector.tenants import NAME_MAX, REST_S, Tenants, require_name
from tests.receivers.doubles import FakeClock, MemoryLogger


class FakeTenant:
    """A tenant that opens when it is let, or fails."""

    rings: list[Any] = []  # noqa: RUF012
    logs: list[Any] = []  # noqa: RUF012

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.closed = self.refilled = False

    async def open(self) -> None:
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error

    async def refill(self, stopping: Callable[[], bool]) -> None:
        self.refilled = True

    async def drain(self) -> None:
        """Nothing to wait for."""

    def close(self) -> None:
        self.closed = True

    def not_ready(self) -> list[str]:
        return ["its log has failed"]


class Made:
    """A registry, and what it has made."""

    def __init__(self, count_max: int = 2, error: Exception | None = None) -> None:
        self.made: dict[str, FakeTenant] = {}
        self.clock = FakeClock()
        self.error = error
        self.changes = 0
        self.too_many = False
        self.tenants = Tenants(count_max, self.make, self.changed, self.clock, MemoryLogger())

    def make(self, name: str) -> Any:
        self.made[name] = FakeTenant(self.error)
        return self.made[name]

    def changed(self) -> None:
        self.changes += 1
        if self.too_many:
            raise Overloaded("no room")


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize("name", ["a", "Team_1", "a.b-c", "0", "x" * NAME_MAX])
def test_names(name: str) -> None:
    require_name(name)


@pytest.mark.parametrize(
    "name", [".", "..", ".a", "a/b", "a\0", "a\n", "a b", "ä", "x" * (NAME_MAX + 1), "a,b", "a|b", "*"]
)
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(Malformed, match="no tenant's name"):
        require_name(name)


async def test_a_tenant_is_opened_when_it_is_written_to() -> None:
    made = Made()
    assert made.tenants.find("a") is None
    assert made.made == {}, "reading makes nothing"
    with pytest.raises(Unauthenticated):
        made.tenants.written("")
    for _ in range(2):
        with pytest.raises(Unavailable, match="being opened") as caught:
            made.tenants.written("a")
        assert caught.value.retry_after_s > 0
    await turns()
    assert made.tenants.written("a") is made.made["a"]  # type: ignore[comparison-overlap]
    assert made.made["a"].refilled
    assert made.changes == 1
    assert made.tenants.not_ready() == ["tenant a: its log has failed"]


async def test_only_so_many() -> None:
    made = Made(count_max=2)
    for name in ("a", "b"):
        with pytest.raises(Unavailable):
            made.tenants.written(name)
    for _ in range(2):
        with pytest.raises(Overloaded, match=r"tenants\.max"):
            made.tenants.written("c")
        await turns()
    assert set(made.tenants.by_name) == {"a", "b"}


@pytest.mark.parametrize("where", ["open", "memory"])
async def test_one_that_cannot_be_opened_is_closed_and_not_tried_at_once(where: str) -> None:
    made = Made(error=Unavailable("the disk is full") if where == "open" else None)
    made.too_many = where == "memory"
    with pytest.raises(Unavailable, match="being opened"):
        made.tenants.written("a")
    await turns()
    first = made.made["a"]
    assert first.closed
    assert made.tenants.find("a") is None
    with pytest.raises(Unavailable, match="could not be opened") as caught:
        made.tenants.written("a")
    assert 0 < caught.value.retry_after_s <= REST_S
    made.clock.seconds += REST_S
    made.error, made.too_many = None, False
    with pytest.raises(Unavailable, match="being opened"):
        made.tenants.written("a")
    await turns()
    assert made.tenants.written("a") is made.made["a"]  # type: ignore[comparison-overlap]


async def test_the_end() -> None:
    made = Made()
    with pytest.raises(Unavailable):
        made.tenants.written("a")
    await made.tenants.drain()
    assert "a" in made.tenants.by_name, "what had begun to open is waited for"
    with pytest.raises(Unavailable, match="shutting down"):
        made.tenants.written("b")
    made.tenants.close()
    assert made.made["a"].closed


async def test_without_tenants_there_is_one() -> None:
    made = Made(count_max=0)
    await made.tenants.open([""])
    for name in ("", "a", "../b"):
        assert made.tenants.written(name) is made.made[""]  # type: ignore[comparison-overlap]
