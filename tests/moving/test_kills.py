"""kill -9 at any moment: what is moved arrives whole, and once wherever the destination can tell."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import Batch, Context, Source
from collector.exporters.sqlite.kind import KIND
from collector.exporters.sqlite.settings import SqliteSettings
from collector.moving.migrate import HOUR_NS
from collector.moving.source import Range, from_directory
from collector.otlp.records import record_bytes
from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.testing import otlp
from collector.wal.files import OperatingSystemFiles
from tests.moving.killed import until_done
from tests.wal.logs import open_log

FILES = OperatingSystemFiles()
FRAMES, EACH = 40, 20
BEGIN = 1_700_000_000 * 10**9 // HOUR_NS * HOUR_NS


def records(payload: bytes) -> Iterator[bytes]:
    block = scan(TRACES, payload, 0)
    return (record_bytes(block, row) for row in range(block.count))


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, list[bytes]]:
    """A data directory, and its records."""
    log = open_log(FILES, directory=str(tmp_path / "data"), segment_bytes=200_000)
    for seed in range(FRAMES):
        payload = otlp.traces(EACH, seed=seed, time_ns=BEGIN + seed * HOUR_NS // 4)
        log.append([payload], EACH, BEGIN, BEGIN)
    log.close()
    pieces = from_directory(str(tmp_path / "data"), TRACES, Range(), FILES)
    return tmp_path / "data", [one for piece in pieces for one in records(piece.payload)]


class Stub(BaseHTTPRequestHandler):
    """Receives OTLP/HTTP."""

    taken: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.taken.append(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stub() -> Iterator[tuple[str, list[bytes]]]:
    handler = type("Handler", (Stub,), {"taken": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.taken  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


def test_export_and_import(tmp_path: Path, data: tuple[Path, list[bytes]], stub: tuple[str, list[bytes]]) -> None:
    """A file is exact; over OTLP no more comes twice than was under way at a kill."""
    directory, owed = data
    file = tmp_path / "traces.binpb.zst"
    patches = {"collector.moving.out:CHUNK_BYTES": 4000}
    kills = until_done(["export", str(file), "--directory", str(directory)], patches, tmp_path / "output", 1)
    assert kills > 2
    assert not Path(f"{file}.state").exists()
    url, taken = stub
    patches = {"collector.moving.importing:BATCH_BYTES": 20_000, "collector.moving.importing:STATE_EVERY": 1}
    kills = until_done(["import", str(file), "--target", url], patches, tmp_path / "output", 2)
    assert kills > 2
    found = Counter(one for payload in taken for one in records(payload))
    assert found.keys() == set(owed)
    batches = Counter(taken)
    assert sum(batches.values()) - len(batches) <= kills, "one batch is under way at a time"


def rows(path: Path) -> tuple[int, int]:
    """Rows of a database, and distinct records in them."""
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*), count(DISTINCT hex(record)) FROM otlp_spans").fetchone()  # type: ignore[no-any-return]


def test_replay_to_a_backend(tmp_path: Path, data: tuple[Path, list[bytes]]) -> None:
    directory, owed = data
    path = tmp_path / "to.sqlite"
    arguments = ["replay", "--directory", str(directory), "--signal", "traces", "--speed", "max", "--shift", "1h"]
    arguments += ["--to-exporter", "sqlite", "--set", f"exporters.sqlite.path={path}"]
    arguments += ["--state", str(tmp_path / "state")]
    kills = until_done(arguments, {"collector.cli.moving:STATE_EVERY_S": 0.0}, tmp_path / "output", 3)
    assert kills > 2
    assert rows(path) == (len(owed), len(set(owed)))


def test_migrate(tmp_path: Path, data: tuple[Path, list[bytes]]) -> None:
    """Its own comparison says that both hold the same, and the rows do."""
    directory, owed = data
    paths = tmp_path / "from.sqlite", tmp_path / "to.sqlite"

    async def fill() -> None:
        with ThreadPoolExecutor(2) as threads:
            context = Context("x", SystemClock(), structlog.get_logger(), CollectorRegistry(), threads, None)
            backend: Any = KIND.make(SqliteSettings(path=str(paths[0])), context)
            await backend.start()
            for piece in from_directory(str(directory), TRACES, Range(), FILES):
                block = scan(TRACES, piece.payload, piece.runs[0][0])
                await backend.export(Batch(Source("0" * 32, "", TRACES), (block,), block.base_offset, block.end_offset))
            await backend.stop()

    asyncio.run(fill())
    arguments = ["migrate", "--from", f"sqlite:{paths[0]}", "--to", f"sqlite:{paths[1]}", "--signal", "traces"]
    kills = until_done([*arguments, "--state", str(tmp_path / "state")], {}, tmp_path / "output", 4)
    assert kills > 2
    assert rows(paths[1]) == rows(paths[0]) == (len(owed), len(set(owed)))
    said = (tmp_path / "output").read_text()
    assert f"hours compared, {len(owed)} records: the same" in said, said
