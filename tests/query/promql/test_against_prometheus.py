"""The same samples and queries, in Ringtail and in a real Prometheus (Debian's package): the same answers.

Debian's Prometheus 2.42 differs from Prometheus 3 at windows' edges and in how a counter's rate stops at zero; the
samples lie beside the edges, and counters start far above zero, so that both must agree.
"""

from __future__ import annotations

import json
import math
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.query.promql.vectors import Vector
from tests.e2e.requirements import require
from tests.query.promql.points import INTERVAL_MS, START_MS, openmetrics, random_series
from tests.query.promql.test_evaluate import run, store_of

SERIES = random_series(11, 16, 120)
STORE = store_of(SERIES)
START, END, STEP = (START_MS - 7_000) // 1000, (START_MS + 120 * INTERVAL_MS) // 1000, 30

LE = 'label_replace(label_replace(requests_total, "le", "$1", "n", "(.*)"), "le", "+Inf", "n", "14")'
"""Counters as the buckets of histograms, neither rising nor always there."""

QUERIES = [
    "temperature",
    'requests_total{code=~"a|b"}',
    'temperature{code!="a", n=~"[13579]"}',
    "rate(requests_total[1m])",
    "increase(requests_total[5m])",
    "irate(requests_total[2m])",
    "delta(temperature[2m])",
    "sum by (code) (rate(requests_total[2m]))",
    "avg without (n) (temperature)",
    "max(temperature) - min(temperature)",
    "count by (code) (temperature > 0)",
    "stddev(temperature)",
    "quantile(0.9, temperature)",
    "sum(rate(requests_total[1m])) / count(requests_total)",
    "temperature * 2 + 1 > bool 10",
    "temperature + on (n) temperature",
    "temperature > 0 or temperature <= 0",
    "temperature unless temperature > 10",
    "abs(temperature) - ceil(temperature)",
    "round(temperature, 5)",
    "clamp(temperature, -10, 10)",
    "avg_over_time(temperature[3m])",
    "max_over_time(temperature[2m] offset 1m)",
    "quantile_over_time(0.3, temperature[5m])",
    "changes(temperature[5m])",
    "resets(requests_total[5m])",
    "stddev_over_time(temperature[4m])",
    "requests_total offset 5m",
    "time() % 7",
    "-temperature ^ 2",
    "scalar(sum(temperature)) + vector(1)",
    'absent(nothing{a="b"})',
    "timestamp(temperature)",
    "topk(2, temperature)",
    "bottomk by (code) (1, temperature)",
    "topk(time() % 3, temperature)",
    "quantile by (code) (0.3, temperature)",
    "quantile(scalar(temperature{n='1'}) / 40, temperature)",
    f"histogram_quantile(0.7, sum by (le) ({LE}))",
    f"histogram_quantile(0.999, sum by (le) ({LE}))",
    f"histogram_quantile(scalar(temperature{{n='1'}}) / 40, sum by (le) ({LE}))",
    f"histogram_quantile(0.5, sum by (code, le) ({LE}))",
    f"histogram_quantile(0.5, sum by (le) (rate({LE}[2m1s:15s])))",
    "temperature * on (code) group_left max by (code) (temperature)",
    "max by (code) (temperature) - on (code) group_right temperature",
    "max by (code) (temperature) > on (code) group_right temperature",
    "temperature > bool ignoring (n) group_left max by (code) (temperature > 0)",
    'requests_total * on (n) group_left (extra) label_replace(requests_total, "extra", "x$1", "code", "(.*)")',
    "rate(requests_total[5m] offset 1m) / ignoring (n) group_left sum by (code) (rate(requests_total[5m] offset 1m))",
    "max_over_time(temperature[301s:20s])",
    "max_over_time(sum by (code) (rate(requests_total[2m]))[5m1s:40s])",
    "avg_over_time((temperature > 0)[10m1s:])",
    "sum_over_time(min_over_time(temperature[61s:10s])[3m1s:20s] offset 30s)",
    f"last_over_time(temperature[2m1s:10s] @ {START + 600})",
    "quantile_over_time(0.7, (temperature @ end())[2m1s:10s])",
    "deriv(temperature[5m])",
    "deriv(requests_total[10m1s:20s])",
    "predict_linear(temperature[10m], 3600)",
    "predict_linear(temperature[10m] offset 2m, 60)",
    "holt_winters(temperature[10m], 0.3, 0.6)",
    "absent_over_time(requests_total[20s])",
    'absent_over_time(nothing{a="b"}[5m])',
    "present_over_time(temperature[1m])",
    'label_replace(temperature, "both", "$1-${1}x$$", "n", "([0-9]+)")',
    'label_replace(temperature, "code", "", "n", "1.*")',
    'label_replace(temperature, "copy", "$rest", "n", "(?P<rest>.).*")',
    'label_replace(temperature, "copy", "$9$1", "n", "(.).*")',
    'label_join(temperature, "all", "/", "code", "n", "nothing")',
    'count_values("value", round(temperature, 20))',
    'count_values by (code) ("n", round(temperature, 50))',
    'count_values without (n) ("n", round(temperature, 50))',
    "minute() + hour() * 100 + day_of_week() * 10000",
    "day_of_month() + month() * 100 + year() * 10000 + days_in_month() / 100",
    "day_of_year(vector(time() * 3))",
    "year(temperature * 1e8) + month(temperature * 1e8) / 100 + hour(temperature * 1e4)",
    "deg(sin(temperature)) + rad(tan(temperature)) + atan(temperature)",
    "acos(temperature / 50) + asinh(temperature) + atanh(temperature / 50)",
    "clamp(temperature, 10, -10) or clamp_min(temperature, 3)",
    "temperature atan2 on (n) temperature",
    "sgn(temperature) + sqrt(abs(temperature)) + ln(temperature ^ 2)",
]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus over blocks made of the same samples; its address."""
    require("prometheus", "promtool")
    directory = tmp_path_factory.mktemp("prometheus")
    (directory / "samples.txt").write_text(openmetrics(SERIES))
    (directory / "prometheus.yml").write_text("{}\n")
    data = str(directory / "data")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(directory / "samples.txt"), data],
        check=True,
        capture_output=True,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", f"--config.file={directory / 'prometheus.yml'}", f"--storage.tsdb.path={data}"]
    command += [f"--web.listen-address={address}", "--storage.tsdb.retention.time=100y", "--log.level=error"]
    with Path(directory / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_until_ready(address, process)
            yield address
        finally:
            process.terminate()
            process.wait(20)


def wait_until_ready(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(300):
        assert process.poll() is None, "prometheus ended"
        try:
            with urllib.request.urlopen(f"http://{address}/-/ready", timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("prometheus is not ready after 30 s")


def ask(address: str, query: str) -> dict[tuple[tuple[str, str], ...], dict[int, float]]:
    parameters = urllib.parse.urlencode({"query": query, "start": START, "end": END, "step": STEP})
    with urllib.request.urlopen(f"http://{address}/api/v1/query_range?{parameters}", timeout=30) as response:
        answer = json.load(response)
    return {
        tuple(sorted(one["metric"].items())): {round(at * 1000): float(value) for at, value in one["values"]}
        for one in answer["data"]["result"]
    }


def ours(query: str) -> dict[tuple[tuple[str, str], ...], dict[int, float]]:
    steps = list(range(START * 1000, END * 1000 + 1, STEP * 1000))
    value: Any = run(query, steps, STORE)
    if not isinstance(value, Vector):
        return {(): dict(zip(steps, value.tolist(), strict=True))}
    return {
        labels: {
            step: float(number)
            for step, number, there in zip(steps, value.values[row], value.present[row], strict=True)
            if there
        }
        for row, labels in enumerate(value.labels)
    }


@pytest.mark.parametrize("query", QUERIES)
def test_the_same_answer(prometheus: str, query: str) -> None:
    expected, found = ask(prometheus, query), ours(query)
    assert found.keys() == expected.keys()
    for labels, values in expected.items():
        assert found[labels].keys() == values.keys()
        for at, value in values.items():
            number = found[labels][at]
            assert number == pytest.approx(value, rel=1e-9, abs=1e-9) or (math.isnan(number) and math.isnan(value))
    assert expected, "a query without an answer tests nothing"
