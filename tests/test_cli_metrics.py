"""`ringtail query metrics`, against a running daemon, and servers that answer something else.

The points are at fixed times, a minute apart: 2001-09-09 01:46:40 is 10**9 in Unix seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest
from click import unstyle
from click.testing import CliRunner, Result
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE, MetricsData

from collector.cli import main
from tests.daemon import COMMAND, Daemon, environment
from tests.test_cli import server

FIRST_S = 10**9
NO_RECORDED_VALUE = 1
KITCHEN, CELLAR, LOFT = [1, 2, 3, 4, 8], [4, None, 6, 1.5, 1], [12345, 0.001, 7]
PAST = ("--since", "4m", "--until", "2001-09-09T01:50:40Z", "--step", "1m")


def ringtail(*arguments: str, columns: int = 100) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="ringtail", env={"COLUMNS": str(columns)})


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    data = MetricsData()
    envelope = data.resource_metrics.add()
    envelope.resource.attributes.add(key="service.name").value.string_value = "house"
    scope = envelope.scope_metrics.add()
    heat = scope.metrics.add(name="heat", unit="Cel", description="How warm\nit is.")
    for room, values in (("kitchen", KITCHEN), ("cellar", CELLAR)):
        for minute, value in enumerate(values):
            point = heat.gauge.data_points.add(time_unix_nano=(FIRST_S + 60 * minute) * 10**9)
            point.attributes.add(key="room").value.string_value = room
            if value is None:
                point.flags = NO_RECORDED_VALUE
            else:
                point.as_double = value
    steps = scope.metrics.add(name="steps", description="Steps made.")
    steps.sum.is_monotonic, steps.sum.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
    for minute, value in enumerate(LOFT):
        steps.sum.data_points.add(time_unix_nano=(FIRST_S + 60 * minute) * 10**9, as_double=value)
    with Daemon(tmp_path_factory.mktemp("daemon")) as running:
        assert running.export("/v1/metrics", data.SerializeToString()).code == 200
        yield running


def asked(daemon: Daemon, *arguments: str, columns: int = 100) -> list[str]:
    """The lines that are printed for a query that is answered without a word beside."""
    result = ringtail("query", "metrics", *arguments, "--endpoint", daemon.api, columns=columns)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout.splitlines()


def test_at_a_time(daemon: Daemon) -> None:
    for time in ("1000000060", "2001-09-09T01:47:40Z", "1000000060000000000"):
        assert asked(daemon, "heat_celsius", "--at", time) == [
            "series                                     value",
            'heat_celsius{job="house", room="kitchen"}      2',
        ], "what has ended is not there"
    descending = asked(daemon, "sort_desc(heat_celsius)", "--at", "1000000240")
    assert [line.split()[-1] for line in descending] == ["value", "8", "1"], "in the order of the answer"
    assert asked(daemon, "1 + 0.5") == ["1.5"]
    assert asked(daemon, "time()", "--at", "1000000000.25") == ["1000000000.25"]
    assert asked(daemon, r'"a\x1b[2J\n"') == [r"a\x1b[2J\n"]
    now = ringtail("query", "metrics", "heat_celsius", "--endpoint", daemon.api)
    assert (now.exit_code, now.stdout, now.stderr) == (0, "", "no series\n"), "it was in 2001"


def test_range_vectors(daemon: Daemon) -> None:
    assert asked(daemon, "heat_celsius[3m]", "--at", "1000000160") == [
        'heat_celsius{job="house", room="cellar"}',
        "  2001-09-09 01:46:40.000  4",
        "  2001-09-09 01:48:40.000  6",
        'heat_celsius{job="house", room="kitchen"}',
        "  2001-09-09 01:46:40.000  1",
        "  2001-09-09 01:47:40.000  2",
        "  2001-09-09 01:48:40.000  3",
    ]


def test_a_picture_of_a_range(daemon: Daemon) -> None:
    """The scale is of both rooms, 1 to 8: 6 is at 5/7 of it, in the sixth of eight parts."""
    assert asked(daemon, "heat_celsius", *PAST, "-o", "table") == [
        "2001-09-09 01:46:40 to 2001-09-09 01:50:40 (UTC), step 1m",
        'in all series: heat_celsius{job="house"}',
        "series                   min  last  max",
        '{room="cellar"}   ▄ ▆▁▁    1     1    6',
        '{room="kitchen"}  ▁▂▃▄█    1     8    8',
    ]
    assert asked(daemon, "heat_celsius", *PAST, "-o", "table", "--limit", "1") == [
        "2001-09-09 01:46:40 to 2001-09-09 01:50:40 (UTC), step 1m",
        "series                                           min  last  max",
        'heat_celsius{job="house", room="cellar"}  ▅ █▁▁    1     1    6',
        "… and 1 more series",
    ], "on a scale of its own"
    infinite = asked(daemon, "steps_total / 0", *PAST, "-o", "table")
    assert infinite[2:] == ['{job="house"}  █████  +Inf  +Inf  +Inf'], "without a finite value"
    assert asked(daemon, "1e5", *PAST, "-o", "table")[1:] == [
        "series          min  last   max",
        "{}      ▄▄▄▄▄  100k  100k  100k",
    ]


def test_the_step_of_a_picture(daemon: Daemon) -> None:
    """Of 100 columns 40 are for values: 39 steps. 240 s make 6.2, so 7 s, and 34 of them are 238 s."""
    range_ = ("--since", "4m", "--until", "1000000240", "-o", "table")
    head, _, _, cellar, kitchen = asked(daemon, "heat_celsius", *range_)
    assert head == "2001-09-09 01:46:42 to 2001-09-09 01:50:40 (UTC), step 7s"
    assert kitchen.split("  ")[1] == "▁" * 9 + "▂" * 8 + "▃" * 9 + "▄" * 8 + "█", "the last value is the end's"
    assert cellar.split("}")[1][3:].startswith("▄" * 9 + " " * 8 + "▆" * 9 + "▁" * 9), "ended for a minute"
    assert asked(daemon, "1", "--since", "3s", "-o", "table")[0].endswith(", step 1s"), "no shorter one"
    close = asked(daemon, "heat_celsius", *range_, "--step", "3s", columns=60)
    assert close[0].endswith("step 3s, a sign is the highest of 4 values")
    assert close[-1].split("  ")[1] == "▁" * 5 + "▂" * 5 + "▃" * 5 + "▄" * 5 + "█", "81 values in 21 signs"
    assert all(len(line) <= 60 for line in close[2:])


def test_labels_that_are_too_long_are_cut_if_they_can_be_told_apart(daemon: Daemon) -> None:
    long = f'label_replace(heat_celsius, "%s", "{"y" * 60}$1", "room", "(.*)")'
    cut = asked(daemon, long % "x", *PAST, "-o", "table", "--limit", "1", columns=60)
    assert cut[2:4] == [
        'heat_celsius{job="house", room="cell…  ▅ █▁▁    1     1    6',
        "… and 1 more series",
    ]
    assert asked(daemon, long % "a", *PAST, "-o", "table", columns=60)[2:] == [
        "series         min  last  max",
        f'{{a="{"y" * 60}cellar", room="cellar"}}',
        "        ▄ ▆▁▁    1     1    6",
        f'{{a="{"y" * 60}kitchen", room="kitchen"}}',
        "        ▁▂▃▄█    1     8    8",
    ]


def test_programs_get_lines(daemon: Daemon) -> None:
    cellar, kitchen = (f'heat_celsius{{job="house", room="{room}"}}' for room in ("cellar", "kitchen"))
    assert asked(daemon, "heat_celsius", *PAST)[3:] == [
        f"2001-09-09T01:50:40.000Z\t{cellar}\t1",
        *(f"2001-09-09T01:{46 + minute}:40.000Z\t{kitchen}\t{value}" for minute, value in enumerate(KITCHEN)),
    ]
    few = ringtail("query", "metrics", "heat_celsius", *PAST, "--limit", "1", "--endpoint", daemon.api)
    assert (len(few.stdout.splitlines()), few.stderr) == (4, "… and 1 more series\n")
    assert asked(daemon, "time()", "--at", "1000000000", "-o", "lines") == ["2001-09-09T01:46:40.000Z\t{}\t1000000000"]
    assert [json.loads(line) for line in asked(daemon, "heat_celsius", *PAST, "--json")][1] == {
        "metric": {"__name__": "heat_celsius", "job": "house", "room": "kitchen"},
        "values": [[FIRST_S + 60 * minute, str(value)] for minute, value in enumerate(KITCHEN)],
    }
    assert asked(daemon, "2", "--at", "1", "--json") == ['{"metric": {}, "value": [1.0, "2"]}']


def test_a_terminal_gets_a_picture(daemon: Daemon) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    query = ("query", "metrics", "heat_celsius", *PAST, "--endpoint", daemon.api)
    variables = {**environment(), "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen([*COMMAND, *query], env=variables, stdin=subprocess.DEVNULL, stdout=theirs) as command:
        os.close(theirs)
        shown = bytearray()
        try:
            while piece := os.read(ours, 4096):
                shown += piece
        except OSError:
            pass  # so Linux tells that the other side has closed
        finally:
            os.close(ours)
        assert command.wait(timeout=60) == 0
    lines = unstyle(shown.decode()).splitlines()
    assert lines[-1] == '{room="kitchen"}  ▁▂▃▄█    1     8    8'


def test_output_without_utf_8_is_drawn_in_ascii(daemon: Daemon) -> None:
    query = ("query", "metrics", "heat_celsius", *PAST, "-o", "table", "--endpoint", daemon.api)
    result = CliRunner(charset="ascii").invoke(main, query)
    assert result.stdout_bytes.splitlines()[-1] == b'{room="kitchen"}  .:-=@    1     8    8'


def test_metrics_are_listed(daemon: Daemon) -> None:
    assert asked(daemon) == [
        "metric        type     unit  help",
        r"heat_celsius  gauge    Cel   How warm\nit is.",
        "steps_total   counter        Steps made.",
    ]
    assert asked(daemon, "--limit", "1")[2:] == ["… and 1 more metrics"]
    assert asked(daemon, "-o", "lines")[1] == "steps_total\tcounter\t\tSteps made."
    assert json.loads(asked(daemon, "--json")[0]) == {
        "metric": "heat_celsius",
        "type": "gauge",
        "unit": "Cel",
        "help": "How warm\nit is.",
    }


def test_explain(daemon: Daemon) -> None:
    lines = asked(daemon, "sum(heat_celsius)", *PAST, "--explain")
    assert lines[1].split()[0] == "heat_celsius"
    assert lines[-1].startswith("answer: 1 series, ")
    assert (
        json.loads(asked(daemon, "heat_celsius", "--at", "1000000060", "--explain", "--json")[0])["answer"]["series"]
        == 1
    )


def test_mistakes(daemon: Daemon) -> None:
    for arguments, status, said in (
        (("sum(up",), 1, "answers 400: 1:7: parse error: "),
        (("sum(up", "--since", "1m", "--explain"), 1, "answers 400: 1:7: parse error: "),
        (("up", "--since", "1d", "--step", "1s"), 1, "answers 400: exceeded maximum resolution of 11,000 points"),
        (("up[5m]", "--since", "1m"), 1, "answers 400: invalid expression type 'range vector' for range query"),
        (("up", "--since", "15"), 2, "'--since': '15' is not a duration like 15m"),
        (("up", "--since", "1m", "--step", "0"), 2, "--step: a step is a millisecond or longer"),
        (("up", "--at", "soon"), 2, "'--at': 'soon' is not a time like"),
        (("up", "--until", "now"), 2, "--until and --step are of a range"),
        (("up", "--step", "1m"), 2, "--until and --step are of a range"),
        (("up", "--at", "now", "--since", "1m"), 2, "one time (--at), or a range"),
        (("--since", "1m"), 2, "the query is missing"),
        (("--explain",), 2, "the query is missing"),
    ):
        found = ringtail("query", "metrics", *arguments, "--endpoint", daemon.api)
        assert (found.exit_code, found.stdout, said in found.stderr) == (status, "", True), (arguments, found.output)


def envelope(kind: str, result: object, **more: object) -> bytes:
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}, **more}).encode()


def test_what_is_missing_is_told() -> None:
    reason = "only memory was asked:\x1b[2J no answer of the backend"
    with server(200, envelope("scalar", [1, "2"], warnings=[reason])) as endpoint:
        for more in ((), ("--json",), ("-o", "lines")):
            result = ringtail("query", "metrics", "2", "--endpoint", endpoint, *more)
            assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
            assert result.stderr == "only memory was asked:\\x1b[2J no answer of the backend\n"


def test_labels_are_written_as_promql_reads_them() -> None:
    labels = {"a": 'x"\\\n\t\x1b\u202e', "http.route": "/", "__name__": "up", "b": ""}
    with server(200, envelope("vector", [{"metric": labels, "value": [1, "NaN"]}])) as endpoint:
        printed = ringtail("query", "metrics", "up", "--endpoint", endpoint).stdout.splitlines()[1]
    assert printed == r'up{a="x\"\\\n\t\x1b\u202e", b="", "http.route"="/"}    NaN'


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{}", b"[]", b"null", b"<html>", b'{"data": null}', b"[" * 100_000, b'{"warnings": 1}'),
        envelope("vector", [{"metric": {}, "histogram": [1, {}]}]),
        envelope("vector", [{"metric": [], "value": [1, "1"]}]),
        envelope("vector", [{"metric": {}, "value": ["x", "1"]}]),
        envelope("matrix", [{"metric": {}, "values": []}]),
        envelope("matrix", [{"metric": {}, "values": [[1e300, "1"]]}]),
        envelope("matrix", [{"metric": {}, "values": [[FIRST_S, "one"]]}]),
        envelope("matrix", [{"metric": {}, "values": [[FIRST_S + 3600, "1"]]}]),
    ],
)
def test_another_server_is_told_from_a_ringtail(body: bytes) -> None:
    with server(200, body) as endpoint:
        result = ringtail("query", "metrics", "up", "-o", "table", *PAST, "--endpoint", endpoint)
        assert (result.exit_code, result.output) == (
            1,
            f"Error: {endpoint} is no Ringtail: it answers /api/v1/query_range with something else\n",
        )


def test_errors_without_an_envelope_are_told_as_they_are() -> None:
    for body, said in (
        (b'{"status": "error", "error": "no\\u001b[2J"}', r"no\x1b[2J"),
        (b'{"error": 1}', '{"error": 1}'),
        (b"[" * 100_000, "[" * 1000),
        (b"bad\x1b gateway", r"bad\x1b gateway"),
        (b"", "nothing"),
    ):
        with server(502, body) as endpoint:
            result = ringtail("query", "metrics", "up", "--endpoint", endpoint)
        assert (result.exit_code, result.output) == (1, f"Error: {endpoint} answers 502: {said}\n")
