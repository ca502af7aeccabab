"""All fuzz targets by name."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets import (
    configuration,
    http1,
    http2,
    inflating,
    log_files,
    logql,
    otlp_json,
    promql,
    protobuf,
    query_api,
    traceql,
)

TARGETS: dict[str, Target] = {
    target.name: target
    for room in (
        *(protobuf, otlp_json, inflating, http1, http2, log_files),
        *(traceql, logql, promql, query_api, configuration),
    )
    for target in room.TARGETS
}
