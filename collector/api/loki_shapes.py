"""The shapes of Loki's answers: streams of lines, vectors, matrices and statistics, as its clients read them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from starlette.requests import HTTPConnection

    from collector.query.logql.logs import Line
    from collector.query.logql.metrics import Value
    from collector.query.logql.source import Statistics

CATEGORIZE: Final = "categorize-labels"
"""The encoding flag by which a client asks for a line's labels apart from its stream's."""


def is_categorized(connection: HTTPConnection) -> bool:
    """Tell whether a client asks for a line's labels apart from its stream's."""
    flags = connection.headers.get("x-loki-response-encoding-flags", "")
    return CATEGORIZE in (flag.strip() for flag in flags.split(","))


def success(data: Any) -> bytes:
    """Return the JSON of an answer."""
    return msgspec.json.encode({"status": "success", "data": data})


def streams(lines: list[Line], categorized: bool) -> list[dict[str, Any]]:
    """Group lines by their labels: the stream's alone if categorized, else the structured metadata among them."""
    streams: dict[tuple[tuple[str, str], ...], list[list[Any]]] = {}
    for line in lines:
        value: list[Any] = [str(line.time), line.text]
        if categorized:
            labels = line.stream
            value.append({"structuredMetadata": line.metadata} if line.metadata else {})
        else:
            labels = line.stream | line.metadata
        streams.setdefault(tuple(sorted(labels.items())), []).append(value)
    return [{"stream": dict(labels), "values": values} for labels, values in sorted(streams.items())]


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
