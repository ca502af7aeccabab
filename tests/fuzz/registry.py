"""All fuzz targets by name, each imported when it is asked for: a fuzzer instruments what it imports."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from tests.fuzz.target import Target

ROOMS: Final = {
    "protobuf-traces": "protobuf",
    "protobuf-logs": "protobuf",
    "protobuf-metrics": "protobuf",
    "json-traces": "otlp_json",
    "json-logs": "otlp_json",
    "json-metrics": "otlp_json",
    "inflating": "inflating",
    "http1": "http1",
    "chunked": "http1",
    "http2": "http2",
    "hpack": "http2",
    "log-files": "log_files",
    "traceql": "traceql",
    "logql": "logql",
    "promql": "promql",
    "lines": "lines",
    "templates": "lines",
    "push": "push",
    "query-api": "query_api",
    "configuration": "configuration",
}
"""The module of each target."""


def load(name: str) -> Target:
    """Return a target by its name."""
    found: list[Target] = import_module(f"tests.fuzz.targets.{ROOMS[name]}").TARGETS
    return next(target for target in found if target.name == name)
