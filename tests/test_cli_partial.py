"""What an answer lacks is told by every command, and nonsense of a server is one error, whichever command it meets.

Here servers answer what they are told to; tests/exporters/test_reaching_told.py has answers of a daemon whose backend is away.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import pytest
from click.testing import CliRunner, Result
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from collector.cli import main
from collector.otlp.records import tagged
from tests.test_cli import answering, server

TRACE = "05" * 16
AWAY = "older records may be missing here: the backend b is away"
DAMAGED = "9 log records cannot be read, from offset 7 on, and may be missing here: their place in the log is damaged"
LINES = {"resultType": "streams", "result": [{"stream": {"service_name": "shop"}, "values": [["1", "sold"]]}]}
SUMMARY = {
    "traceID": TRACE,
    "rootServiceName": "shop",
    "rootTraceName": "sell",
    "startTimeUnixNano": "1",
    "durationMs": 1,
    "spanSet": {"matched": 1},
    "serviceStats": {"shop": {"spanCount": 1}},
}
RECORD = {"offset": "1", "timeUnixNano": "1", "level": "info", "service": "shop", "body": "sold"}
DEEP = b"[" * 100_000


def ringtail(*arguments: str, color: bool = False) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="ringtail", env={"COLUMNS": "100"}, color=color)


def paths(answers: Mapping[str, bytes]) -> AbstractContextManager[str]:
    """A server with an answer for each beginning of a path, and 404 for others; yields its address."""
    return answering(
        lambda path: next(((200, body) for start, body in answers.items() if path.startswith(start)), (404, b""))
    )


def trace_answer(message: str = "") -> bytes:
    """Tempo's TraceByIDResponse: a trace of one span, and what is missing from it."""
    data = TracesData()
    span = data.resource_spans.add().scope_spans.add().spans.add(trace_id=b"\5" * 16, span_id=b"\1" * 8, name="sell")
    span.start_time_unix_nano = span.end_time_unix_nano = 10**18
    partial = b"\x18\x01" + tagged(4, message.encode()) if message else b""
    return tagged(1, data.SerializeToString()) + partial


def related(**more: Any) -> bytes:
    return json.dumps({"spans": [{"spanId": "01" * 8, "logRecords": [RECORD]}], **more}).encode()


def test_warnings_of_lines_and_of_their_numbers() -> None:
    scalar = {"resultType": "scalar", "result": [1, "2"]}
    for data, query in ((LINES, "{}"), (scalar, "1 + 1"), ({**LINES, "result": []}, "{}")):
        answer = {"status": "success", "warnings": [f"{AWAY}\x1b[2J", "damaged", f"{AWAY}\x1b[2J"], "data": data}
        with server(200, json.dumps(answer).encode()) as endpoint:
            for more in ((), ("--json",), ("-o", "raw")):
                result = ringtail("query", "logs", query, "--endpoint", endpoint, *more)
                assert (result.exit_code, len(result.stdout.splitlines()) > 0) == (0, bool(data["result"]))
                lines = result.stderr.splitlines()
                assert lines[:2] == [f"{AWAY}\\x1b[2J", "damaged"], "each once"
                assert lines[2:] == ([] if data["result"] else ["no line matches"])
            coloured = ringtail("query", "logs", query, "--endpoint", endpoint, color=True).stderr
            assert f"\x1b[33m{AWAY}\\x1b[2J\x1b[0m\n" in coloured


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_coverage_of_a_search(more: tuple[str, ...]) -> None:
    for metrics, told in (
        ({"oldestOffset": "5"}, []),
        ({"partial": True, "message": f"{AWAY}\n"}, [f"{AWAY}\\n"]),
        ({"partial": True, "unreadable": [1], "message": f"{DAMAGED}; {AWAY}"}, [f"{DAMAGED}; {AWAY}"]),
        ({"partial": True}, ["spans may be missing here"]),
    ):
        with server(200, json.dumps({"traces": [SUMMARY], "metrics": metrics}).encode()) as endpoint:
            result = ringtail("query", "traces", "--endpoint", endpoint, *more)
        assert (result.exit_code, result.stderr.splitlines()) == (0, told)
        assert TRACE in result.stdout
    with server(200, b'{"traces": [], "metrics": {"message": "away"}, "nextCursor": "1.2.3"}') as endpoint:
        result = ringtail("query", "traces", "--endpoint", endpoint, *more)
    nothing = [] if more else ["no trace matches"]
    assert result.stderr.splitlines() == ["away", *nothing, "there may be more traces: see --limit"]


def test_an_incomplete_trace() -> None:
    with server(200, trace_answer(f"the trace is incomplete; {AWAY}")) as endpoint:
        shown = ringtail("trace", TRACE, "--endpoint", endpoint)
        assert (shown.stdout.splitlines()[1], shown.stderr) == (f"the trace is incomplete; {AWAY}", "")
        as_json = ringtail("trace", TRACE, "--endpoint", endpoint, "--json")
        assert as_json.stderr == f"the trace is incomplete; {AWAY}\n"
        assert json.loads(as_json.stdout)["resourceSpans"]
    with server(200, trace_answer()) as endpoint:
        assert ringtail("trace", TRACE, "--endpoint", endpoint, "--json").stderr == ""


def test_log_records_of_a_trace() -> None:
    """What the head of the picture says is not said again."""
    coverage = {"traces": {"partial": True, "message": AWAY}, "logs": {"partial": True, "message": DAMAGED}}
    message = {"complete": False, "message": "the root span is not held"}
    body = related(coverage=coverage, trace=message)
    with paths({"/api/v2/traces": trace_answer(AWAY), "/api/related": body}) as endpoint:
        both = ringtail("trace", TRACE, "--logs", "--endpoint", endpoint)
        assert both.exit_code == 0, both.output
        assert (both.stdout.count(AWAY), both.stderr) == (1, DAMAGED + "\n")
        as_json = ringtail("trace", TRACE, "--logs", "--json", "--endpoint", endpoint)
        assert as_json.stderr.splitlines() == ["the root span is not held", AWAY, DAMAGED]
        assert as_json.stdout.encode().strip() == body
    with paths({"/api/related": related(coverage=coverage)}) as endpoint:
        alone = ringtail("trace", TRACE, "--logs", "--endpoint", endpoint)
        assert alone.stderr.splitlines() == [AWAY, DAMAGED]
    with paths({"/api/related": related(nextCursor="1.2.3")}) as endpoint:
        cut = ringtail("trace", TRACE, "--logs", "--json", "--limit", "1", "--endpoint", endpoint)
        assert cut.stderr == "there are more than 1 log records: nextCursor leads to them\n"


def test_explanations() -> None:
    answer = {"plan": [], "passes": [], "answer": {"lines": 1, "bytes": 1}, "seconds": 1, "missing": [f"{AWAY}\x1b"]}
    with server(200, json.dumps(answer).encode()) as endpoint:
        for more in ((), ("--json",)):
            result = ringtail("query", "logs", "{}", "--explain", "--endpoint", endpoint, *more)
            assert (result.exit_code, result.stderr) == (0, f"{AWAY}\\x1b\n")


def test_missed_records_of_a_tail() -> None:
    missed = b'{"reason": "slow", "firstOffset": "7", "nextOffset": "9", "records": 2, "matches": null}'
    stream = b"event: missed\ndata: " + missed + b"\n\nevent: x\ndata: " + DEEP + b"\n\n"
    with server(200, stream) as endpoint:
        for more in ((), ("--json",)):
            result = ringtail("tail", "--endpoint", endpoint, *more)
            assert result.stderr.splitlines() == [
                "2 records were missed (slow): from offset 7",
                f"Error: {endpoint} is no Ringtail: it answers /api/tail with something else",
            ]


NONSENSE = (b"", b"<html>", b"\xff", b"{}", b"[]", b"null", b"1", DEEP, b'{"a": ' * 50_000, b"1" * 5000)
COMMANDS = (
    (("query", "traces"), "/api/search"),
    (("query", "traces", "--explain"), "/api/explain"),
    (("query", "logs", "{}"), "/loki/api/v1/query_range"),
    (("query", "logs", "1"), "/loki/api/v1/query"),
    (("query", "metrics"), "/api/v1/metadata"),
    (("query", "metrics", "up"), "/api/v1/query"),
    (("trace", TRACE, "--logs"), "/api/related"),
    (("stats",), "/api/stats"),
)


@pytest.mark.parametrize(("command", "path"), COMMANDS)
def test_nonsense_is_one_error(command: tuple[str, ...], path: str) -> None:
    for body in NONSENSE:
        with paths({path: body}) as endpoint:
            result = ringtail(*command, "--endpoint", endpoint)
        said = f"Error: {endpoint} is no Ringtail: it answers {path} with something else\n"
        assert (result.exit_code, result.output) == (1, said), (body[:20], result.output)


@pytest.mark.parametrize("command", [("delete", TRACE, "--yes"), ("delete", TRACE, "--dry-run")])
def test_nonsense_about_a_deletion(command: tuple[str, ...]) -> None:
    for body in (*NONSENSE, b'{"deleted": {"x": 1}, "backends": []}'):
        with server(200, body) as endpoint:
            result = ringtail(*command, "--endpoint", endpoint)
        said = f"Error: {endpoint} is no Ringtail: it answers /api/delete with something else\n"
        assert (result.exit_code, result.output) == (1, said)


def test_nonsense_in_the_right_shape() -> None:
    """Times beyond every calendar, pages that lead nowhere, warnings that are none."""
    late = {**LINES, "result": [{"stream": {}, "values": [[str(10**27), "late"]]}]}
    for command, path, body in (
        (("query", "logs", "{}"), "/loki/api/v1/query_range", {"data": late}),
        (("query", "logs", "{}"), "/loki/api/v1/query_range", {"data": LINES, "warnings": "x"}),
        (("query", "traces"), "/api/search", {"traces": [{**SUMMARY, "startTimeUnixNano": str(10**27)}]}),
        (("query", "traces"), "/api/search", {"traces": [], "metrics": [1]}),
        (("trace", TRACE, "--logs"), "/api/related", {"spans": [], "nextCursor": "1.2.3"}),
    ):
        with paths({path: json.dumps(body).encode()}) as endpoint:
            result = ringtail(*command, "--endpoint", endpoint)
        said = f"Error: {endpoint} is no Ringtail: it answers {path} with something else\n"
        assert (result.exit_code, result.output) == (1, said), result.output
