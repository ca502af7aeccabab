"""Asks two servers with Tempo's API the same TraceQL over the same traces, and tells where they differ.

    python -m tests.peers.compare_traceql --at 1790000000 --send http://127.0.0.1:4318 --send http://127.0.0.1:4418
    python -m tests.peers.compare_traceql --at 1790000000 --ours http://127.0.0.1:8888 --theirs http://127.0.0.1:3200

The first sends the traces of `woods.py` that lie before `at` by OTLP/HTTP, the second asks the questions of
`questions.py`. Both servers should be new and hold nothing else. It knows of the servers only their URLs.

Searches agree when they find the same traces with the same matching spans, in the same groups with the same values by
which they are grouped and that were aggregated. Metrics agree when they have the same series with the same values, but for the last digits;
points of a value of nothing (0, NaN) and points that are missing count as the same, and quantiles may be as far apart as
powers of two, within which Tempo estimates them. A query that both refuse is agreement too.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

from tests.peers.questions import METRICS, MISTAKES, SEARCHES, SELECTS, TAGS
from tests.peers.woods import SPAN_S, Trace, requests, shape, woods

PATIENCE_S: Final = 60
"""Seconds for one answer, and until a server has found all that it was sent."""
STEP_S: Final = 60
LIMIT: Final = 5000
SPANS: Final = 1000
SHOWN: Final = 6
"""Traces or series shown of one difference."""
CLOSE: Final = 1e-6
"""Relative difference of two values that are the same."""

Spans = frozenset[str]
Found = dict[str, frozenset[tuple[Spans, str]]]
"""Per trace its groups of spans, each with what it is grouped by and what was aggregated."""
Series = dict[str, dict[int, float]]


class Refused(Exception):
    """The server answered with an error."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One query that was answered in two ways."""

    subject: str
    query: str
    lines: list[str]
    shapes: list[str]
    """The shapes of the traces that it is about."""


class Server:
    """One server, by the URL under which it answers /api/search."""

    def __init__(self, url: str) -> None:
        self._parts = urlsplit(url)

    def request(self, method: str, path: str, body: bytes = b"", kind: str = "application/json") -> tuple[int, bytes]:
        """Send one request and return status and body."""
        connection = http.client.HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=PATIENCE_S)
        try:
            connection.request(method, self._parts.path.rstrip("/") + path, body or None, {"Content-Type": kind})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def get(self, path: str, **parameters: str | int) -> Any:
        """Return an answer's JSON; raise Refused with the error's text."""
        status, body = self.request("GET", f"{path}?{urlencode(parameters)}")
        if status != http.client.OK:
            raise Refused(f"{status} {body.decode(errors='replace').strip()[:300]}")
        return json.loads(body)

    def search(self, query: str, at: int) -> list[dict[str, Any]]:
        """Return the traces that a query finds."""
        answer = self.get("/api/search", q=query, start=at - 2 * SPAN_S, end=at + SPAN_S, limit=LIMIT, spss=SPANS)
        found: list[dict[str, Any]] = answer.get("traces", [])
        return found

    def instant(self, query: str, at: int) -> Series:
        """Return the values of a metrics query over the ten minutes before `at` as a whole."""
        answer = self.get("/api/metrics/query", q=query, start=at - SPAN_S, end=at)
        made = {_labels(one): {at: _float(one.get("value", 0))} for one in answer.get("series", [])}
        return {name: points for name, points in made.items() if points[at] and not math.isnan(points[at])}

    def series(self, query: str, at: int) -> Series:
        """Return the series of a metrics query over the ten minutes before `at`."""
        answer = self.get("/api/metrics/query_range", q=query, start=at - SPAN_S, end=at, step=f"{STEP_S}s")
        made: Series = {}
        for one in answer.get("series", []):
            points = {
                int(point.get("timestampMs", 0)) // 1000: _float(point.get("value", 0))
                for point in one.get("samples", [])
            }
            made[_labels(one)] = {when: value for when, value in points.items() if value and not math.isnan(value)}
        return {name: points for name, points in made.items() if points}


def _labels(series: dict[str, Any]) -> str:
    pairs = ((label["key"], _plain(label.get("value", {}))) for label in series.get("labels", []))
    return ", ".join(sorted(f"{key}={value}" for key, value in pairs))


def _plain(value: dict[str, Any]) -> str:
    for kind, held in value.items():
        if kind == "doubleValue":
            return f"{_float(held):g}"
        return str(held).lower() if isinstance(held, bool) else str(held)
    return "nil"


def _float(value: str | float) -> float:
    return float(value)


class Names:
    """Names for ids in reports, from the traces that were sent."""

    def __init__(self, traces: Iterable[Trace]) -> None:
        self.titles = {trace.trace_id: trace.title for trace in traces}
        self.spans = {
            span.span_id.hex(): f"{span.name}#{int.from_bytes(span.span_id[-4:], 'big') % 1000}"
            for trace in traces
            for span in trace.spans
        }

    def title(self, trace: dict[str, Any]) -> str:
        """Return the name of a trace in a search's answer; its id, if it was not sent from here."""
        trace_id = str(trace["traceID"])
        return self.titles.get(trace_id.zfill(32), trace_id)

    def span(self, span: dict[str, Any]) -> str:
        """Return the name of a span in a search's answer."""
        span_id = str(span["spanID"])
        return self.spans.get(span_id.zfill(16), span_id)

    def found(self, answer: list[dict[str, Any]]) -> Found:
        """Return what a search found, with names for ids."""
        made = {}
        for trace in answer:
            groups = trace.get("spanSets") or [trace.get("spanSet", {})]
            made[self.title(trace)] = frozenset(
                (
                    frozenset(self.span(span) for span in group.get("spans", [])),
                    _grouped(group),
                )
                for group in groups
            )
        return made


def _grouped(group: dict[str, Any]) -> str:
    pairs = ((one["key"], _plain(one.get("value", {}))) for one in group.get("attributes", []))
    return ", ".join(f"{key}={value}" for key, value in sorted(pairs))


def found_differences(ours: Found, theirs: Found) -> list[str]:
    """Tell the differences of two searches' answers, a line each."""
    lines = []
    for title in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(title, frozenset()), theirs.get(title, frozenset())
        if left != right:
            lines.append(f"{title}: ours {_groups(left - right)} theirs {_groups(right - left)}")
    return lines


def _groups(groups: frozenset[tuple[Spans, str]]) -> str:
    return (
        " ".join(f"{values and values + ' '}{{{' '.join(sorted(spans))}}}" for spans, values in sorted(groups, key=str))
        or "-"
    )


def series_differences(ours: Series, theirs: Series, factor: float = 1.0) -> list[str]:
    """Tell the differences of two metrics answers, a line for each series and time. `factor` is how far values may be."""
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        left, right = ours.get(name, {}), theirs.get(name, {})
        if not left or not right:
            lines.append(f"{{{name}}}: {'not in ours' if not left else 'not in theirs'}: {left or right}")
            continue
        for when in sorted(left.keys() | right.keys()):
            a, b = left.get(when, 0.0), right.get(when, 0.0)
            near = math.isclose(a, b, rel_tol=CLOSE) or (a * b > 0 and 1 / factor <= a / b <= factor)
            if not near:
                lines.append(f"{{{name}}} at {when}: ours {a:.9g} theirs {b:.9g}")
    return lines


@dataclass(frozen=True, slots=True)
class Question:
    """One thing that both are asked, and how two answers to it are held against each other."""

    subject: str
    query: str
    ask: Callable[[Server], Any]
    differences: Callable[[Any, Any], list[str]]


def plain_differences(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Tell the keys of which the values differ; nothing at all and an empty value are the same."""
    return [
        f"{key}: ours {ours.get(key)} theirs {theirs.get(key)}"
        for key in sorted(ours.keys() | theirs.keys())
        if (ours.get(key) or None) != (theirs.get(key) or None)
    ]


def questions(at: int) -> Iterator[Question]:
    """Return all questions about the traces that end at `at`."""
    traces = woods(at)
    names = Names(traces)
    for subject, queries in {**SEARCHES, "mistakes": MISTAKES}.items():
        for query in queries:
            ask = partial(Server.search, query=query, at=at)
            yield Question(subject, query, ask, lambda a, b: found_differences(names.found(a), names.found(b)))
    for query in SELECTS:
        yield Question("selected", query, partial(_selected, query=query, names=names, at=at), plain_differences)
    for query in METRICS:
        differ = partial(series_differences, factor=2.0) if "quantile" in query else series_differences
        yield Question("metrics", query, partial(Server.series, query=query, at=at), differ)
        yield Question("metrics, instant", query, partial(Server.instant, query=query, at=at), differ)
    for field in ("rootServiceName", "rootTraceName", "startTimeUnixNano", "durationMs", "serviceStats"):
        yield Question("summaries", field, partial(_summaries, field=field, names=names, at=at), plain_differences)
    yield Question("tags", "names", partial(_tag_names, at=at), plain_differences)
    for tag, query in TAGS:
        yield Question("tags", f"{tag} {query}", partial(_tag_values, tag=tag, query=query, at=at), plain_differences)
    for trace in traces:
        yield Question("traces", trace.title, partial(_trace, trace_id=trace.trace_id), plain_differences)


def _selected(server: Server, query: str, names: Names, at: int) -> dict[str, Any]:
    return {
        f"{names.title(trace)} {names.span(span)}": sorted(
            f"{one['key']}={_plain(one.get('value', {}))}" for one in span.get("attributes", [])
        )
        for trace in server.search(query, at)
        for group in trace.get("spanSets", [])
        for span in group["spans"]
    }


def _summaries(server: Server, field: str, names: Names, at: int) -> dict[str, Any]:
    found = server.search("{ }", at)
    return {names.title(one): one.get(field) for one in found}


def _tag_names(server: Server, at: int) -> dict[str, Any]:
    answer = server.get("/api/v2/search/tags", start=at - 2 * SPAN_S, end=at + SPAN_S, limit=1000)
    return {
        f"{scope['name']} {tag}": "there"
        for scope in answer.get("scopes", [])
        if scope["name"] != "intrinsic"
        for tag in scope.get("tags", [])
    }


def _tag_values(server: Server, tag: str, query: str, at: int) -> dict[str, Any]:
    span = {"start": at - 2 * SPAN_S, "end": at + SPAN_S}
    answer = server.get(f"/api/v2/search/tag/{tag}/values", **span, **({"q": query} if query else {}))
    return {f"{one.get('type')} {one.get('value', '')}": "there" for one in answer.get("tagValues", [])}


def _trace(server: Server, trace_id: str) -> dict[str, Any]:
    trace = server.get(f"/api/v2/traces/{trace_id}")["trace"]
    found: Counter[str] = Counter()
    for resource in trace.get("resourceSpans", []):
        for scope in resource.get("scopeSpans", []):
            for span in scope["spans"]:
                found[
                    f"{span['spanId']} {span['name']} {span['startTimeUnixNano']} {len(span.get('attributes', []))}"
                ] += 1
    return dict(found)


def answer_differences(question: Question, ours: Server, theirs: Server) -> list[str]:
    """Ask both and return how their answers differ: not at all, when both refuse."""
    answers: dict[str, Any] = {}
    refusals: dict[str, str] = {}
    for side, server in (("ours", ours), ("theirs", theirs)):
        try:
            answers[side] = question.ask(server)
        except Refused as error:
            refusals[side] = str(error)
    if len(refusals) == 1:
        return [f"refused by {side} only: {text}" for side, text in refusals.items()]
    return question.differences(answers["ours"], answers["theirs"]) if answers else []


def compare(
    ours: Server, theirs: Server, at: int, subjects: Container[str]
) -> tuple[dict[str, tuple[int, int]], list[Difference]]:
    """Ask everything of some subjects; return per subject how many agree of how many, and the differences."""
    counts: dict[str, tuple[int, int]] = {}
    differences: list[Difference] = []
    for question in questions(at):
        if question.subject in subjects:
            lines = answer_differences(question, ours, theirs)
            agreed, asked = counts.get(question.subject, (0, 0))
            counts[question.subject] = (agreed + (not lines), asked + 1)
            if lines:
                shapes = [shape(line.partition(":")[0]) for line in lines]
                differences.append(Difference(question.subject, question.query, lines, shapes))
    return counts, differences


def send(urls: list[str], at: int) -> None:
    """Send all traces to each URL by OTLP/HTTP."""
    for url in urls:
        for body in requests(woods(at)):
            status, text = Server(url).request("POST", "/v1/traces", body, "application/x-protobuf")
            if status != http.client.OK:
                raise Refused(f"{url}: {status} {text!r}")


def wait(servers: Iterable[Server], at: int) -> None:
    """Wait until every server finds every span that was sent; say so of one that never does."""
    wanted = sum(1 for trace in woods(at) for _ in trace.spans)
    for server in servers:
        end = time.monotonic() + PATIENCE_S
        while True:
            found = sum(
                len(group["spans"]) for trace in server.search("{ }", at) for group in trace.get("spanSets", [])
            )
            if found >= wanted:
                break
            if time.monotonic() > end:
                print(f"of {wanted} spans only {found} are found", file=sys.stderr)
                break
            time.sleep(1)


def main() -> None:
    """Send or compare, as the arguments say."""
    subjects = [*SEARCHES, "mistakes", "selected", "metrics", "metrics, instant", "summaries", "tags", "traces"]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--at", type=int, required=True, help="Unix seconds at which the traces end: a full minute")
    parser.add_argument("--send", action="append", default=[], metavar="URL", help="where OTLP/HTTP is received")
    parser.add_argument("--ours", metavar="URL")
    parser.add_argument("--theirs", metavar="URL")
    parser.add_argument("--subject", action="append", choices=subjects, help="all, if not given")
    parser.add_argument("--json", type=Path, help="write all differences in full")
    options = parser.parse_args()
    send(options.send, options.at)
    if not (options.ours and options.theirs):
        return
    ours, theirs = Server(options.ours), Server(options.theirs)
    wait((ours, theirs), options.at)
    counts, differences = compare(ours, theirs, options.at, options.subject or subjects)
    for one in differences:
        print(f"\n{one.subject}: {one.query}")
        print("\n".join(f"    {line}" for line in one.lines[:SHOWN]))
        if len(one.lines) > SHOWN:
            print(f"    … and {len(one.lines) - SHOWN} more")
    told = Counter(kind for one in differences if one.subject.startswith("structural") for kind in set(one.shapes))
    print()
    for subject, (agreed, asked) in counts.items():
        print(f"{subject}: {agreed} of {asked} agree")
    for kind, queries in told.items():
        print(f"structural queries that differ over {kind}: {queries}")
    if options.json:
        options.json.write_text(
            json.dumps(
                [{"subject": d.subject, "query": d.query, "lines": d.lines} for d in differences],
                indent=1,
                ensure_ascii=False,
            )
        )


if __name__ == "__main__":
    main()
