"""The pytest plugin: a real OTLP server for tests, asserted about in TraceQL, LogQL and PromQL. See docs/testing.md.

pytest loads this module whenever Ringtail is installed, so it imports nothing but pytest: the server, and with it numpy
and protobuf, come with the first test that asks for the fixture.

One server does for a session (one of each worker under pytest-xdist). Its rings are emptied before each test that uses
`otlp`, and the providers of this process flushed before and after: what a test's spans leave in a batch counts as its
own. What other processes send late, after their test, is the next one's, so a test should end those it starts.

The server is not stopped: it ends with the process, after SDKs have sent what they send when they are shut down at
exit, and would wait and complain if nobody took it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.testing.assertions import Otlp
    from collector.testing.server import Server


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the setting."""
    parser.addini("otlp_wait", "Seconds that assertions of the fixture otlp wait for what is exported.", default="5")


@pytest.fixture(scope="session")
def otlp_server() -> Server:
    """The server, for fixtures of a session that start what sends to it: `environment` and so on as `otlp` has it."""
    from collector.testing.server import Server

    return Server()


@pytest.fixture
def otlp(otlp_server: Server, pytestconfig: pytest.Config) -> Iterator[Otlp]:
    """An OTLP server that has received nothing yet. The test fails at its end if an export was not accepted whole."""
    from collector.testing.assertions import Otlp, flush

    flush()
    otlp_server.clear()
    otlp_server.violations.take()
    yield Otlp(otlp_server, float(pytestconfig.getini("otlp_wait")))
    flush()
    violations = otlp_server.violations.take()
    if violations:
        told = "\n".join(f"  {one}" for one in violations)
        pytest.fail(f"{len(violations)} violations of OTLP, or of Ringtail:\n{told}", pytrace=False)
