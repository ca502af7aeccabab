"""The contract of backends, on the real engine."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from collector.exporters.clickhouse.kind import KIND
from collector.exporters.clickhouse.settings import ClickHouseSettings
from collector.testing.exporters import BackendContract
from tests.exporters.clickhouse.server import Server, database, serving

pytest.importorskip("chdb")


class TestClickHouse(BackendContract):
    kind = KIND

    @pytest.fixture
    async def settings(self) -> AsyncIterator[ClickHouseSettings]:
        async with serving(Server().answer) as url:
            yield ClickHouseSettings(endpoint=(url,), database=database())
