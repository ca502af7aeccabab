"""ClickHouse's HTTP interface in front of chdb, which is the real engine in this process: one session, one query at a time.

    python -m tests.exporters.clickhouse.server DIRECTORY PORT

is one that can be killed: served.py starts it.

What of the interface Ringtail uses: a statement in the body or in `query`, `param_NAME`, settings, bodies in LZ4 and zstd,
X-ClickHouse-Exception-Code. Answers come whole.
"""

from __future__ import annotations

import asyncio
import atexit
import itertools
import os
import re
import shutil
import ssl
import sys
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

import cramjam
import zstandard
from aiohttp import web

from tests.e2e.requirements import do_without

CLUSTER = "alone"
"""A cluster of this engine. It has no queue of statements for a cluster: the server takes `ON CLUSTER` out of them."""
_CONFIG = f"""<clickhouse><tcp_port>9000</tcp_port><remote_servers><{CLUSTER}>
<shard><internal_replication>true</internal_replication><replica><host>127.0.0.1</host><port>9000</port></replica></shard>
</{CLUSTER}></remote_servers></clickhouse>"""


def need_engine() -> None:
    """Skip the test where there is no engine; where servers are required, fail it."""
    if find_spec("chdb") is None:
        do_without("chdb is not installed: pip install -e '.[test-clickhouse]'")


_ENGINE = ThreadPoolExecutor(1)
_SESSIONS: list[Any] = []
_databases = itertools.count()


def database() -> str:
    """Return the name of a database that nobody has."""
    return f"tested_{next(_databases)}"


def done(statement: str) -> None:
    """Run a statement, and wait for it."""
    _ENGINE.submit(run, statement, {}, {}, b"").result()


def emptied(name: str) -> str:
    """Forget the rows of a database, if it is there, and which inserts they came with: a tenth of another one's cost."""
    done(f"TRUNCATE ALL TABLES FROM IF EXISTS {name}")
    return name


def session() -> Any:
    """Return the engine: unless one was opened, a temporary one."""
    if not _SESSIONS:
        # Small files by the hundred: in memory where there is plenty, for a quarter of the time.
        memory = "/dev/shm"
        plenty = os.path.isdir(memory) and shutil.disk_usage(memory).free > 1 << 30
        directory = tempfile.mkdtemp(prefix="clickhouse-", dir=memory if plenty else None)
        atexit.register(shutil.rmtree, directory, True)
        opened(directory).query("SET max_threads = 1, max_insert_threads = 1")
    return _SESSIONS[0]


def opened(directory: str) -> Any:
    """Open the engine of this process, which keeps its files in a directory."""
    from chdb.session import Session

    config = os.path.join(directory, "config.xml")
    with open(config, "w") as file:
        file.write(_CONFIG)
    _SESSIONS.append(Session(f"{directory}/data?config-file={config}"))
    return _SESSIONS[0]


def quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def run(statement: str, parameters: dict[str, str], settings: dict[str, str], data: bytes) -> bytes:
    """Run a statement as the server would; in the engine's thread."""
    of = session()
    statement = statement.replace(f" ON CLUSTER `{CLUSTER}`", "")
    told = ", ".join(f"{name} = {quoted(value)}" for name, value in settings.items())
    if statement.startswith("INSERT"):
        insert, _, form = statement.partition(" FORMAT ")
        insert = f"{insert} SETTINGS {told}" if told else insert
        with of.send_insert(insert, form) as inserter:
            inserter.append(data)
            inserter.finish()
        return b""
    form = "JSONCompactEachRow"
    if found := re.search(r" FORMAT (\w+)$", statement):
        form = found[1]
        statement = statement[: found.start()]
    if statement.startswith("SELECT") and told:
        statement += f" SETTINGS {told}"
    return bytes(of.query(statement, form, params=parameters).bytes() or b"")


class Server:
    """What a test asks of it."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        self.settings: list[dict[str, str]] = []
        self.users: list[str | None] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        encoding = request.headers.get("Content-Encoding", "")
        if encoding == "lz4":
            body = bytes(cramjam.lz4.decompress(body))
        elif encoding == "zstd":
            body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
        fields = dict(request.query)
        statement = fields.pop("query", None)
        data = body if statement is not None else b""
        statement = body.decode() if statement is None else statement
        parameters = {name[6:]: fields.pop(name) for name in list(fields) if name.startswith("param_")}
        self.statements.append(statement)
        self.settings.append(fields)
        self.users.append(request.headers.get("X-ClickHouse-User"))
        try:
            answer = await asyncio.get_running_loop().run_in_executor(_ENGINE, run, statement, parameters, fields, data)
        except Exception as error:
            code = re.search(r"Code: (\d+)", str(error))
            headers = {"X-ClickHouse-Exception-Code": code[1]} if code else {}
            return web.Response(status=500, text=str(error), headers=headers)
        return web.Response(body=answer)


@asynccontextmanager
async def serving(answer: Any, tls: ssl.SSLContext | None = None, port: int = 0) -> AsyncIterator[str]:
    """Serve on this port, or a free one; give the URL."""
    app = web.Application(client_max_size=256 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, max_line_size=1 << 20, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        yield f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}"
    finally:
        await runner.cleanup()


async def _serve(directory: str, port: int) -> None:
    _ENGINE.submit(opened, directory).result()
    async with serving(Server().answer, port=port) as url:
        print(url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], int(sys.argv[2])))
