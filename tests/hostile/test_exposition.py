"""S17: names, labels, help texts and units built to break the Prometheus text. Values equal, no line more or less."""

from __future__ import annotations

import asyncio
import math
import shutil
import subprocess
from random import Random
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_plain

from collector.api.received import expose
from collector.clock import SystemClock
from collector.otlp.signals import METRICS
from collector.query.deadline import Deadline
from collector.query.promql.translate import label_name
from collector.ring.ring import Ring
from collector.store import Store
from tests.e2e.requirements import require
from tests.hostile.texts import TEXTS, random_text

EXPOSITIONS = 250
METRICS_EACH = 40
"""10,000 metrics in all."""
NOW_NS = 1_790_000_000_000_000_000


def request(seed: int, *, strict: bool = True) -> tuple[Any, list[float]]:
    """Metrics whose every text is hostile, and their values, each another one."""
    chance = Random(f"exposition {seed}")

    def text() -> str:
        return chance.choice(
            ("", chance.choice(TEXTS), random_text(chance), "le", "quantile", "__name__", "job", "a.b")
        )

    made = METRICS.request_type()

    def key() -> str:
        # What Prometheus reserves it passes on, and prometheus_client does not read.
        made = text()
        return f"x{made}" if strict and label_name(made).startswith("__") else made

    envelope = made.resource_metrics.add()
    for _ in range(chance.randint(0, 3)):
        envelope.resource.attributes.add(key=key()).value.string_value = text()
    inner = envelope.scope_metrics.add()
    inner.scope.name, inner.scope.version = text(), text()
    values = []
    for number in range(METRICS_EACH):
        metric = inner.metrics.add(name=f"m{number}_{text()}", unit=text(), description=text())
        value = float(seed * METRICS_EACH + number) + 0.5
        values.append(value)
        if chance.random() < 0.5:
            metric.sum.is_monotonic = True
            metric.sum.aggregation_temporality = 2
            point = metric.sum.data_points.add(time_unix_nano=NOW_NS, as_double=value)
        else:
            point = metric.gauge.data_points.add(time_unix_nano=NOW_NS, as_double=value)
        for _ in range(chance.randint(0, 4)):
            point.attributes.add(key=key()).value.string_value = text()
    return made, values


def exposed(message: Any, openmetrics: bool) -> str:
    """What /metrics/received answers about a request."""
    loop = asyncio.new_event_loop()
    store = Store(METRICS, Ring(METRICS, 1000, 1 << 24), None, loop)
    loop.run_until_complete(store.append(message.SerializeToString()))
    loop.close()
    with store.view(ring_only=True) as view:
        return expose(Deadline(60, SystemClock()), view, 0, openmetrics).decode()


@pytest.mark.parametrize("openmetrics", [False, True], ids=["plain", "openmetrics"])
def test_what_is_exposed_is_read_back_with_the_same_values(openmetrics: bool) -> None:
    for seed in range(EXPOSITIONS):
        message, values = request(seed)
        text = exposed(message, openmetrics)
        families = list((read_openmetrics if openmetrics else read_plain)(text))
        found = [sample.value for one in families for sample in one.samples if not sample.name.startswith("target")]
        assert sorted(found) == values, f"seed {seed}"
        assert not any(one.name.startswith("injected") for one in families)
        assert all(math.isfinite(value) for value in found)
        lines = [line for line in text.split("\n") if line and not line.startswith("#")]
        assert len(lines) == sum(len(one.samples) for one in families)


@pytest.mark.parametrize("seed", range(8))
def test_promtool_reads_it(seed: int) -> None:
    require("promtool")
    program = shutil.which("promtool")
    assert program is not None
    text = exposed(request(seed, strict=False)[0], openmetrics=False)
    checked = subprocess.run([program, "check", "metrics"], input=text.encode(), capture_output=True, check=False)
    # 3: it would have named them differently
    assert checked.returncode in (0, 3), checked.stderr
    assert b"error while linting" not in checked.stderr
