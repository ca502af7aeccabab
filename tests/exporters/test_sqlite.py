"""The backend `sqlite`: the contract, and what is SQLite's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.exporters.settings import ExporterSettings
from collector.exporters.sqlite.kind import KIND
from collector.exporters.sqlite.settings import SqliteSettings
from collector.testing.exporters import BackendContract


class TestSqlite(BackendContract):
    kind = KIND

    @pytest.fixture
    def settings(self, tmp_path: Path) -> ExporterSettings:
        return SqliteSettings(path=str(tmp_path / "tested.sqlite"))
