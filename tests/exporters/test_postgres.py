"""The PostgreSQL backend on a real server: the contract, what it stores, what it refuses, and what it survives."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.exporters.postgres.kind import KIND
from collector.exporters.postgres.settings import PostgresSettings
from collector.exporters.settings import ClientTls
from collector.security.secret import Secret
from collector.testing.exporters import BackendContract
from tests.exporters.postgres_server import Server

_schemas = (f"kept_{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """One for the module: each test has a schema of its own."""
    made = Server()
    yield made
    made.stop()


def settings_of(server: Server, **more: object) -> PostgresSettings:
    """Settings for an empty schema of a server."""
    return PostgresSettings(
        **{
            "endpoint": f"127.0.0.1:{server.port}",
            "database": server.database,
            "username": server.user,
            "password": Secret(server.password),
            "schema": next(_schemas),
            "tls": ClientTls(insecure=True),
            "max_open_conns": 4,
            **more,
        }  # type: ignore[arg-type]
    )


class TestContract(BackendContract):
    kind = KIND

    @pytest.fixture
    def settings(self, server: Server, tmp_path: Path) -> PostgresSettings:
        return settings_of(server)
