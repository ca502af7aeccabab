"""`ringtail query`, `trace` and `tail`, against a running daemon."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.cli import main
from tests.daemon import COMMAND, Daemon, environment


def ringtail(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="ringtail", env={"COLUMNS": "100"})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon")) as running:
        assert ringtail("send", "--endpoint", running.http, "--orders", "12").exit_code == 0
        yield running


def failed(daemon: Daemon) -> list[str]:
    """The trace ids of failed orders."""
    result = ringtail("query", "traces", "{ status = error }", "--endpoint", daemon.api)
    assert result.exit_code == 0, result.output
    heads, *rows = result.output.splitlines()
    assert heads.split() == ["started", "(UTC)", "trace", "service", "root", "duration", "spans", "errors", "matching"]
    return [row.split()[2] for row in rows]


def test_query(daemon: Daemon) -> None:
    assert len(failed(daemon)) == 2
    one = ringtail("query", "traces", "--endpoint", daemon.api, "--limit", "1", "--since", "1h", "--json")
    assert len(json.loads(one.output)["traces"]) == 1
    nothing = ringtail("query", "traces", "{ .a = 1 }", "--endpoint", daemon.api)
    assert (nothing.exit_code, nothing.stdout, nothing.stderr) == (0, "", "no trace matches\n")
    wrong = ringtail("query", "traces", "{ .a = ", "--endpoint", daemon.api)
    assert wrong.exit_code == 1
    assert "at column" in wrong.stderr
    assert ringtail("query", "traces", "--endpoint", daemon.api, "--since", "x").exit_code == 2


def test_trace(daemon: Daemon) -> None:
    trace_id = failed(daemon)[0]
    result = ringtail("trace", trace_id, "--endpoint", daemon.api)
    assert result.exit_code == 0, result.output
    head, _, *lines = result.output.splitlines()
    assert re.fullmatch(rf"trace {trace_id}  .* ms  8 spans  4 services  5 errors", head)
    assert lines[0].split()[:3] == ["POST", "/api/orders", "frontend"]
    assert "  ! payment failed" in lines[1]
    assert sum("█" in line or "▏" in line for line in lines) == 8
    as_json = json.loads(ringtail("trace", trace_id, "--endpoint", daemon.api, "--json").output)
    ids = [s["traceId"] for e in as_json["resourceSpans"] for g in e["scopeSpans"] for s in g["spans"]]
    assert ids == [trace_id] * 8
    for wrong, says in (("f" * 32, "not found"), ("x", "hex digits"), ("../stats", "answers 40")):
        result = ringtail("trace", wrong, "--endpoint", daemon.api)
        assert result.exit_code == 1
        assert says in result.stderr


def test_what_a_terminal_would_obey_is_escaped(daemon: Daemon) -> None:
    data = TracesData()
    envelope = data.resource_spans.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = "shop\x1b]0;x\x07"
    span = envelope.scope_spans.add().spans.add(trace_id=b"\7" * 16, span_id=b"\1" * 8, name="a\x1b[2J\nb\u202e")
    span.start_time_unix_nano = span.end_time_unix_nano = 10**18
    span.status.code, span.status.message = 2, "no\r\x9b31m"
    assert daemon.export("/v1/traces", data.SerializeToString()).code == 200
    query = "{ trace:id = `07070707070707070707070707070707` }"
    for result in (
        ringtail("trace", "07" * 16, "--endpoint", daemon.api),
        ringtail("trace", "07" * 16, "--endpoint", daemon.api, "--json"),
        ringtail("query", "traces", query, "--endpoint", daemon.api),
        ringtail("query", "traces", query, "--endpoint", daemon.api, "--json"),
    ):
        assert result.exit_code == 0
        assert all(char.isprintable() for line in result.output.split("\n") for char in line), result.output


def tailing(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "tail", "--endpoint", daemon.api, *arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_tail_resumes_after_a_restart(tmp_path: Path) -> None:
    """The daemon goes, and others come on its port: nothing that was sent is missing, nothing comes twice."""
    with Daemon(tmp_path) as first:
        api = first.api
        ringtail("send", "--endpoint", first.http, "--orders", "1")
        tail = tailing(first, "--json", "{ name = `POST /api/orders` }")
        logs = tailing(first, "--signal", "logs", "--past", "100")
        assert tail.stdout is not None
        assert logs.stdout is not None
        assert logs.stderr is not None
        seen = [tail.stdout.readline()]
        assert "order 1001" in logs.stdout.readline()
        logs.send_signal(signal.SIGINT)
        _, errors = logs.communicate(timeout=30)
        assert (logs.returncode, errors) == (0, "")
    with Daemon(tmp_path, f"api.endpoint={api}") as second:
        ringtail("send", "--endpoint", second.http, "--orders", "1")
        seen.append(tail.stdout.readline())
        ringtail("send", "--endpoint", second.http, "--orders", "1")
        seen.append(tail.stdout.readline())
        tail.send_signal(signal.SIGINT)
        rest, errors = tail.communicate(timeout=30)
        assert tail.returncode == 0
        assert rest.strip() == ""
        assert errors == "the daemon is shutting down\nthe daemon has gone; coming again\n"
    ids = {json.loads(line)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["traceId"] for line in seen}
    assert len(ids) == 3


def test_tail_refused(daemon: Daemon) -> None:
    result = ringtail("tail", "{ .a = 1 } >> { .b = 2 }", "--endpoint", daemon.api)
    assert result.exit_code == 1
    assert "answers 400" in result.stderr
    result = ringtail("tail", "--endpoint", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "no daemon answers" in result.stderr


def test_a_tenant_is_named(tmp_path: Path) -> None:
    with Daemon(tmp_path, "tenants.enabled=true") as daemon:
        while ringtail("send", "--endpoint", daemon.http, "--tenant", "one", "--orders", "1").exit_code:
            pass  # it is being opened
        query = ("query", "traces", "--endpoint", daemon.api)
        assert len(ringtail(*query, "--tenant", "one").output.splitlines()) == 2
        assert ringtail(*query, "--tenant", "two").stderr == "no trace matches\n"
        assert "X-Scope-OrgID" in ringtail(*query).stderr
        assert "404" in ringtail("tail", "--endpoint", daemon.api, "--tenant", "two").stderr
