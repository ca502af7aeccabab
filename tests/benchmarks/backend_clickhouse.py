"""ClickHouse, for tests/benchmarks/backends.py.

The floor is the standard library's HTTP client with the bodies that the backend has sent, Native columns in LZ4, sent again: what
the server takes for the same rows, and nobody makes them.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from urllib.parse import quote, urlencode, urlsplit

from collector.exporters.base import Backend, Batch
from collector.exporters.clickhouse import native, schema
from collector.exporters.clickhouse.columns import KEPT, LAYOUTS, OWN
from collector.exporters.clickhouse.kind import KIND
from collector.exporters.clickhouse.settings import ClickHouseSettings
from tests.benchmarks.subject import Missing, Replay, Subject
from tests.exporters.clickhouse.served import Served

Inserts = list[tuple[str, bytes]]
"""Statements with their bodies."""


class ClickHouse(Subject):
    """chdb, ClickHouse's engine, in a server of its own with default settings: two copies of a body are made on the way that a real
    server would not make."""

    name = "clickhouse"
    driver = "http.client, INSERT of the same Native columns in LZ4"

    def __init__(self, directory: Path, threads: ThreadPoolExecutor) -> None:
        super().__init__(directory, threads)
        self._numbers = count()
        self._server: Served | None = None
        self._database = ""

    async def start(self) -> None:
        if find_spec("chdb") is None:
            raise Missing("chdb is not installed")
        self._server = Served(self.directory / "server")

    def _settings(self) -> ClickHouseSettings:
        """Of a database that is not there; the last one goes."""
        assert self._server is not None
        if self._database:
            self._server.post(f"DROP DATABASE IF EXISTS {self._database} SYNC")
        self._database = f"measured_{next(self._numbers)}"
        return ClickHouseSettings(endpoint=(self._server.url,), database=self._database)

    async def fresh(self) -> Backend:
        backend = self.made(KIND, self._settings())
        await backend.start()
        return backend

    async def recorded(self, batches: Sequence[Batch]) -> Inserts:
        found = []
        for batch in batches:
            for layout in LAYOUTS[batch.signal]:
                columns = (*layout.columns, *OWN, *KEPT)
                name = schema.base_name(ClickHouseSettings(), batch.signal) + layout.suffix
                table = schema.Table(layout, name, {one.name: one.type for one in columns}, columns)
                body = native.body(native.joined(batch), table, "lz4")
                if body:
                    told = ", ".join(f"`{one.name}`" for one in columns)
                    found.append((f"{name} ({told}) FORMAT Native", body))
        return found

    async def floor(self, recorded: Inserts) -> Replay:
        backend = await self.fresh()
        await backend.stop()
        assert self._server is not None
        place = urlsplit(self._server.url).netloc

        def insert() -> None:
            connection = http.client.HTTPConnection(place)
            for rest, body in recorded:
                query = urlencode({"query": f"INSERT INTO {self._database}.{rest}"}, quote_via=quote)
                connection.request("POST", f"/?{query}", body, {"Content-Encoding": "lz4"})
                answer = connection.getresponse()
                assert answer.status == 200, answer.read()
                answer.read()
            connection.close()

        return lambda: asyncio.get_running_loop().run_in_executor(self._threads, insert)

    def engine_cpu_s(self) -> float:
        return self._server.cpu_s() if self._server is not None else 0.0

    async def stop(self) -> None:
        if self._server is not None:
            self._server.kill()
