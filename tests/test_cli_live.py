"""`ringtail query`, `trace` and `tail`, against a running daemon."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click import unstyle
from click.testing import CliRunner, Result
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
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
    assert len(json.loads(one.stdout)["traces"]) == 1
    assert one.stderr == "there may be more traces: see --limit\n"
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
    assert lines[0].split()[:4] == ["!", "POST", "/api/orders", "frontend"]
    assert "  ! payment failed" in lines[1]
    assert sum("█" in line or "▏" in line for line in lines) == 8
    as_json = json.loads(ringtail("trace", trace_id, "--endpoint", daemon.api, "--json").output)
    ids = [s["traceId"] for e in as_json["resourceSpans"] for g in e["scopeSpans"] for s in g["spans"]]
    assert ids == [trace_id] * 8
    for wrong, says in (("f" * 32, "not found"), ("x", "hex digits"), ("../stats", "answers 40")):
        result = ringtail("trace", wrong, "--endpoint", daemon.api)
        assert result.exit_code == 1
        assert says in result.stderr


def test_trace_with_its_logs(daemon: Daemon) -> None:
    trace_id = failed(daemon)[0]
    result = CliRunner().invoke(main, ("trace", trace_id, "--logs", "--endpoint", daemon.api), color=True)
    assert result.exit_code == 0, result.output
    plain = unstyle(result.stdout).splitlines()
    logged = [line.split(maxsplit=2) for line in plain if re.search(r"^[│ ]*\d\d:\d\d:\d\d\.\d{3}  ", line)]
    texts = [words[-1] for words in logged]
    assert len(texts) == 5
    at = next(number for number, line in enumerate(plain) if "card network did not answer" in line)
    spans = [line for line in plain[:at] if "█" in line or "▏" in line]
    assert "POST /charges" in spans[-1], "a line stands under its span"
    assert "\x1b[31mcard network did not answer\x1b[0m" in result.stdout, "errors are red"
    assert "\x1b[33mcard network slow, trying again" in result.stdout
    as_json = json.loads(ringtail("trace", trace_id, "--logs", "--json", "--endpoint", daemon.api).output)
    assert sum(len(one["logRecords"]) for one in as_json["spans"]) == 5
    few = ringtail("trace", trace_id, "--logs", "--limit", "2", "--endpoint", daemon.api)
    assert few.stderr == "there are more than 2 log records: see --limit\n"
    assert "ERROR" not in few.stdout
    silent = ringtail("trace", "f" * 32, "--logs", "--endpoint", daemon.api)
    assert (silent.exit_code, "holds neither a span nor a log record" in silent.stderr) == (1, True)


def test_what_is_missing_is_said_and_logs_alone_are_shown(daemon: Daemon) -> None:
    data = TracesData()
    span = data.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\5" * 16, span_id=b"\1" * 8, name="alone")
    span.parent_span_id = b"\6" * 8
    span.start_time_unix_nano = span.end_time_unix_nano = 10**18
    assert daemon.export("/v1/traces", data.SerializeToString()).code == 200
    lines = ringtail("trace", "05" * 16, "--endpoint", daemon.api).output.splitlines()
    assert lines[1] == "the trace is incomplete: 1 parent span is not held (0606060606060606): not received, so far"
    assert "marked ?" in lines[2]
    log = LogsData()
    record = log.resource_logs.add().scope_logs.add().log_records.add(trace_id=b"\4" * 16, time_unix_nano=10**18)
    record.body.kvlist_value.values.add(key="a").value.int_value = 1
    assert daemon.export("/v1/logs", log.SerializeToString()).code == 200
    result = ringtail("trace", "04" * 16, "--logs", "--endpoint", daemon.api)
    assert result.exit_code == 0
    assert "no span of it is held" in result.output
    assert '01:46:40.000  -      -  {"a": 1}' in result.output


def test_query_logs(daemon: Daemon) -> None:
    def logs(query: str, *options: str) -> Result:
        return ringtail("query", "logs", query, "--endpoint", daemon.api, *options)

    query = '{service_name="orders"} |= "not placed"'
    result = logs(query)
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert re.fullmatch(
        r"\S+ \S+  ERROR  orders  order \d+ not placed  order_id=\d+ (shop_product=\S+ )?span_id=\w{16} trace_id=\w{32}",
        second,
    )
    assert first.split()[:2] > second.split()[:2], "newest first"
    assert "in all lines: deployment_environment_name=demo " in result.stderr
    assert logs(query, "--direction", "forward").stdout.splitlines() == [second, first]
    raw = logs(query, "-o", "raw", "--limit", "1").output
    assert re.fullmatch(r"order \d+ not placed\n", raw)
    one = json.loads(logs(query, "--json", "--since", "10m", "--limit", "1").output)
    assert (one["line"], one["labels"]["service_name"], one["metadata"]["severity_number"]) == (
        raw[:-1],
        "orders",
        "17",
    )
    assert logs(query, "--end", "2020-01-01T00:00:00Z").stderr == "no line matches\n"
    coloured = CliRunner().invoke(main, ("query", "logs", query, "--endpoint", daemon.api), color=True).stdout
    assert f"\x1b[31m{raw[:-1]}\x1b[0m" in coloured
    wrong = logs("{service_name=")
    assert (wrong.exit_code, "answers 400" in wrong.stderr) == (1, True)
    assert logs(query, "--since", "x").exit_code == 2


def test_query_logs_of_numbers(daemon: Daemon) -> None:
    query = 'sum by (detected_level) (count_over_time({service_name=~"orders|payment"}[1h]))'
    once = ringtail("query", "logs", query, "--endpoint", daemon.api).output.splitlines()
    assert [line.split() for line in once] == [
        ["detected_level", "value"],
        *(["error", "4"], ["info", "20"], ["warn", "2"]),
    ]
    steps = ringtail("query", "logs", query, "--since", "2h", "--step", "1h", "--endpoint", daemon.api)
    rows = [line.split() for line in steps.output.splitlines()]
    assert (rows[0], len(rows)) == (["time", "(UTC)", "detected_level", "value"], 4)
    assert ringtail("query", "logs", "1 + 1", "--endpoint", daemon.api).output.split() == ["value", "2"]
    assert ringtail("query", "logs", 'sum(rate({a="b"}[1m]))', "--endpoint", daemon.api).stderr == "no series\n"


def test_explain(daemon: Daemon) -> None:
    query = ("query", "logs", '{service_name="payment"} |= "slow"', "--endpoint", daemon.api)
    lines = ringtail(*query, "--explain").output.splitlines()
    assert lines[0].split() == ["part", "index", "records", "in", "memory", "how"]
    assert lines[1].split()[:4] == ['{service_name="payment"}', "service", "payment", "14"]
    stages = {line.split()[0]: line.split()[-4:-2] for line in lines if line.endswith("s") and line.startswith("  ")}
    assert stages['{service_name="payment"}'] == ["2", "2"], "the keyword index has found them"
    assert lines[-1].startswith("answer: 2 lines, ")
    group = ringtail("query", "--explain", "traces", "{ status = error }", "--json", "--endpoint", daemon.api)
    assert json.loads(group.output)["answer"]["traces"] == 2
    wrong = ringtail("query", "traces", "{ .a = ", "--explain", "--endpoint", daemon.api)
    assert (wrong.exit_code, "at column" in wrong.stderr) == (1, True)


def test_what_a_terminal_would_obey_is_escaped(daemon: Daemon) -> None:
    data = TracesData()
    envelope = data.resource_spans.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = "shop\x1b]0;x\x07"
    span = envelope.scope_spans.add().spans.add(trace_id=b"\7" * 16, span_id=b"\1" * 8, name="a\x1b[2J\nb\u202e")
    span.start_time_unix_nano = span.end_time_unix_nano = 10**18
    span.status.code, span.status.message = 2, "no\r\x9b31m"
    assert daemon.export("/v1/traces", data.SerializeToString()).code == 200
    logs = LogsData()
    scope = logs.resource_logs.add().scope_logs.add()
    for span_id in (b"\1" * 8, b""):
        record = scope.log_records.add(trace_id=b"\7" * 16, span_id=span_id, time_unix_nano=10**18)
        record.severity_text, record.body.string_value = "\x1b[7m", "a\x1b[2J\nb\u202e"
        record.attributes.add(key="k").value.string_value = "v\r\x9b"
    assert daemon.export("/v1/logs", logs.SerializeToString()).code == 200
    asked = ("query", "logs", '{service_name="unknown_service"}', "--endpoint", daemon.api, "--start", "999999999.0")
    query = "{ trace:id = `07070707070707070707070707070707` }"
    for result in (
        ringtail("trace", "07" * 16, "--endpoint", daemon.api),
        ringtail("trace", "07" * 16, "--endpoint", daemon.api, "--json"),
        ringtail("trace", "07" * 16, "--logs", "--endpoint", daemon.api),
        ringtail("trace", "07" * 16, "--logs", "--json", "--endpoint", daemon.api),
        ringtail(*asked),
        ringtail(*asked, "-o", "raw"),
        ringtail(*asked, "-o", "json"),
        ringtail("query", "traces", query, "--endpoint", daemon.api),
        ringtail("query", "traces", query, "--endpoint", daemon.api, "--json"),
    ):
        assert result.exit_code == 0, result.output
        assert "[2J" in result.output or "ice" in result.output
        assert all(char.isprintable() for line in result.output.split("\n") for char in line), result.output


def tailing(daemon: Daemon, *arguments: str) -> subprocess.Popen[str]:
    # A shell's background jobs ignore interrupts, and hand that on to their children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [*COMMAND, "tail", "--endpoint", daemon.api, *arguments],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


def test_tail_resumes_after_a_restart(tmp_path: Path) -> None:
    """The daemon goes, and others come on its port: nothing that was sent is missing, nothing comes twice."""
    with Daemon(tmp_path) as first:
        api = first.api
        ringtail("send", "--endpoint", first.http, "--orders", "1")
        tail = tailing(first, "--json", "{ name = `POST /api/orders` }")
        logs = tailing(first, "logs", '{service_name="frontend"} |= "received"')
        assert tail.stdout is not None
        assert logs.stdout is not None
        seen = [tail.stdout.readline()]
        assert "order 1001" in logs.stdout.readline()
    with Daemon(tmp_path, f"api.endpoint={api}") as second:
        ringtail("send", "--endpoint", second.http, "--orders", "1")
        seen.append(tail.stdout.readline())
        ringtail("send", "--endpoint", second.http, "--orders", "1")
        seen.append(tail.stdout.readline())
        for _ in range(2):
            assert "INFO   frontend  order 1001 received" in logs.stdout.readline()
        logs.send_signal(signal.SIGINT)
        assert logs.communicate(timeout=30)[0].strip() == ""
        assert logs.returncode == 0
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
    assert "answers 400" in ringtail("tail", "--signal", "logs", "{ .a = 1 }", "--endpoint", daemon.api).stderr
    assert "answers 400" in ringtail("tail", "logs", "{ .a = 1 }", "--endpoint", daemon.api).stderr
    assert ringtail("tail", "logs", "--signal", "traces", "--endpoint", daemon.api).exit_code == 2
    assert ringtail("tail", "traces", "{", "}", "--endpoint", daemon.api).exit_code == 2
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


def test_times_from_now_on(daemon: Daemon) -> None:
    lines = ("query", "logs", '{service_name=~".+"}', "--endpoint", daemon.api, "-o", "raw")
    found = ringtail(*lines, "--start", "now-1h", "--end", "now")
    assert (found.exit_code, len(found.stdout.splitlines())) == (0, 50), found.output
    assert ringtail(*lines, "--start", "now-2h", "--end", "now-1h").stderr == "no line matches\n"
    count = ringtail(
        "delete", "--query", "{}", "--from", "now-1d", "--to", "now", "--dry-run", "--endpoint", daemon.api
    )
    assert count.output == "96 spans match\n"
    older = ("delete", "--query", "{ resource.service.namespace = `shop` }", "--to", "now-1h")
    assert ringtail(*older, "--dry-run", "--endpoint", daemon.api).output == "0 spans match\n"


def test_what_goes_wrong_says_what_to_do(daemon: Daemon) -> None:
    api = ("--endpoint", daemon.api)
    for arguments, status, said in (
        (("query", "{ status = error }"), 2, "say first what is asked about: ringtail query traces"),
        (("query", "up"), 2, "or query metrics"),
        (("tail", "metrics"), 2, "traces or logs"),
        (("replay", "--speed", "max"), 2, "either --target or --to-exporter"),
        (("send", *api), 1, "OTLP is received on another port, 4318"),
        (
            ("delete", "--signal", "logs", "--query", 'rate({a="b"}[1m])', "--yes", *api),
            1,
            "invalid query: only log lines",
        ),
        (("delete", "--query", "{} >> {}", "--yes", *api), 1, "only single spans can be asked about here"),
    ):
        found = ringtail(*arguments)
        assert (found.exit_code, said in found.output) == (status, True), (arguments, found.output)


def test_files_that_hold_no_telemetry(tmp_path: Path, daemon: Daemon) -> None:
    (tmp_path / "notes.txt").write_text("just some notes")
    (tmp_path / "x.binpb").write_bytes(b"\0\0\0\2\x0a\0")
    target = ("--target", f"http://{daemon.http}")
    assert "neither OTLP/JSON lines" in ringtail("import", str(tmp_path / "notes.txt"), *target).output
    assert "x.binpb: protobuf does not say" in ringtail("import", str(tmp_path / "x.binpb"), *target).output


def test_deleted_data_points_are_left_out_of_an_export(tmp_path: Path, daemon: Daemon) -> None:
    """Told once, however many places there are. The last test of this file: it deletes."""
    query = ("--signal", "metrics", "--query", "shop_orders_total", "--yes", "--endpoint", daemon.api)
    found = re.fullmatch(r"([0-9]+) data points deleted\n", ringtail("delete", *query).output)
    assert found is not None
    path = str(tmp_path / "points.jsonl")
    done = ringtail("export", path, "--signal", "metrics", "--endpoint", daemon.queries)
    assert done.exit_code == 0, done.output
    assert done.stderr == f"left out: {found[1]} offsets, deleted, damaged, or removed by retention\n"
    assert "shop.orders" not in (tmp_path / "points.jsonl").read_text()
