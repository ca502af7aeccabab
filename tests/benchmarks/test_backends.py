"""The benchmark of backends runs in its shortest form, and what it compares is the same."""

from __future__ import annotations

import asyncio
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from collector.otlp.signals import LOGS, SIGNALS
from tests.benchmarks.backend_sqlite import Sqlite
from tests.benchmarks.backends import Extent, batches_of, measure, report

TINY = Extent(1024, 32, 1, 1024, 2)


def test_it_measures_and_judges(tmp_path: Path) -> None:
    found = asyncio.run(measure(["sqlite"], TINY, tmp_path, ("write", "ask")))
    text, judged = report(*found, TINY, tmp_path)
    assert len(judged) == 2 * len(SIGNALS)
    assert "| sqlite: log records, one a request |" in text
    assert "| sqlite: a trace |" in text
    assert all(one.stored is not None and one.stored > one.payload for one in found[0] if one.request > 1)
    assert list(tmp_path.iterdir()) == [], "nothing is left on the disk"


def rows(path: Path) -> list[tuple[object, ...]]:
    (file,) = path.glob("*.sqlite")
    with closing(sqlite3.connect(file)) as connection:
        return connection.execute("SELECT * FROM otlp_logs ORDER BY id").fetchall()


async def test_the_floor_stores_what_the_backend_stores(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        subject = Sqlite(tmp_path, threads)
        batches = batches_of(LOGS, 64, 8)
        recorded = await subject.recorded(batches)
        backend = await subject.fresh()
        for batch in batches:
            await backend.export(batch)
        await backend.stop()
        ours = rows(tmp_path)
        replay = await subject.floor(recorded)
        assert rows(tmp_path) == []
        await replay()
        assert rows(tmp_path) == ours
        assert len(ours) == 64
