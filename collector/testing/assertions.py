"""What a test asks of a server: TraceQL of traces, LogQL of logs, PromQL of metrics, over the server's own query API.

The same for each signal: `one(q)` returns the one thing that matches, `all(q)` what matches, at least one thing, and
`none(q)` finds that nothing does. Exporters work in the background, so `one` and `all` look again whenever something
arrives, until they are content or `wait` seconds are over; then AssertionError tells what was received instead.
Before each look, the providers that OpenTelemetry's API of this process has are flushed, so that a test waits for no
batch to be due. A query that cannot be run raises InvalidQuery at once.

An export that is acknowledged is found by the next query: nothing here sleeps and hopes.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from collector.errors import InvalidQuery
from collector.testing.spans import LogRecord, Sample, Span, Trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.testing.server import Server
    from collector.testing.strict import Violation

WAIT_S: Final = 5.0
"""How long assertions wait, unless told."""
LOOK_S: Final = 0.2
"""The longest time between two looks: spans that end in other threads of this process are flushed by the next."""
FLUSH_S: Final = 5.0
"""How long one flush of a provider may take."""
QUERY_TIMEOUT_S: Final = 60.0

TRACES_MAX, SPANS_MAX, LINES_MAX = 10_000, 1000, 5000
"""Traces, spans of each, and log lines that one query may match: the API's limits."""
SHOWN_MAX: Final = 20
"""Traces, log lines or series that a failure shows."""
_YEAR_NS: Final = 365 * 86_400 * 10**9

Found = TypeVar("Found", Span, LogRecord, Sample)


class Client:
    """The server's query API."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def get(self, path: str, parameters: Mapping[str, str] | None = None, **headers: str) -> bytes:
        """GET a path with parameters, and headers (`Accept_Language` is Accept-Language).

        Raises InvalidQuery when the answer is 400, AssertionError when it is something else than 200.
        """
        __tracebackhide__ = True
        target = f"{quote(path)}?{urlencode(parameters)}" if parameters else quote(path)
        connection = http.client.HTTPConnection(self.server.api, timeout=QUERY_TIMEOUT_S)
        try:
            connection.request("GET", target, headers={key.replace("_", "-"): one for key, one in headers.items()})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if response.status == 400:
            raise InvalidQuery(_reason(body))
        assert response.status == 200, f"{path}: {response.status}: {_reason(body)}"
        return body

    def json(self, path: str, parameters: Mapping[str, str] | None = None, **headers: str) -> Any:
        """Return the answer's JSON."""
        __tracebackhide__ = True
        return json.loads(self.get(path, parameters, **headers))


def _reason(body: bytes) -> str:
    text = body.decode(errors="replace").strip()
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text


class Assertions(Generic[Found]):
    """The assertions about one signal."""

    signal = ""
    noun = ""

    def __init__(self, client: Client, wait: float) -> None:
        """`wait` is in seconds, for assertions that are not told another."""
        self._client = client
        self._clock = client.server.clock
        self._wait = wait

    def find(self, query: str) -> list[Found]:
        """Return what matches now."""
        raise NotImplementedError

    def received(self) -> str:
        """Return what has been received, in lines."""
        raise NotImplementedError

    def one(self, query: str, *, wait: float | None = None) -> Found:
        """Return the only match; AssertionError when there is none in time, or more than one."""
        __tracebackhide__ = True
        return self._until(query, "one", lambda found: len(found) == 1, lambda found: len(found) > 1, wait)[0]

    def all(self, query: str, *, count: int | None = None, wait: float | None = None) -> list[Found]:
        """Return all matches, oldest first: as soon as there is one, or as there are `count`; AssertionError if not.

        More than `count` are an error at once.
        """
        __tracebackhide__ = True
        if count is None:
            return self._until(query, "any", bool, lambda found: False, wait)
        wanted = count
        return self._until(
            query, str(wanted), lambda found: len(found) == wanted, lambda found: len(found) > wanted, wait
        )

    def none(self, query: str, *, wait: float = 0.0) -> None:
        """Find that nothing matches, now or within `wait` seconds; AssertionError if something does."""
        __tracebackhide__ = True
        end = self._clock.monotonic() + wait
        while True:
            seen = self._requests()
            flush()
            found = self.find(query)
            if found:
                raise AssertionError(f"{len(found)} {self.noun} match {query}, and none should:\n{_lines(found)}")
            if not self._more(seen, end):
                return

    def _until(
        self,
        query: str,
        wanted: str,
        enough: Callable[[list[Found]], bool],
        too_many: Callable[[list[Found]], bool],
        wait: float | None,
    ) -> list[Found]:
        __tracebackhide__ = True
        wait = self._wait if wait is None else wait
        end = self._clock.monotonic() + wait
        while True:
            seen = self._requests()
            flush()
            found = self.find(query)
            if enough(found):
                return found
            if too_many(found) or not self._more(seen, end):
                break
        if found:
            told = f"{len(found)} {self.noun} match {query}, not {wanted}:\n{_lines(found)}"
        else:
            told = f"no {self.noun} match {query}{f' after {wait:g} s' if wait else ''}"
        raise AssertionError(f"{told}\n{self.received()}{self._circumstances()}")

    def _requests(self) -> int:
        return sum(self._client.server.violations.requests.values())

    def _more(self, seen: int, end: float) -> bool:
        """Wait until there is reason to look again; tell whether there is time left for that."""
        left = end - self._clock.monotonic()
        if left <= 0:
            return False
        changed = self._client.server.violations.changed
        with changed:
            changed.wait_for(lambda: self._requests() != seen, min(left, LOOK_S))
        return True

    def _circumstances(self) -> str:
        """Return what explains that something is missing."""
        server = self._client.server
        lines = []
        requests = server.violations.requests
        if not requests:
            lines.append(
                f"No export has arrived since the test began: OTLP/HTTP is received on http://{server.http}, "
                f"OTLP/gRPC on {server.grpc}."
            )
        elif self.signal not in requests:
            lines.append(f"Exports that have arrived are of {', '.join(requests)} only.")
        if server.evicted():
            lines.append(f"{server.evicted()} older records had no room any more.")
        lines += [f"Not accepted: {one}" for one in server.violations.found[:SHOWN_MAX]]
        return "".join(f"\n{line}" for line in lines)


class Traces(Assertions[Span]):
    """Assertions about spans, in TraceQL: a match is a span of a spanset that the query returns."""

    signal = "traces"
    noun = "spans"

    def find(self, query: str) -> list[Span]:
        """Return the spans that match now, oldest first."""
        __tracebackhide__ = True
        answer = self._client.json("/api/search", {"q": query, "limit": str(TRACES_MAX), "spss": str(SPANS_MAX)})
        found = []
        for summary in answer["traces"]:
            sets = summary.get("spanSets") or [summary["spanSet"]]
            for one in sets:
                if one["matched"] > len(one["spans"]):
                    raise InvalidQuery(f"{one['matched']} spans of one trace match, and {SPANS_MAX} are looked at")
            matched = {span["spanID"].rjust(16, "0") for one in sets for span in one["spans"]}
            found += [span for span in self.trace(summary["traceID"]).spans if span.span_id in matched]
        return sorted(found, key=lambda span: span.start_ns)

    def trace(self, trace_id: str) -> Trace:
        """Return a trace by its id, in hex; AssertionError when no span of it was received."""
        return Trace(self._client.get(f"/api/traces/{trace_id}", Accept="application/protobuf"))

    def received(self) -> str:
        """Return the newest traces as trees."""
        summaries = self._client.json("/api/search", {"q": "{}", "limit": str(SHOWN_MAX + 1), "spss": "1"})["traces"]
        lines = [self.trace(one["traceID"]).text() for one in reversed(summaries[:SHOWN_MAX])]
        if len(summaries) > SHOWN_MAX:
            lines.insert(0, "… and older traces")
        return "Received:\n" + "\n".join(lines) if lines else "No span was received."


class Logs(Assertions[LogRecord]):
    """Assertions about log records, in LogQL: a match is a line that the query returns."""

    signal = "logs"
    noun = "log records"

    def find(self, query: str) -> list[LogRecord]:
        """Return the records that match now, oldest first."""
        __tracebackhide__ = True
        answer = self._client.json(
            "/loki/api/v1/query_range",
            {
                "query": query,
                "start": "0",
                "end": str(self._clock.now_ns() + _YEAR_NS),
                "limit": str(LINES_MAX),
                "direction": "forward",
            },
            X_Loki_Response_Encoding_Flags="categorize-labels",
        )["data"]
        if answer["resultType"] != "streams":
            raise InvalidQuery("a query that returns log lines is wanted here")
        found = [
            LogRecord(
                text,
                int(at),
                MappingProxyType(stream["stream"]),
                MappingProxyType(rest.get("structuredMetadata", {})),
            )
            for stream in answer["result"]
            for at, text, rest in stream["values"]
        ]
        if len(found) >= LINES_MAX:
            raise InvalidQuery(f"{LINES_MAX} log records match or more, which is the limit")
        return sorted(found, key=lambda one: one.time_ns)

    def received(self) -> str:
        """Return the newest log records."""
        return _received("log record", self.find('{service_name=~".+"}'))


class Metrics(Assertions[Sample]):
    """Assertions about metrics, in PromQL: a match is a sample of the instant query's answer, evaluated now."""

    signal = "metrics"
    noun = "samples"

    def find(self, query: str) -> list[Sample]:
        """Return the samples now; a scalar is one without labels."""
        __tracebackhide__ = True
        data = self._client.json("/api/v1/query", {"query": query})["data"]
        if data["resultType"] == "scalar":
            return [Sample(MappingProxyType({}), float(data["result"][1]))]
        if data["resultType"] != "vector":
            raise InvalidQuery(f"a query that returns a vector or a number is wanted here, not a {data['resultType']}")
        return [Sample(MappingProxyType(one["metric"]), float(one["value"][1])) for one in data["result"]]

    def value(self, query: str, *, equals: Any = None, wait: float | None = None) -> float:
        """Return the value of the only sample; with `equals`, wait until it is that (pytest.approx is welcome)."""
        __tracebackhide__ = True
        if equals is None:
            return self.one(query, wait=wait).value
        return self._until(
            query,
            f"one that is {equals}",
            lambda found: len(found) == 1 and bool(found[0].value == equals),
            lambda found: len(found) > 1,
            wait,
        )[0].value

    def received(self) -> str:
        """Return the newest series."""
        return _received("series", self.find('{__name__=~".+"}'))


def _received(noun: str, found: Sequence[LogRecord | Sample]) -> str:
    if not found:
        return f"No {noun} was received." if noun != "series" else "No data point was received."
    return "Received:\n" + _lines(found[-SHOWN_MAX:]) + ("\n  … and others" if len(found) > SHOWN_MAX else "")


def _lines(found: Sequence[Span | LogRecord | Sample]) -> str:
    lines = [f"  {one.line()}" for one in found[:SHOWN_MAX]]
    if len(found) > SHOWN_MAX:
        lines.append(f"  … and {len(found) - SHOWN_MAX} more")
    return "\n".join(lines)


def flush() -> None:
    """Flush the providers of OpenTelemetry's API in this process, if there are any: what has ended is exported now."""
    for module, getter in (
        ("opentelemetry.trace", "get_tracer_provider"),
        ("opentelemetry._logs", "get_logger_provider"),
        ("opentelemetry.metrics", "get_meter_provider"),
    ):
        if module in sys.modules and "opentelemetry.sdk" in sys.modules:
            provider = getattr(sys.modules[module], getter)()
            if hasattr(provider, "force_flush"):
                provider.force_flush(int(FLUSH_S * 1000))


class Otlp:
    """What the fixture `otlp` gives: a server's addresses, and assertions about what it has received."""

    def __init__(self, server: Server, wait: float = WAIT_S) -> None:
        """Ask a running server; `wait` is in seconds."""
        self._server = server
        client = Client(server)
        self.traces: Final = Traces(client, wait)
        self.logs: Final = Logs(client, wait)
        self.metrics: Final = Metrics(client, wait)

    @property
    def endpoint(self) -> str:
        """OTLP/HTTP's base URL, as OTEL_EXPORTER_OTLP_ENDPOINT has it."""
        return self._server.endpoint

    @property
    def grpc_endpoint(self) -> str:
        """OTLP/gRPC's URL, as OTEL_EXPORTER_OTLP_ENDPOINT has it when the protocol is `grpc`."""
        return self._server.grpc_endpoint

    @property
    def api(self) -> str:
        """The query API's base URL: Tempo's, Loki's and Prometheus' APIs."""
        return f"http://{self._server.api}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables that make an SDK of any language send here, by OTLP/HTTP and without long waits for a batch."""
        return self._server.environment

    @property
    def grpc_environment(self) -> dict[str, str]:
        """The same by OTLP/gRPC."""
        return self._server.grpc_environment

    @property
    def violations(self) -> tuple[Violation, ...]:
        """What was not accepted since the test began: it fails the test at its end."""
        return self._server.violations.found

    def forgive(self) -> tuple[Violation, ...]:
        """Return the violations so far and forget them: for a test of a client that does wrong."""
        return self._server.violations.take()

    def clear(self) -> None:
        """Forget what was received so far."""
        flush()
        self._server.clear()

    def get(self, path: str, **parameters: str) -> Any:
        """Ask the query API anything that answers in JSON, such as `/api/metrics/query_range`."""
        return Client(self._server).json(path, parameters)
