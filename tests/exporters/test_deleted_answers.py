"""Answers after a deletion are those of who never had the records: out of memory, log, and a backend that was not told yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.exporters.base import Wanted
from collector.otlp.signals import LOGS, TRACES
from collector.query.deleting import Deleting, Deletion
from collector.testing.corpus import trace_id
from tests.exporters import memory_backend
from tests.exporters.memory_backend import MemorySettings
from tests.exporters.reaching import QUESTIONS, Held, made, reduced, same, whole

EVERY = 5
GONE = frozenset(trace_id(number) for number in (0, 3, 34, 35, 59, 77))


async def delete(held: Held) -> None:
    one = Deleting(held.stores, held.engine, held.logger, lambda _: {"tested": lambda _, __: None})
    done = await one.run(Deletion(tuple(sorted(GONE))))
    assert done.backends == ["tested"]
    assert all(done.records.values())


async def differing(held: Held) -> list[object]:
    found = []
    async with whole(GONE) as never:
        for question in QUESTIONS[::EVERY]:
            if same(await held.ask(*question)) != same(await never.ask(*question)):
                found.append(question)
    return found


async def test_out_of_memory() -> None:
    async with whole() as held:
        assert await differing(held), "the questions see the records"
        for question in QUESTIONS[:40:EVERY]:  # Something is remembered.
            await held.ask(*question)
        await delete(held)
        assert await differing(held) == []


@pytest.mark.parametrize("logged", [True, False])
async def test_out_of_log_and_backend(tmp_path: Path, logged: bool) -> None:
    settings = MemorySettings(name=f"deleted-{logged}")
    async with made(memory_backend.KIND, settings, tmp_path) as backend, reduced(backend, logged=logged) as held:
        await delete(held)
        for one in held.named[:2]:
            one.deleted = GONE
        assert await differing(held) == []
        for one, signal in zip(held.named[:2], (TRACES, LOGS), strict=True):
            assert await backend.delete(Wanted(signal, trace_ids=tuple(GONE)))
            one.deleted = frozenset()
        assert await differing(held) == []
