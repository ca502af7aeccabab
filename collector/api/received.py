"""`/metrics/received`: the newest value of every received series, for a Prometheus to scrape.

What the Collector's prometheus exporter does: names, units, `target_info`, `job` and `instance` by the same rules as
queries (`query/promql/translate.py`); a series is exposed until it has had no point for five minutes, or its newest
point says that there is no value. Reads the ring only, never the log. A family whose name is already taken by
another type is left out, and so are delta series, whose newest point is no total; comments at the end count both.

Text format 0.0.4, or OpenMetrics when the client accepts it; that one carries exemplars.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from starlette.routing import BaseRoute, Route

from collector.api.exposition import Exposed, exposed, exposition, label_text, line, wants_openmetrics
from collector.otlp import records
from collector.otlp.block import EXPONENTIAL_HISTOGRAM, HISTOGRAM, NO_RECORDED_VALUE, SUMMARY, Block
from collector.query.promql.exemplars import exemplar_labels, exemplar_value, placed
from collector.query.promql.series import family_of, float_text, samples_of
from collector.query.promql.translate import attribute_labels, group_labels, sorted_labels, target_info
from collector.query.slices import slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from starlette.requests import Request
    from starlette.responses import Response

    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.store import Store, View

EXPIRATION_NS = 300 * 10**9
"""How long a series is exposed after its newest point (`metric_expiration` of the Collector's exporter)."""

_DISTRIBUTIONS = (HISTOGRAM, EXPONENTIAL_HISTOGRAM, SUMMARY)


def routes(stores: Mapping[str, Store], engine: Engine) -> list[BaseRoute]:
    """Return the route over the store of metrics."""
    store = stores["metrics"]

    async def received(request: Request) -> Response:
        openmetrics = wants_openmetrics(request)
        with store.view(ring_only=True) as view:
            body = await engine.run(expose, view, engine.clock.now_ns() - EXPIRATION_NS, openmetrics)
        return exposed(body, openmetrics=openmetrics)

    return [Route("/metrics/received", received)]


def expose(deadline: Deadline, view: View, since_ns: int, openmetrics: bool) -> bytes:
    """Write the newest value of each series with a point since then."""
    families: dict[str, Exposed] = {}
    conflicts, deltas = 0, 0
    for block, row in _newest(deadline, view, since_ns):
        group = int(block.column("group")[row])
        found = family_of(block, group)
        if block.column("flags")[row] & NO_RECORDED_VALUE or not found.name:
            continue
        resource = records.resource(block, group)
        info = target_info(resource)
        if info:
            target = families.setdefault("target_info", Exposed("gauge", "Target metadata"))
            target.lines[("target_info", info)] = line("target_info", info, 1.0, "")
        if found.delta:
            deltas += 1
            continue
        family = families.get(found.name)
        if family is None:
            metric = records.metric(block, group)
            family = families[found.name] = Exposed(
                found.type, metric.description or f"{metric.name}, received without a description"
            )
        if family.type != found.type:
            conflicts += 1
            continue
        _add(family, block, row, group, openmetrics)
    body, taken = exposition(families, openmetrics=openmetrics)
    if openmetrics:
        return body
    if conflicts + taken:
        body += f"# {conflicts + taken} families or points were left out: their name has another type\n".encode()
    if deltas:
        body += f"# {deltas} delta series were left out: their newest point is no total\n".encode()
    return body


def _newest(deadline: Deadline, view: View, since_ns: int) -> Iterator[tuple[Block, int]]:
    """Yield each series' newest point, by (time, offset), ordered by series."""
    newest: dict[int, tuple[int, int, Block, int]] = {}
    for block, rows in slices(view, since_ns, deadline=deadline):
        times = block.column("time")[rows]
        order = np.lexsort((rows, times))[::-1]
        keys = block.column("series")[rows[order]]
        distinct, firsts = np.unique(keys, return_index=True)
        for key, first in zip(distinct.tolist(), firsts.tolist(), strict=True):
            row = int(rows[order[first]])
            place = (int(times[order[first]]), block.base_offset + row)
            known = newest.get(key)
            if known is None or place > known[:2]:
                newest[key] = (*place, block, row)
    for _, _, block, row in sorted(newest.values(), key=lambda one: one[:2], reverse=True):
        yield block, row


def _add(family: Exposed, block: Block, row: int, group: int, openmetrics: bool) -> None:
    """Add the samples of one point; what is newer stands there already."""
    point = records.record(block, row)
    labels = attribute_labels(point.attributes) | group_labels(block, group)
    kind = int(block.column("type")[row])
    found = family_of(block, group)
    exemplars = _exemplars(point, kind) if openmetrics and found.type in ("counter", "histogram") else {}
    if kind in _DISTRIBUTIONS:
        samples = list(samples_of(point, kind, found))
    else:
        samples = [(found.name, {}, float(block.column("value")[row]))]
    for name, extra, value in samples:
        full = sorted_labels(name, labels | extra)
        exemplar = exemplars.get(extra.get("le", ""), "")
        family.lines.setdefault((name, full), line(name, full, value, exemplar))


def _exemplars(point: Any, kind: int) -> dict[str, str]:
    """Write the newest exemplar of each bucket, by its `le`, or of a number, as OpenMetrics has it."""
    newest: dict[str, Any] = {}
    for le, one in placed(point, kind):
        if le not in newest or one.time_unix_nano > newest[le].time_unix_nano:
            newest[le] = one
    return {le: _exemplar(one) for le, one in newest.items()}


def _exemplar(exemplar: Any) -> str:
    when = f" {exemplar.time_unix_nano / 1e9:.3f}" if exemplar.time_unix_nano else ""
    return f" # {{{label_text(exemplar_labels(exemplar))}}} {float_text(exemplar_value(exemplar))}{when}"
