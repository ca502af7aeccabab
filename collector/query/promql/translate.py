"""From OTLP to Prometheus: names, units, types and labels of metrics.

The rules are those of the OpenTelemetry specification "Prometheus and OpenMetrics Compatibility", as the
Collector's prometheus exporter applies them by default (UnderscoreEscapingWithSuffixes): characters that
Prometheus does not know become underscores, the unit and `total` are appended, `{annotations}` are dropped,
`a/b` becomes `a_per_b`; `job` is service.namespace/service.name, `instance` is service.instance.id; resource
attributes stand in `target_info`; scope name and version in `otel_scope_name` and `otel_scope_version`.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from collector.otlp import records
from collector.otlp.block import EXPONENTIAL_HISTOGRAM, GAUGE, HISTOGRAM, SUM, SUMMARY

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.otlp.block import Block

Labels = tuple[tuple[str, str], ...]
"""A series' labels, sorted by name; the metric's name is `__name__`."""

CUMULATIVE, DELTA = 2, 1

_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "1": "",
    "%": "percent",
}
_PER_UNITS = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_WORDS = re.compile(r"[A-Za-z0-9:]+")
_NOT_LABEL = re.compile(r"[^A-Za-z0-9_]")

TYPE_NAMES = {
    "gauge": "gauge",
    "counter": "counter",
    "histogram": "histogram",
    "summary": "summary",
}


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family: its Prometheus name without `_bucket`, `_sum` or `_count`, and its type."""

    name: str
    type: str
    """counter, gauge, histogram or summary."""
    delta: bool
    """Points are differences, and are added up."""

    def sample_names(self) -> tuple[str, ...]:
        """The names that its series have."""
        if self.type == "histogram":
            return f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count"
        if self.type == "summary":
            return self.name, f"{self.name}_sum", f"{self.name}_count"
        return (self.name,)


def family(name: str, unit: str, kind: int, temporality: int, monotonic: bool) -> Family:
    """Return the family of an OTLP metric, by its data type's number in the `type` column."""
    is_counter = kind == SUM and monotonic
    delta = temporality == DELTA
    if kind == SUM and not monotonic:
        delta = False  # differences of a gauge cannot be added up without a start
    typed = {GAUGE: "gauge", SUM: "counter" if is_counter else "gauge", SUMMARY: "summary"}.get(kind, "histogram")
    return Family(metric_name(name, unit, kind, is_counter), typed, delta)


def metric_name(name: str, unit: str, kind: int, is_counter: bool) -> str:
    """Return the Prometheus name of an OTLP metric."""
    words = _WORDS.findall(name)
    main, _, per = unit.partition("/")
    if "{" not in main:
        word = _clean(_UNITS.get(main.strip(), main.strip()))
        if word and word not in words:
            words.append(word)
    if per and "{" not in per:
        word = _clean(_PER_UNITS.get(per.strip(), per.strip()))
        if word and word not in words:
            words += ["per", word]
    if is_counter:
        words = [*(word for word in words if word != "total"), "total"]
    elif kind == GAUGE and unit.strip() == "1":
        words = [*(word for word in words if word != "ratio"), "ratio"]
    made = "_".join(words)
    return f"_{made}" if made[:1].isdigit() else made


def _clean(unit: str) -> str:
    return "_".join(_WORDS.findall(unit.replace(":", "_")))


def label_name(name: str) -> str:
    """Return the Prometheus label name of an attribute's key."""
    made = _NOT_LABEL.sub("_", name)
    if made[:1].isdigit():
        return f"key_{made}"
    if made.startswith("_") and not made.startswith("__"):
        return f"key{made}"
    return made


def value_text(value: Any) -> str:
    """Write an AnyValue as a label's value: strings as they are, lists and maps as JSON."""
    plain = any_value(value)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if isinstance(plain, int):
        return str(plain)
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")) if plain is not None else ""


def any_value(value: Any) -> Any:
    """Return an AnyValue as plain Python; bytes in base64."""
    match value.WhichOneof("value"):
        case "array_value":
            return [any_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: any_value(pair.value) for pair in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None | "string_value_strindex":
            return None
        case which:
            return getattr(value, which)


def attribute_labels(attributes: Iterable[Any]) -> dict[str, str]:
    """Return attributes as labels; keys that become the same name have their values joined by `;`, sorted by key."""
    labels: dict[str, str] = {}
    seen: set[str] = set()
    for pair in sorted(attributes, key=lambda pair: pair.key):
        if pair.key in seen:
            continue  # of equal keys, one counts
        seen.add(pair.key)
        name, text = label_name(pair.key), value_text(pair.value)
        if name:
            labels[name] = f"{labels[name]};{text}" if name in labels else text
    return labels


def target_labels(resource: Any) -> dict[str, str]:
    """Return `job` and `instance` of a resource, as far as it has them."""
    found = {pair.key: value_text(pair.value) for pair in reversed(resource.attributes)}
    labels = {}
    if found.get("service.name"):
        space = found.get("service.namespace")
        labels["job"] = f"{space}/{found['service.name']}" if space else found["service.name"]
    if found.get("service.instance.id"):
        labels["instance"] = found["service.instance.id"]
    return labels


def target_info(resource: Any) -> Labels:
    """Return the labels of the resource's `target_info`; empty when nothing tells the target or nothing is left."""
    target = target_labels(resource)
    named = ("service.name", "service.namespace", "service.instance.id")
    rest = attribute_labels(pair for pair in resource.attributes if pair.key not in named)
    return sorted_labels("target_info", rest | target) if target and rest else ()


def scope_labels(scope: Any) -> dict[str, str]:
    """Return the labels that tell an instrumentation scope."""
    labels = {}
    if scope.name:
        labels["otel_scope_name"] = scope.name
    if scope.version:
        labels["otel_scope_version"] = scope.version
    return labels


def group_labels(block: Block, group: int) -> dict[str, str]:
    """Return what all points of a group have in common: target and scope."""
    return target_labels(records.resource(block, group)) | scope_labels(records.scope(block, group))


def sorted_labels(name: str, labels: dict[str, str]) -> Labels:
    """Return a series' labels in their order; empty values are absent labels."""
    return tuple(sorted([("__name__", name), *((key, value) for key, value in labels.items() if value)]))


def bucket_bounds(point: Any, kind: int) -> tuple[list[float], list[int]]:
    """Return upper bounds and cumulative counts of a histogram point, without the last bucket (+Inf).

    An exponential histogram's buckets become classic ones: bucket `i` of scale `s` ends at 2^((i + 1) / 2^s); the zero
    bucket ends at zero_threshold, and negative buckets come before it.
    """
    if kind == HISTOGRAM:
        total, counts = 0, []
        for count in list(point.bucket_counts)[: len(point.explicit_bounds)]:
            total += count
            counts.append(total)
        return list(point.explicit_bounds), counts
    assert kind == EXPONENTIAL_HISTOGRAM
    bounds: list[float] = []
    counts = []
    total = 0
    negative = point.negative
    for index in reversed(range(len(negative.bucket_counts))):
        total += negative.bucket_counts[index]
        bounds.append(-_bound(negative.offset + index, point.scale))
        counts.append(total)
    if point.zero_count or bounds:
        total += point.zero_count
        bounds.append(point.zero_threshold)
        counts.append(total)
    for index, count in enumerate(point.positive.bucket_counts):
        total += count
        bounds.append(_bound(point.positive.offset + index + 1, point.scale))
        counts.append(total)
    return bounds, counts


def _bound(index: int, scale: int) -> float:
    try:
        return float(2.0 ** (index * 2.0**-scale))
    except OverflowError:
        return float("inf")
