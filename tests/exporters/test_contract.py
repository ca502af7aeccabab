"""The contract that is shipped for exporters and backends, on a backend that keeps it, and on some that do not."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from collector.exporters.settings import ExporterSettings
from collector.testing.exporters import BackendContract
from tests.daemon import environment
from tests.exporters.memory_backend import KIND, MemorySettings

_names = (f"kept-{number}" for number in itertools.count())


class TestMemory(BackendContract):
    kind = KIND

    @pytest.fixture
    def settings(self, tmp_path: Path) -> ExporterSettings:
        return MemorySettings(name=next(_names))


BROKEN = """
import pytest, itertools
from collector.exporters.kinds import Kind
from collector.otlp.cut import cut
from collector.testing.exporters import BackendContract
from tests.exporters.memory_backend import MemoryBackend, MemorySettings
from dataclasses import replace

class Broken(MemoryBackend):
{body}

names = (f"broken-{{i}}" for i in itertools.count())

class TestBroken(BackendContract):
    kind = Kind("Broken.", MemorySettings, Broken, reads=True)

    @pytest.fixture
    def settings(self, tmp_path):
        return MemorySettings(name=next(names))
"""
DEFECTS = {
    "test_records_are_counted": """
    async def export(self, batch):
        await super().export(batch)
        del self._kept[batch.source, batch.end_offset - 1]
""",
    "test_large_answers_come_in_pieces": """
    async def read(self, wanted):
        pieces = [one async for one in super().read(replace(wanted, newest_first=not wanted.newest_first))]
        for one in pieces:
            yield one
""",
    "test_everything_comes_back": """
    async def read(self, wanted):
        async for one in super().read(wanted):
            yield one if one.count == 1 else cut(one, 1, one.count)
""",
    "test_attributes_are_found": """
    async def read(self, wanted):
        async for one in super().read(wanted):
            if not any(equal.where == "either" for equal in wanted.attributes):
                yield one
""",
    "test_what_lies_deeper_is_found": """
    async def read(self, wanted):
        async for one in super().read(wanted):
            if not wanted.texts or any(text in one.payload for text in (b"me key",)) and wanted.texts[0] != (b"me text",):
                yield one
""",
    "test_what_is_held_is_left_out": """
    def _of(self, wanted):
        return super()._of(replace(wanted, held=()))
""",
    "test_tenants_are_kept_apart": """
    async def export(self, batch):
        return await super().export(replace(batch, source=batch.source._replace(tenant="")))
""",
    "test_positions_are_never_ahead": """
    async def position(self, source):
        return (await super().position(source) or 0) + 1
""",
}
"""What is wrong with a backend, by the test that sees it."""


def test_defects_are_caught(tmp_path: Path) -> None:
    """The canary."""
    nodes = []
    for number, (test, body) in enumerate(DEFECTS.items()):
        file = tmp_path / f"test_broken_{number}.py"
        file.write_text(BROKEN.format(body=body))
        nodes.append(f"{file.name}::TestBroken::{test}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", *nodes]
    run = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    failed = {line.split()[1].partition("[")[0] for line in run.stdout.splitlines() if line.startswith("FAILED")}
    assert failed == set(nodes), run.stdout[-3000:]
