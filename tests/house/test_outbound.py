"""S14: the daemon sends nothing out by itself. Whatever opens a connection is named here, with what it is for.

A module that is to join the list owes what row S14 asks: schemes that are allowed, no redirects to other hosts, a limit on
answers, timeouts, and tests of these.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "collector"

CONNECTING = {
    *("create_connection", "open_connection", "create_datagram_endpoint", "sock_connect", "connect", "connect_ex"),
    *("sendto", "urlopen", "urlretrieve", "HTTPConnection", "HTTPSConnection", "insecure_channel", "secure_channel"),
    *("ClientSession", "create_unix_connection", "open_unix_connection", "Popen", "create_subprocess_exec", "system"),
}
KNOWN = {
    "cli/connection.py": "clients of the command line, for the endpoint that is given",
    "cli/send.py": "the same",
    "conformance/grpc_client.py": "the kit, for the endpoint that is given",
    "conformance/http2_client.py": "the same",
    "conformance/http_client.py": "the same",
    "conformance/launcher.py": "the kit's own server",
    "exporters/otlp/grpc.py": "the exporter otlp; tests/exporters/test_outbound.py",
    "exporters/otlp/http.py": "the exporter otlphttp; the same",
    "exporters/postgres/connections.py": "the backend postgres; tests/exporters/test_postgres.py",
    "exporters/sqlite/connection.py": "a file of this machine",
    "testing/assertions.py": "the pytest plugin, for the daemon that it has started",
    "notify.py": "systemd's socket, which is a file",
}


def connecting(text: str) -> set[str]:
    """The calls in a module that open connections, or start programs."""
    calls = [node.func for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    names = {one.attr if isinstance(one, ast.Attribute) else getattr(one, "id", "") for one in calls}
    return names & CONNECTING


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_sent_out(path: Path) -> None:
    if str(path.relative_to(PACKAGE)) not in KNOWN:
        assert connecting(path.read_text()) == set()


def test_the_list_is_not_older_than_the_code() -> None:
    assert [name for name in KNOWN if not connecting((PACKAGE / name).read_text())] == []


def test_a_connection_would_be_found() -> None:
    """The canary."""
    assert connecting("import urllib.request\nurllib.request.urlopen('http://169.254.169.254')") == {"urlopen"}
    assert connecting("with socket.socket() as s: s.connect(address)") == {"connect"}
