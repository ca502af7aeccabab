"""S9, as far as there are no pages: what a terminal shows moves no cursor and hides nothing, and no answer is HTML."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any
from urllib.parse import quote

import pytest
from click.testing import CliRunner

from collector.cli import main
from collector.cli.terminal import escaped, escaped_json
from collector.otlp.signals import TRACES
from collector.testing import otlp
from tests.daemon import Daemon
from tests.hostile.texts import TEXTS, random_text


def shown(text: str) -> bool:
    """Tell whether a terminal shows all of a text and obeys none of it."""
    return all(line.isprintable() for line in text.split("\n"))


@pytest.mark.parametrize("text", TEXTS)
def test_escaped_texts_are_shown_and_json_stays_what_it_was(text: str) -> None:
    assert escaped(text).isprintable()
    written = json.dumps({text: [text]}, ensure_ascii=False)
    assert escaped_json(written).isprintable()
    assert json.loads(escaped_json(written)) == {text: [text]}
    assert escaped("plain é ∑ text") == "plain é ∑ text"


def test_wal_cat(tmp_path: Path) -> None:
    request = TRACES.request_type()
    inner = request.resource_spans.add().scope_spans.add()
    texts = [*TEXTS, *(random_text(Random(number)) for number in range(50))]
    for number, text in enumerate(texts):
        span = inner.spans.add(trace_id=b"t" * 16, span_id=(number + 1).to_bytes(8, "big"), name=text)
        span.attributes.add(key=text).value.string_value = text
    with Daemon(tmp_path) as daemon:
        assert daemon.export("/v1/traces", request.SerializeToString()).code == 200
        # what a client sent is also in the daemon's own log, one event a line
        for path in ("/%1b%5b31m%0ax", "/\x9b2J".encode("latin-1").decode("latin-1")):
            assert daemon.get(quote(path, safe="/%")).code == 404
        for text in TEXTS:
            daemon.export("/v1/traces", text.encode())
    assert all(shown(line) for line in daemon.lines)
    done = CliRunner().invoke(main, ["wal", "cat", str(tmp_path / "data")])
    assert done.exit_code == 0
    assert shown(done.output)
    spans = json.loads(done.output)["resourceSpans"][0]["scopeSpans"][0]["spans"]
    assert [span["name"] for span in spans] == texts


def _answer(path: str, text: str) -> Any:
    """What commands about logs ask for, with a text in every place that has one."""
    if path.startswith("/loki"):
        line = ["1", text, {"structuredMetadata": {"severity_text": text, text: text, "a": "1"}}]
        lines = [line, ["2", text, {}]]
        streams = [{"stream": {"service_name": text}, "values": lines}]
        return {"data": {"resultType": "streams", "result": streams}, "warnings": [text]}
    if path.startswith("/api/related"):
        record = {"offset": "1", "timeUnixNano": "1", "severityText": text, "service": text, "body": {text: text}}
        lacking = {"partial": True, "message": text}
        coverage = {"coverage": {"traces": lacking, "logs": lacking}, "trace": {"message": text}}
        return {"spans": [{"spanId": text, "logRecords": [record]}], **coverage}
    if path.startswith("/api/search"):
        one = {"traceID": text, "rootServiceName": text, "rootTraceName": text, "startTimeUnixNano": "1"}
        one |= {"durationMs": 1, "spanSet": {"matched": text}, "serviceStats": {text: {"spanCount": 1}}}
        return {"traces": [one], "metrics": {"message": text}, "nextCursor": text}
    if path.startswith("/api/v1/metadata"):
        return {"data": {text: [{"type": text, "unit": text, "help": text}]}}
    if path.startswith("/api/v1/query_range"):
        matrix = [{"metric": {"__name__": name, text: text}, "values": [[60, "1"]]} for name in (text, "a")]
        return {"data": {"resultType": "matrix", "result": matrix}, "warnings": [text]}
    if path.startswith("/api/v1/query"):
        one = {"metric": {"__name__": text, text: text}, "value": [1, text], "values": [[1, text]]}
        kind = path.partition("query=")[2]
        result = [1, text] if kind == "string" else [one]
        return {"data": {"resultType": kind, "result": result}, "warnings": [text]}
    figures = {"blocks": 1, "lookedAt": 1, "records": 1}
    stage = {"stage": text, "recordsIn": 1, "recordsOut": 1, "seconds": 1, "how": text}
    one = {"pass": text, "times": 2, "seconds": 1, "memory": figures, "log": figures, "stages": [stage]}
    word = {"word": text, "stands": text, "recordsInMemory": 1}
    plan = {"part": text, "index": text, "key": text, "how": text, "words": [word]}
    answer = {text: 1, "bytes": 1}
    return {"plan": [plan], "passes": [one], "answer": answer, "seconds": 1, "missing": [text]}


class _Hostile(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        text = "".join(TEXTS)
        if self.path.startswith("/api/v2/traces"):
            self.send_error(404)
            return
        if self.path == "/readyz":
            body = text.encode()
        elif self.path.startswith(("/loki", "/api/related", "/api/search", "/api/explain", "/api/v1")):
            body = json.dumps(_answer(self.path, text), ensure_ascii=False).encode()
        else:
            index = {text: {"keys": 1, "postings": 1, "bytes": 1}}
            log = {"bytes": 1, "segments": 1, "first_offset": 0, "next_offset": text}
            one = {"records": 1, "capacity": text, "evicted": 1, "total_bytes": 1, "log": log, "indexes": index}
            body = json.dumps({"signals": {text: one}}, ensure_ascii=False).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


def test_a_daemon_that_is_none_cannot_write_to_the_terminal() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Hostile)
    Thread(target=server.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        query, metrics = ["query", "logs", "{}"], ["query", "metrics"]
        past = ["x", "--since", "1m", "--until", "60"]
        for arguments in (
            *(["stats"], ["stats", "--json"], ["healthcheck"], query, [*query, "-o", "raw"], [*query, "-o", "json"]),
            *([*query, "--explain"], [*query, "--explain", "--json"], ["trace", "1", "--logs"]),
            *(["trace", "1", "--logs", "--json"], ["query", "traces"], ["query", "traces", "--json"]),
            *([*metrics, *more] for more in ([], ["vector"], ["matrix"], ["string"], ["vector", "--json"])),
            *([*metrics, *more] for more in (["vector", "-o", "lines"], ["-o", "lines"], ["--json"])),
            *([*metrics, *past, *more] for more in ([], ["-o", "table"], ["--json"], ["--explain"])),
        ):
            done = CliRunner().invoke(main, [*arguments, "--endpoint", endpoint])
            assert shown(done.output.replace("\t", "")), arguments  # it stands between fields of lines
            assert done.exit_code == 0, (arguments, done.output)
    finally:
        server.shutdown()
        server.server_close()


def test_no_answer_is_html_and_no_browser_guesses(tmp_path: Path) -> None:
    script = quote("<script>alert(1)</script>")
    with Daemon(tmp_path, "wal.enabled=false") as daemon:
        daemon.export("/v1/traces", otlp.traces(1))
        for path in (
            *("/", f"/{script}", f"/api/traces/{script}", f"/api/search?q={script}", f"/api/search?limit={script}"),
            *(f"/loki/api/v1/query_range?query={script}", f"/loki/api/v1/query?query=vector(1)&time={script}"),
            *(f"/api/v1/query?query={script}", f"/api/v1/query?query=1&time={script}", "/metrics", "/metrics/received"),
            *("/api/stats", "/healthz", "/readyz", "/api/v2/search/tags", "/api/search?q=%7B%7D"),
        ):
            answer = daemon.get(path)
            assert "html" not in answer.headers.get("content-type", ""), path
            assert answer.headers["x-content-type-options"] == "nosniff", path
