"""Queries reach back: answers are the same wherever the data lies, and say so when it could not be read."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from collector.exporters.kinds import Kind
from collector.exporters.settings import ExporterSettings
from tests.exporters import memory_backend
from tests.exporters.memory_backend import MemorySettings
from tests.exporters.reaching import QUESTIONS, made, reduced, same, whole

_names = (f"reached-{number}" for number in itertools.count())


def _backends(directory: Path) -> dict[str, tuple[Kind, ExporterSettings]]:
    return {"memory": (memory_backend.KIND, MemorySettings(name=next(_names)))}


@pytest.mark.parametrize("name", ["memory"])
async def test_answers_are_the_same_wherever_the_data_lies(name: str, tmp_path: Path) -> None:
    """All languages and APIs, over ranges of which none, some and all is held."""
    kind, settings = _backends(tmp_path)[name]
    differences: list[Any] = []
    filled = 0
    async with whole() as everything, made(kind, settings, tmp_path) as backend, reduced(backend) as little:
        for path, query in QUESTIONS:
            expected, found = await everything.ask(path, query), await little.ask(path, query)
            filled += len(expected.body) > 200
            if same(expected) != same(found):
                differences.append((path, query, same(expected), same(found)))
            assert "x-ringtail-partial" not in found.headers, found.headers
    assert [(path, query) for path, query, _, _ in differences] == []
    assert filled > len(QUESTIONS) // 2, "questions have answers"
