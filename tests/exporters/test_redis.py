"""The worked example of a backend from a package of its own, examples/ringtail-redis, on a Redis server of the test's own."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from collector.errors import Retryable, Unwelcome
from collector.exporters.base import Wanted
from collector.exporters.settings import ClientTls
from collector.otlp.signals import TRACES
from collector.security.secret import Secret
from collector.testing.corpus import corpus
from collector.testing.exporters import BackendContract, Make, batch_of
from tests.e2e.requirements import do_without, require
from tests.exporters.reaching import QUESTIONS, made, reduced, same, whole
from tests.security.certificates import Authority

EXAMPLE = Path(__file__).parents[2] / "examples" / "ringtail-redis"
PATIENCE_S = 20.0
PASSWORD = "a-password-of-redis"

try:
    import redis
except ImportError:
    redis = None  # type: ignore[assignment]  # told by `server`

sys.path.insert(0, str(EXAMPLE))
from ringtail_redis import KIND, RedisSettings  # noqa: E402 - as if it were installed

if TYPE_CHECKING:
    from collector.exporters.settings import ExporterSettings

_prefixes = (f"tested{number}" for number in itertools.count())


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextmanager
def running(port: int, *arguments: str) -> Iterator[None]:
    """A server that listens on a port; the arguments say how."""
    if redis is None:
        do_without("redis-py is not installed")
    require("redis-server")
    with tempfile.TemporaryDirectory(prefix="ringtail-redis-") as directory:
        command = ["redis-server", "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", directory]
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL)
        try:
            _wait(process, port)
            yield
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


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A server's port; each test has keys of its own."""
    port = free_port()
    with running(port, "--port", str(port)):
        yield port


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisSettings]:
    """Settings for a server that speaks TLS alone, wants a client's certificate, and has the README's user."""
    (rule,) = re.findall(r"^user ringtail .*$", (EXAMPLE / "README.md").read_text(), re.MULTILINE)
    users = tmp_path_factory.mktemp("users") / "users.acl"
    users.write_text(
        "user default off\n"
        f"{rule.replace('PASSWORD', PASSWORD)}\n"
        f"user reader on >{PASSWORD} ~ringtail:* -@all +@connection +@read\n"
    )
    port, (certificate, key) = free_port(), authority.issue("redis.example", alternative=("redis.example", "127.0.0.1"))
    arguments = ("--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority.path)
    with running(port, "--port", "0", "--tls-port", str(port), "--aclfile", str(users), *map(str, arguments)):
        yield RedisSettings(
            endpoint=f"rediss://127.0.0.1:{port}",
            username="ringtail",
            password=Secret(PASSWORD),
            tls=shown(authority, *authority.issue("ringtail")),
        )


def shown(authority: Authority, certificate: Path, key: Path) -> ClientTls:
    return ClientTls(ca_file=str(authority.path), cert_file=str(certificate), key_file=str(key))


def settings_of(port: int, **more: Any) -> RedisSettings:
    return RedisSettings(endpoint=f"127.0.0.1:{port}", prefix=next(_prefixes), **more)


class TestRedis(BackendContract):
    """By TLS, as a user with no more rights than the README gives it; what else is tested here is in plaintext."""

    kind = KIND

    @pytest.fixture
    def settings(self, secured: RedisSettings) -> ExporterSettings:
        return replace(secured, prefix=f"ringtail:{next(_prefixes)}")


@contextmanager
def refused_by_the_server() -> Iterator[None]:
    """A certificate of ours that the server does not take.

    By TLS 1.3 it says so after our handshake is done, and closes: what we have sent by then makes that a reset, which may
    overtake the reason.
    """
    with pytest.raises((Unwelcome, Retryable), match=r"no TLS|does not answer: .*(reset|closed)"):
        yield


class TestSecured:
    """What is not as it should be between Ringtail and the server."""

    kind = KIND
    make = BackendContract.make

    @pytest.fixture
    def settings(self, secured: RedisSettings) -> RedisSettings:
        return secured

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"password": Secret("wrong, and secret")}, "refuses us"),
            ({"username": "default", "password": None}, "refuses us"),
            ({"username": "nobody"}, "refuses us"),
            ({"tls": {"ca_file": None}}, "the server's certificate"),
            ({"tls": {"server_name_override": "elsewhere.example"}}, "the server's certificate: .*elsewhere.example"),
            ({"tls": {"key_file": "/nonexistent"}}, "the files of tls cannot be used"),
        ],
    )
    async def test_what_is_configured_wrong_is_unwelcome(
        self, settings: RedisSettings, tmp_path: Path, change: dict[str, Any], told: str
    ) -> None:
        """And told without the secret."""
        if isinstance(tls := change.get("tls"), dict):
            change = {"tls": replace(settings.tls, **tls)}
        backend = made(KIND, replace(settings, **change), tmp_path)
        with pytest.raises(Unwelcome, match=told) as caught:
            async with backend:
                pass
        assert "secret" not in str(caught.value)
        assert PASSWORD not in str(caught.value)

    async def test_a_certificate_of_another_authority_is_refused_by_either_side(
        self, settings: RedisSettings, tmp_path: Path
    ) -> None:
        other = Authority(tmp_path, "another")
        certificate, key = other.issue("ringtail")
        with pytest.raises(Unwelcome, match="no TLS"):
            async with made(KIND, replace(settings, tls=replace(settings.tls, ca_file=str(other.path))), tmp_path):
                pass
        for cert_file, key_file in ((str(certificate), str(key)), (None, None)):
            tls = replace(settings.tls, cert_file=cert_file, key_file=key_file)
            with refused_by_the_server():
                async with made(KIND, replace(settings, tls=tls), tmp_path):
                    pass

    async def test_a_name_may_be_another_than_the_address(self, settings: RedisSettings, tmp_path: Path) -> None:
        tls = replace(settings.tls, server_name_override="redis.example")
        async with made(KIND, replace(settings, tls=tls), tmp_path) as backend:
            assert backend.health().ok

    async def test_tls_on_one_side_only_is_no_connection(
        self, settings: RedisSettings, server: int, tmp_path: Path
    ) -> None:
        plain = replace(settings, endpoint=settings.endpoint.replace("rediss", "redis"), tls=ClientTls())
        # Redis waits for the end of what it takes for a command.
        other = replace(settings, endpoint=f"rediss://127.0.0.1:{server}", timeout=0.1)
        for wrong in (plain, other):
            with pytest.raises(Retryable, match="does not answer"):
                async with made(KIND, wrong, tmp_path):
                    pass

    async def test_rights_that_are_missing_are_unwelcome(self, settings: RedisSettings, tmp_path: Path) -> None:
        async with made(KIND, replace(settings, username="reader"), tmp_path) as backend:
            with pytest.raises(Unwelcome, match="refuses us"):
                await backend.export(batch_of(TRACES, [corpus(TRACES, 5)]))
            assert not backend.health().ok
            assert [one async for one in backend.read(Wanted(TRACES))] == []
            assert backend.health().ok

    async def test_a_certificate_that_was_renewed_is_shown(
        self, settings: RedisSettings, authority: Authority, tmp_path: Path
    ) -> None:
        """At the next connection, without a restart."""
        paths = tmp_path / "client.crt", tmp_path / "client.key"

        def issue(by: Authority) -> None:
            for path, made_now in zip(paths, by.issue("ringtail", file="renewed"), strict=True):
                path.write_bytes(made_now.read_bytes())

        issue(authority)
        async with made(KIND, replace(settings, tls=shown(authority, *paths)), tmp_path) as backend:
            await backend.stop()
            issue(Authority(tmp_path, "another"))
            with refused_by_the_server():
                await backend.start()
            issue(authority)
            assert await backend.count(TRACES, "", 0, 2**63) == 0


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"endpoint": "http://127.0.0.1:1"}, "endpoint"),
        ({"endpoint": "rediss://127.0.0.1/1"}, "endpoint"),
        ({"endpoint": "169.254.169.254"}, "endpoint"),
        ({"username": "ringtail"}, "password"),
        ({"tls": ClientTls(insecure=True)}, "tls.insecure"),
        ({"tls": ClientTls(ca_file="a")}, "endpoint"),
        ({"endpoint": "rediss://127.0.0.1", "tls": ClientTls(cert_file="a")}, "tls.cert_file"),
    ],
)
def test_settings_that_contradict_each_other(wrong: dict[str, Any], key: str) -> None:
    assert [one for one, _ in KIND.problems(RedisSettings(**wrong))] == [key]


def test_settings_that_are_well() -> None:
    assert list(KIND.problems(RedisSettings())) == []
    tls = ClientTls(ca_file="/nonexistent/ca", cert_file="/nonexistent/a", key_file="/nonexistent/b")
    settings = RedisSettings(endpoint="rediss://127.0.0.1", username="ringtail", password=Secret("p"), tls=tls)
    assert list(KIND.problems(settings)) == []
    assert [key for key, _ in KIND.obstacles(settings)] == ["tls.ca_file", "tls.cert_file", "tls.key_file"]


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
