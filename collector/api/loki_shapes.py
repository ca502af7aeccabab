"""The shapes of Loki's answers: streams of lines, vectors, matrices and statistics, as its clients read them."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from collector.api.partial import lacking

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from starlette.requests import HTTPConnection

    from collector.query.logql.logs import Line
    from collector.query.logql.metrics import Value
    from collector.query.logql.source import Statistics
    from collector.query.logql.volumes import Volume
    from collector.store import View

CATEGORIZE: Final = "categorize-labels"
"""The encoding flag by which a client asks for a line's labels apart from its stream's."""


def is_categorized(connection: HTTPConnection) -> bool:
    """Tell whether a client asks for a line's labels apart from its stream's."""
    flags = connection.headers.get("x-loki-response-encoding-flags", "")
    return CATEGORIZE in (flag.strip() for flag in flags.split(","))


def success(data: Any, warnings: Mapping[str, list[str]] | None = None) -> bytes:
    """Return the JSON of an answer; `warnings` is what `warnings_of` has found."""
    return msgspec.json.encode({"status": "success", **(warnings or {}), "data": data})


def warnings_of(*views: View) -> dict[str, list[str]]:
    """Return the field `warnings` of an answer: what the views are known to lack. Empty when that is nothing."""
    reasons = lacking(*views)
    return {"warnings": reasons} if reasons else {}


def utc_text(ns: int) -> str:
    """Return a time for people: RFC 3339, to the second."""
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")


def streams(lines: list[Line], categorized: bool) -> list[dict[str, Any]]:
    """Group lines by their labels: the stream's alone if categorized, else the structured metadata among them."""
    found: dict[tuple[str, ...], list[list[Any]]] = {}
    for line in lines:
        value: list[Any] = [str(line.time), line.text]
        if categorized:
            labels = line.stream
            parts = {"structuredMetadata": line.metadata, "parsed": line.parsed}
            value.append({name: labels for name, labels in parts.items() if labels})
        else:
            labels = line.stream | line.metadata | line.parsed
        # Names and texts in turn: as tuples these are in the order of the pairs, and are compared in half the time.
        key: list[str] = []
        for name in sorted(labels):
            key += (name, labels[name])
        found.setdefault(tuple(key), []).append(value)
    return [
        {"stream": dict(zip(key[::2], key[1::2], strict=True)), "values": values}
        for key, values in sorted(found.items())
    ]


def instant(value: Value, time_ns: int) -> dict[str, Any]:
    """Return the answer of a metric query at one time, Unix ns: `vector` or `scalar`."""
    seconds = _seconds(time_ns)
    if isinstance(value, float):
        return {"resultType": "scalar", "result": [seconds, sample_text(value)]}
    return {
        "resultType": "vector",
        "result": [
            {"metric": dict(labels), "value": [seconds, sample_text(float(series.values[0]))]}
            for labels, series in value.items()
        ],
    }


def matrix(value: Value, times: NDArray[np.int64]) -> dict[str, Any]:
    """Return the answer of a metric query at some times, Unix ns: a `matrix`."""
    seconds = list(map(_seconds, times.tolist()))
    if isinstance(value, float):
        text = sample_text(value)
        return {"resultType": "matrix", "result": [{"metric": {}, "values": [[at, text] for at in seconds]}]}
    return {
        "resultType": "matrix",
        "result": [
            {
                "metric": dict(labels),
                "values": [
                    [at, sample_text(number)]
                    for at, number, present in zip(
                        seconds, series.values.tolist(), series.present.tolist(), strict=True
                    )
                    if present
                ],
            }
            for labels, series in value.items()
        ],
    }


def volumes_data(found: list[Volume], *, ranged: bool) -> dict[str, Any]:
    """Return volumes as a `vector`, or as a `matrix` of several intervals."""
    if ranged:
        result: list[dict[str, Any]] = [
            {"metric": dict(one.labels), "values": [[_seconds(time), str(size)] for time, size in one.samples]}
            for one in found
        ]
    else:
        result = [
            {"metric": dict(one.labels), "value": [_seconds(time), str(size)]}
            for one in found
            for time, size in one.samples[:1]
        ]
    return {"resultType": "matrix" if ranged else "vector", "result": result, "stats": {}}


def sample_text(value: float) -> str:
    """Return a sample's value as Prometheus writes it: the shortest digits without an exponent, NaN, +Inf, -Inf."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value).removesuffix(".0")
    return np.format_float_positional(value, trim="-") if "e" in text else text


def _seconds(ns: int) -> int | float:
    """Return Unix seconds to the millisecond, which is as fine as Prometheus' times are."""
    seconds, rest = divmod(ns // 1_000_000, 1000)
    return seconds + rest / 1000 if rest else seconds


def statistics_data(statistics: Statistics, seconds: float, entries: int) -> dict[str, Any]:
    """Return Loki's statistics. The ring stands for its ingesters' head chunks, the log for its store."""
    lines = statistics.ring_lines + statistics.log_lines
    size = statistics.ring_bytes + statistics.log_bytes
    return {
        "summary": {
            "bytesProcessedPerSecond": round(size / seconds) if seconds > 0 else 0,
            "linesProcessedPerSecond": round(lines / seconds) if seconds > 0 else 0,
            "totalBytesProcessed": size,
            "totalLinesProcessed": lines,
            "execTime": seconds,
            "queueTime": 0,
            "totalEntriesReturned": entries,
        },
        "ingester": {"headChunkBytes": statistics.ring_bytes, "headChunkLines": statistics.ring_lines},
        "store": {"decompressedBytes": statistics.log_bytes, "decompressedLines": statistics.log_lines},
    }
