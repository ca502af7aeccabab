"""Metric queries evaluated over a view, and held against the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from collector.errors import InvalidQuery
from collector.query.logql import ast, metrics
from collector.query.logql.metrics import evaluate
from collector.query.logql.plan import prepare
from collector.query.logql.source import Statistics
from collector.store import View
from tests.query.logql import metric_oracle, oracle
from tests.query.logql.logs import deadline


def evaluated(view: View, text: str, steps: list[int]) -> metrics.Value:
    """Evaluate a metric query over one view."""
    plan = prepare(text)
    return evaluate(deadline(), dict.fromkeys(plan.services, view), plan, np.array(steps, np.int64), Statistics())


def check(view: View, node: ast.Metric, steps: list[int]) -> None:
    """Hold an answer against the oracle's, step by step."""
    found = oracle.entries(view)
    refused = False
    expected: list[Any] = []
    for step in steps:
        try:
            expected.append(metric_oracle.at(node, found, step))
        except metric_oracle.Refused:
            refused = True
    twice = any(isinstance(each, list) and len({labels for labels, _ in each}) < len(each) for each in expected)
    try:
        value = evaluated(view, str(node), steps)
    except InvalidQuery:
        assert refused or twice
        return
    assert not refused
    assert not twice
    for place, each in enumerate(expected):
        if isinstance(each, float):
            assert value == pytest.approx(each, nan_ok=True)
            continue
        assert isinstance(value, dict)
        actual = {labels: series.values[place] for labels, series in value.items() if series.present[place]}
        assert actual == pytest.approx(dict(each), nan_ok=True)
    assert isinstance(value, float) or all(series.present.any() for series in value.values())
