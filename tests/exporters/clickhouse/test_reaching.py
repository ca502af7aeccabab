"""The questions of tests/exporters/test_reaching.py, asked of ClickHouse."""

from __future__ import annotations

from pathlib import Path

from collector.exporters.clickhouse.kind import KIND
from collector.exporters.clickhouse.settings import ClickHouseSettings
from tests.exporters.clickhouse.server import Server, database, need_engine, serving
from tests.exporters.reaching import made, reduced
from tests.exporters.test_reaching import differing


async def test_answers_are_the_same_wherever_the_data_lies(tmp_path: Path) -> None:
    """Every seventh question; all of them were asked once, and take twenty seconds."""
    need_engine()
    async with serving(Server().answer) as url:
        settings = ClickHouseSettings(endpoint=(url,), database=database())
        async with made(KIND, settings, tmp_path) as backend, reduced(backend) as little:
            assert await differing(little, every=7) == []
