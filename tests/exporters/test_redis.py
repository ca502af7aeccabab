"""The worked example of a backend from a package of its own, examples/ringtail-redis, on a Redis server of the test's own."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collector.otlp.signals import TRACES
from collector.testing.corpus import corpus
from collector.testing.exporters import BackendContract, Make, batch_of
from tests.e2e.requirements import do_without, require
from tests.exporters.reaching import QUESTIONS, made, reduced, same, whole

EXAMPLE = Path(__file__).parents[2] / "examples" / "ringtail-redis"
PATIENCE_S = 20.0

try:
    import redis
except ImportError:
    redis = None  # type: ignore[assignment]  # told by `server`

sys.path.insert(0, str(EXAMPLE))
from ringtail_redis import KIND, RedisSettings  # noqa: E402 - as if it were installed

if TYPE_CHECKING:
    from collector.exporters.settings import ExporterSettings

_prefixes = (f"tested{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A server's port; each test has keys of its own."""
    if redis is None:
        do_without("redis-py is not installed")
    require("redis-server")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="ringtail-redis-") as directory:
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen([*command, "--dir", directory], stdout=subprocess.DEVNULL)
        try:
            _wait(process, port)
            yield port
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            assert process.poll() is None, "Redis did not start"
            assert time.monotonic() < end
            time.sleep(0.01)
        else:
            return


def settings_of(port: int, **more: Any) -> RedisSettings:
    return RedisSettings(endpoint=f"127.0.0.1:{port}", prefix=next(_prefixes), **more)


class TestRedis(BackendContract):
    kind = KIND

    @pytest.fixture
    def settings(self, server: int) -> ExporterSettings:
        return settings_of(server)


class TestBounds:
    """What is Redis' own."""

    kind = KIND
    make = BackendContract.make

    @pytest.fixture
    def settings(self, server: int) -> ExporterSettings:
        return settings_of(server, max_len=50, ttl=3600.0)

    async def test_the_newest_are_kept_and_everything_has_a_ttl(self, make: Make, settings: RedisSettings) -> None:
        backend = await make()
        batch = batch_of(TRACES, [corpus(TRACES, 120)])
        for first in range(0, 120, 30):
            part = batch.part(first, first + 30)
            assert part is not None
            await backend.export(part)
        assert await backend.count(TRACES, "", 0, 2**63) == 50
        client = redis.Redis.from_url(f"redis://{settings.endpoint}")
        keys = client.keys(f"{settings.prefix}:{{*")
        sizes = {key.decode().rpartition(":")[2]: client.object("encoding", key) for key in keys}
        assert len(sizes) == 4, "a stream, two indexes, and the set of instances"
        assert all(0 < client.ttl(key) <= 3600 for key in keys)
        assert client.zcard(f"{settings.prefix}:{{traces:}}:traces") == 50
        assert backend.stats() == {"records": 120, "cut": 70}
        client.close()


async def test_queries_reach_back_into_it(server: int, tmp_path: Path) -> None:
    kind = made(KIND, settings_of(server), tmp_path)
    async with whole() as everything, kind as backend, reduced(backend) as little:
        for path, query in QUESTIONS[::14]:
            assert same(await little.ask(path, query)) == same(await everything.ask(path, query)), (path, query)


def test_its_entry_point_is_found_when_it_is_installed(tmp_path: Path) -> None:
    """As a package is: by its metadata on the path, made here without an installation."""
    metadata = tmp_path / "ringtail_redis-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ringtail-redis\nVersion: 0.1.0\n")
    declared = (EXAMPLE / "pyproject.toml").read_text().partition('[project.entry-points."ringtail.backends"]\n')[2]
    line = declared.partition("\n")[0].replace('"', "")
    (metadata / "entry_points.txt").write_text(f"[ringtail.backends]\n{line}\n")
    code = (
        "from collector.settings import load; print(load([], ['exporters.redis.max_len=7', 'query.backend=redis'], {}))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{tmp_path}:{EXAMPLE}:{Path(__file__).parents[2]}", "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "max_len=7" in run.stdout
