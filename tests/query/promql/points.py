"""Series for PromQL tests: the same samples as an OTLP request, and as OpenMetrics text for a real Prometheus."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from random import Random

from collector.otlp.signals import METRICS
from collector.ring.ring import Ring
from collector.store import Store

START_MS = 1_700_000_007_000
"""Samples lie 7 s beside the steps that tests ask for, so that no window's edge meets one."""
INTERVAL_MS = 15_000


@dataclass(frozen=True, slots=True)
class Made:
    """One series: a counter or a gauge with two labels, and its samples (ms, value)."""

    name: str
    labels: dict[str, str]
    samples: list[tuple[int, float]]
    counter: bool


def random_series(seed: int, count: int, samples: int) -> list[Made]:
    """Counters with resets and gaps, and gauges."""
    chance = Random(seed)
    made = []
    for number in range(count):
        counter = number % 2 == 0
        value = chance.uniform(1000, 2000)
        points = []
        for step in range(samples):
            if chance.random() < 0.1:
                continue
            if counter:
                value = chance.uniform(900, 1000) if chance.random() < 0.03 else value + chance.uniform(0, 40)
            else:
                value = chance.uniform(-50, 50)
            points.append((START_MS + step * INTERVAL_MS, round(value, 3)))
        name = "requests_total" if counter else "temperature"
        made.append(Made(name, {"code": chance.choice("abc"), "n": str(number)}, points, counter))
    return made


def store_of(series: list[Made]) -> Store:
    """A store that holds the series, in blocks of one time step each."""
    loop = asyncio.new_event_loop()
    store = Store(METRICS, Ring(METRICS, 1_000_000, 1 << 28), None, loop)
    for time in sorted({time for one in series for time, _ in one.samples}):
        request = METRICS.request_type()
        inner = request.resource_metrics.add().scope_metrics.add()
        for one in series:
            value = dict(one.samples).get(time)
            if value is None:
                continue
            metric = inner.metrics.add(name=one.name.removesuffix("_total"))
            if one.counter:
                metric.sum.is_monotonic = True
                metric.sum.aggregation_temporality = 2
                point = metric.sum.data_points.add(time_unix_nano=time * 1_000_000, as_double=value)
            else:
                point = metric.gauge.data_points.add(time_unix_nano=time * 1_000_000, as_double=value)
            for key, text in one.labels.items():
                point.attributes.add(key=key).value.string_value = text
        loop.run_until_complete(store.append(request.SerializeToString()))
    loop.close()
    return store


def openmetrics(series: list[Made]) -> str:
    """The same as OpenMetrics text, for `promtool tsdb create-blocks-from openmetrics`."""
    lines = []
    for name, kind in (("requests", "counter"), ("temperature", "gauge")):
        lines.append(f"# TYPE {name} {kind}")
        for one in series:
            if one.name.removesuffix("_total") == name:
                labels = ",".join(f'{key}="{text}"' for key, text in one.labels.items())
                lines += [f"{one.name}{{{labels}}} {value} {time / 1000:.3f}" for time, value in one.samples]
    return "\n".join([*lines, "# EOF"]) + "\n"
