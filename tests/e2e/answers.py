"""What the query APIs must answer after an SDK has sent the scenario of python_sdk.py and node/send.mjs.

`sent` is the sender's own description, in the form of records.py. Traces are compared with it field by field. What
Loki's and Prometheus' APIs make of logs and metrics is written down here as tables; that nothing was lost on the
way there is compared once more in the log on disk, through `ringtail wal cat`.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import ParseDict
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from prometheus_client.parser import text_string_to_metric_families

from tests.daemon import COMMAND, Daemon, environment
from tests.e2e import records
from tests.e2e.records import Plain

NOUNS = {"traces": "spans", "logs": "log_records", "metrics": "metric_points"}

LOG_METADATA = {
    "text": 'Grüße, 世界 "quoted" \\ back\nslash',
    "int": "42",
    "int_negative": "-7",
    "int_large": "1099511627777",
    "int_safe": "9007199254740991",
    "double": "2.5",
    "double_small": "1e-9",
    "bool_true": "true",
    "bool_false": "false",
    "array_text": '["a","b",""]',
    "array_int": "[1,2,3]",
    "array_double": "[0.5,1.5]",
    "array_bool": "[true,false]",
    "order_id": "17",
    "nested_depth_leaf": "1",
}
"""The attributes of the six log records inside the trace, as Loki names and writes them; `empty` is no label."""

SERIES = {
    ("http_requests_total", ("http_route", "/checkout"), ("http_status_code", "200")): 7,
    ("http_requests_total", ("http_route", "/checkout"), ("http_status_code", "500")): 1,
    ("energy_joules_total", ("zone", "a")): 0.5,
    ("connections_open", ("pool", "main")): -2,
    ("temperature_celsius", ("heated", "true"), ("room", "kitchen")): 21.75,
    ("queue_length", ("queue", "q1")): 12,
    ("http_latency_seconds_bucket", ("http_route", "/checkout"), ("le", 1.0)): 1,
    ("http_latency_seconds_bucket", ("http_route", "/checkout"), ("le", 10.0)): 3,
    ("http_latency_seconds_bucket", ("http_route", "/checkout"), ("le", 100.0)): 4,
    ("http_latency_seconds_bucket", ("http_route", "/checkout"), ("le", float("inf"))): 5,
    ("http_latency_seconds_count", ("http_route", "/checkout")): 5,
    ("http_latency_seconds_sum", ("http_route", "/checkout")): 562.5,
    ("rpc_size_bytes_count", ("method", "Get")): 6,
    ("rpc_size_bytes_sum", ("method", "Get")): 1001007,
}
"""Every series of the metrics but `target_info` and the buckets of `rpc.size`, by name and own labels."""

RPC_SIZES = (0, 1, 2, 4, 1000, 1e6)
"""What was recorded in the exponential histogram `rpc.size`."""


@contextmanager
def accounted(daemon: Daemon, transport: str, sent_of: list[Plain]) -> Iterator[None]:
    """Assert that what is sent inside is counted as received, each record once, and nothing as refused.

    `sent_of` gets the description of what was sent before the block ends.
    """
    before = _received(daemon)
    yield
    after = _received(daemon)
    (sent,) = sent_of
    counts = {
        "traces": len(sent["spans"]),
        "logs": len(sent["logs"]),
        "metrics": sum(len(metric["points"]) for metric in sent["metrics"]),
    }
    for signal, count in counts.items():
        grown = {key: value - before[key] for key, value in after.items() if key[0] == signal and value != before[key]}
        assert grown == {(signal, "accepted", transport): count}
    stats = daemon.stats()
    for signal, figures in stats.items():
        total = sum(value for (name, fate, _), value in after.items() if name == signal and fate == "accepted")
        assert figures["log"]["next_offset"] == figures["records"] + figures["evicted"] == total


def _received(daemon: Daemon) -> dict[tuple[str, str, str], float]:
    """Return the receivers' counters by (signal, accepted or refused, transport)."""
    text = daemon.get("/metrics").body.decode()
    values = {
        (sample.name, sample.labels.get("transport", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.labels.get("receiver", "otlp") == "otlp"  # Loki's pushes are counted apart
    }
    return {
        (signal, fate, transport): values[f"otelcol_receiver_{fate}_{noun}_total", transport]
        for signal, noun in NOUNS.items()
        for fate in ("accepted", "refused")
        for transport in ("grpc", "http")
    }


def service_of(sent: Plain) -> str:
    """Return the service that sent it."""
    return str(sent["resource"]["service.name"]["stringValue"])


# --- traces -----------------------------------------------------------------------------------------------------


def assert_traces(daemon: Daemon, sent: Plain) -> None:
    """Every span is found by its trace and by search, with all that it was sent with."""
    traces: dict[str, list[Plain]] = defaultdict(list)
    for span in sent["spans"]:
        traces[span["traceId"]].append(span)
    assert len(traces) == 2
    for trace_id, spans in traces.items():
        for data in _trace_answers(daemon, trace_id):
            found = []
            for resource, scope, some in records.containers(data):
                assert resource == sent["resource"]
                assert scope == sent["scope"]
                found += some
            assert _by_id(found) == _by_id(spans)
    assert daemon.get(f"/api/v2/traces/{'f' * 32}").code == 404
    _assert_search(daemon, sent)


def _by_id(spans: list[Plain]) -> dict[str, Plain]:
    found = {span["spanId"]: span for span in spans}
    assert len(found) == len(spans), "a span stands twice"
    return found


def _trace_answers(daemon: Daemon, trace_id: str) -> Iterator[TracesData]:
    """Yield the trace as both versions of the API answer it, in JSON and in protobuf."""
    protobuf = {"Accept": "application/protobuf"}
    answer = daemon.get(f"/api/v2/traces/{trace_id}").json()
    yield ParseDict(answer["trace"], TracesData())
    answer = daemon.get(f"/api/traces/{trace_id}").json()
    yield ParseDict({"resourceSpans": answer["batches"]}, TracesData())
    # tempopb.TraceByIDResponse: the trace is field 1
    response = Empty.FromString(daemon.get(f"/api/v2/traces/{trace_id}", protobuf).body)
    fields = {field.field_number: field.data for field in UnknownFieldSet(response)}
    yield TracesData.FromString(fields[1])
    yield TracesData.FromString(daemon.get(f"/api/traces/{trace_id}", protobuf).body)


def search(daemon: Daemon, query: str) -> dict[str, Plain]:
    """Return the spans that a TraceQL search finds, by span id."""
    answer = daemon.get("/api/search?" + urlencode({"q": query, "limit": 1000, "spss": 1000})).json()
    found = {}
    for trace in answer["traces"]:
        for span in trace["spanSet"]["spans"]:
            assert span["spanID"] not in found
            found[span["spanID"]] = span | {"trace": trace}
    return found


def _assert_search(daemon: Daemon, sent: Plain) -> None:
    service = json.dumps(service_of(sent))
    found = search(daemon, f"{{ resource.service.name = {service} }}")
    assert found.keys() == {span["spanId"] for span in sent["spans"]}
    for span in sent["spans"]:
        answer = found[span["spanId"]]
        assert answer["trace"]["traceID"] == span["traceId"]
        assert answer["name"] == span["name"]
        assert answer["startTimeUnixNano"] == span["startTimeUnixNano"]
        assert int(answer["durationNanos"]) == int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
    root = next(span for span in sent["spans"] if span["name"].startswith("GET"))
    rooted = found[root["spanId"]]["trace"]
    assert (rooted["rootServiceName"], rooted["rootTraceName"]) == (service_of(sent), root["name"])

    failing = next(span for span in sent["spans"] if span["status"]["code"] == 2)
    conditions = {
        'name = "SELECT orders"': failing,
        "status = error": failing,
        'statusMessage = "the database hung up"': failing,
        "kind = client": failing,
        'span.db.system = "postgresql"': failing,
        "kind = server": root,
    }
    for key, value in root["attributes"].items():
        ((kind, plain),) = value.items()
        if kind != "arrayValue":
            conditions[f"span.{key} = {plain if kind == 'intValue' else json.dumps(plain, ensure_ascii=False)}"] = root
    assert len(conditions) >= 16
    for condition, span in conditions.items():
        hits = search(daemon, f"{{ resource.service.name = {service} && {condition} }}")
        assert hits.keys() == {span["spanId"]}, condition
    of_resource = "resource.host.cpus = 2 && resource.deployment.canary = true"
    assert search(daemon, f"{{ resource.service.name = {service} && {of_resource} }}").keys() == found.keys()


# --- logs -------------------------------------------------------------------------------------------------------


def loki_lines(daemon: Daemon, query: str, **parameters: Any) -> list[tuple[Plain, list[Any]]]:
    """Return (stream labels, entry) of every line that a LogQL query finds, in the order of the answer."""
    encoded = urlencode({"query": query, "limit": 5000, **parameters})
    headers = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
    data = daemon.get(f"/loki/api/v1/query_range?{encoded}", headers).json()["data"]
    assert data["resultType"] == "streams"
    return [(stream["stream"], entry) for stream in data["result"] for entry in stream["values"]]


def assert_logs(daemon: Daemon, sent: Plain) -> None:
    """Every log record is found by its stream, newest first, with its line and its structured metadata."""
    service = service_of(sent)
    labels = {
        "service_name": service,
        "service_namespace": "e2e",
        "service_instance_id": sent["resource"]["service.instance.id"]["stringValue"],
    }
    # SDKs send in order; of equal times the later record is the newer
    newest_first = sorted(enumerate(sent["logs"]), key=lambda one: (_time(one[1]), one[0]), reverse=True)
    expected = [_entry(log, sent) for _, log in newest_first]
    selector = f'{{service_name="{service}"}}'
    lines = loki_lines(daemon, selector)
    assert [stream for stream, _ in lines] == [labels] * len(expected)
    assert [entry for _, entry in lines] == expected

    traced = [log for log in sent["logs"] if log["traceId"]]
    assert len(traced) == 6
    (trace_id,) = {log["traceId"] for log in traced}
    for query, count in {
        f'{selector} | trace_id="{trace_id}"': 6,
        f'{selector} |= "ERROR of order"': 1,
        f'{selector} |~ "(WARN|FATAL) of"': 2,
        f'{selector} != "of order 17"': 2,
        f'{selector} | event_name="order.placed"': 1,
        f'{selector} | severity_text=~"DEBUG|INFO" | int="42"': 2,
    }.items():
        assert len(loki_lines(daemon, query)) == count, query


def _time(log: Plain) -> int:
    """Return a record's main time: the observed one when it has no other."""
    return int(log["timeUnixNano"]) or int(log["observedTimeUnixNano"])


LEVELS = ("unknown", "trace", "debug", "info", "warn", "error", "fatal")


def _entry(log: Plain, sent: Plain) -> list[Any]:
    """Return a record as Loki's API has it: time, line, and structured metadata."""
    if "stringValue" in log["body"]:
        line = log["body"]["stringValue"]
    else:
        line = '{"count":2,"message":"a body that is a map","parts":[1,"two",3.5]}'
    number = log["severityNumber"]
    metadata = {
        # an observed time that is the line's time is not told again
        "observed_timestamp": log["observedTimeUnixNano"] if int(log["timeUnixNano"]) else "",
        "scope_name": sent["scope"]["name"],
        "scope_version": "1.2.3",
        "host_cpus": "2",
        "deployment_canary": "true",
        "detected_level": LEVELS[(number + 3) // 4],
        "severity_number": str(number or ""),
        "severity_text": log["severityText"],
        "flags": str(log["flags"] or ""),
        "trace_id": log["traceId"],
        "span_id": log["spanId"],
        "event_name": log["eventName"],
    }
    if log["attributes"]:
        metadata |= LOG_METADATA
    return [str(_time(log)), line, {"structuredMetadata": {key: value for key, value in metadata.items() if value}}]


# --- metrics ----------------------------------------------------------------------------------------------------


def instant(daemon: Daemon, query: str, time_ns: int) -> dict[frozenset[tuple[str, str]], float]:
    """Return the series of an instant PromQL query: labels and value."""
    data = daemon.get("/api/v1/query?" + urlencode({"query": query, "time": time_ns / 1e9})).json()["data"]
    assert data["resultType"] == "vector"
    found = {frozenset(one["metric"].items()): float(one["value"][1]) for one in data["result"]}
    assert len(found) == len(data["result"]), "a series stands twice"
    return found


def assert_metrics(daemon: Daemon, sent: Plain) -> None:
    """Every point is found as Prometheus' series, with its labels and its value, and no other series is there."""
    newest = max(int(point["timeUnixNano"]) for metric in sent["metrics"] for point in metric["points"])
    job = f"e2e/{service_of(sent)}"
    target = {"job": job, "instance": sent["resource"]["service.instance.id"]["stringValue"]}
    common = target | {"otel_scope_name": sent["scope"]["name"], "otel_scope_version": "1.2.3"}

    found: dict[tuple[Any, ...], float] = {}
    buckets: dict[float, float] = {}
    infos = []
    for labels, value in instant(daemon, f'{{job="{job}"}}', newest + 10**9).items():
        own = dict(labels)
        name = own.pop("__name__")
        if name == "target_info":
            infos.append((own, value))
            continue
        assert {key: own.pop(key) for key in common} == common
        if name == "rpc_size_bytes_bucket":
            assert own.pop("method") == "Get"
            buckets[float(own.pop("le"))] = value
            assert not own
            continue
        typed = {key: float(text) if key == "le" else text for key, text in own.items()}
        found[name, *sorted(typed.items())] = value
    assert found == SERIES
    assert infos == [(target | {"host_cpus": "2", "deployment_canary": "true"}, 1.0)]
    # classic buckets of an exponential histogram count what is at most their bound
    assert len(buckets) > 5
    assert buckets[float("inf")] == len(RPC_SIZES)
    assert buckets == {bound: sum(size <= bound for size in RPC_SIZES) for bound in buckets}
    one = instant(daemon, f'http_requests_total{{job="{job}",http_status_code=~"5.."}}', newest + 10**9)
    assert list(one.values()) == [1]


# --- the log on disk --------------------------------------------------------------------------------------------


def assert_logged(daemon: Daemon, sent: Plain) -> None:
    """The log has every record exactly as it was sent, and each once; read beside the running daemon."""
    expected = {"traces": sent["spans"], "logs": sent["logs"], "metrics": sent["metrics"]}
    for signal, data in (("traces", TracesData), ("logs", LogsData), ("metrics", MetricsData)):
        output = subprocess.run(
            [*COMMAND, "wal", "cat", str(daemon.data), "--signal", signal, "--limit", "100000"],
            check=True,
            capture_output=True,
            env=environment(),
        ).stdout
        found = []
        for line in output.decode().splitlines():
            for resource, scope, some in records.containers(ParseDict(_with_ids(json.loads(line)), data())):
                if resource["service.name"] == sent["resource"]["service.name"]:
                    assert resource == sent["resource"]
                    assert scope == sent["scope"]
                    found += some
        assert _sorted(found) == _sorted(expected[signal])


IDS = ("traceId", "spanId", "parentSpanId")


def _with_ids(node: Any) -> Any:
    """Return OTLP/JSON, where ids are hexadecimal, as protobuf's JSON, where they are base64 as all bytes are."""
    if isinstance(node, list):
        return [_with_ids(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {
        key: base64.b64encode(bytes.fromhex(value)).decode() if key in IDS else _with_ids(value)
        for key, value in node.items()
    }


def _sorted(some: list[Plain]) -> list[Plain]:
    return sorted(some, key=lambda one: json.dumps(one, sort_keys=True))


def assert_everything(daemon: Daemon, sent: Plain) -> None:
    """All of the above."""
    assert_traces(daemon, sent)
    assert_logs(daemon, sent)
    assert_metrics(daemon, sent)
    assert_logged(daemon, sent)
