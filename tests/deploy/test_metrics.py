"""Alert rules and dashboard against the `/metrics` of a running daemon: names, labels and the values that are asked for."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from collector.query.promql.parser import parse
from tests.daemon import Daemon
from tests.security.certificates import Authority

DEPLOY = Path(__file__).parents[2] / "deploy"
ADDED = frozenset({"instance", "job"})
"""Labels that Prometheus adds when it scrapes."""
_NAME = re.compile(r"\b(?:otelcol|ringtail)_\w+")
_BY = re.compile(r"\bby \(([^)]*)\)")
_MATCHERS = re.compile(r"\b((?:otelcol|ringtail)_\w+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')

Series = dict[str, dict[str, set[str]]]


def alerts() -> Iterator[tuple[str, str]]:
    for rule in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"][0]["rules"]:
        texts = " ".join(rule["annotations"].values())
        yield rule["expr"], texts


def panels() -> Iterator[tuple[str, str]]:
    for panel in json.loads((DEPLOY / "grafana" / "dashboards" / "ringtail.json").read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m"), target["legendFormat"]


ASKED = [*alerts(), *panels()]


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    """What a daemon with everything switched on exposes: each metric's labels, with their values."""
    directory = tmp_path_factory.mktemp("metrics")
    authority = Authority(directory)
    certificate, key = authority.issue("server")
    settings = (
        "auth.credentials=[{name: all, rights: [read, write], tokens: token-token-token-1}]",
        f"api.tls={{cert_file: {certificate}, key_file: {key}}}",
        "exporters.otlphttp.endpoint=http://127.0.0.1:9",
        f"exporters.sqlite.path={directory / 'records.sqlite'}",
    )
    known = {"Authorization": "Bearer token-token-token-1"}
    with Daemon(directory, *settings, tls=authority.client(), headers=known, wait=False) as daemon:
        daemon.wait_for("ready")
        daemon.wait_for("exporter started", exporter="sqlite")
        while "ringtail_backend_bytes{" not in (text := daemon.get("/metrics").body.decode()):
            pass  # it is being weighed
    found: Series = defaultdict(lambda: defaultdict(set))
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            of_name = found[sample.name]
            for label, value in sample.labels.items():
                of_name[label].add(value)
    return found


def complaints(series: Series, expression: str, shown: str) -> list[str]:
    """What an expression, and the text that is shown with it, ask for and there is not."""
    found = [f"no metric {name}" for name in _NAME.findall(expression) if name not in series]
    labels = set().union(*(series[name] for name in _NAME.findall(expression) if name in series)) | ADDED
    wanted = {one.strip() for group in _BY.findall(expression) for one in group.split(",")}
    wanted |= set(re.findall(r"\$labels\.(\w+)", shown)) | set(re.findall(r"\{\{\s*(\w+)\s*\}\}", shown))
    found += [f"no label {label}" for label in sorted(wanted - labels)]
    for name, matchers in _MATCHERS.findall(expression):
        for label, _, value in _MATCHER.findall(matchers):
            values = series[name][label] if name in series else set()
            found += [f"{name} has no {label} {one}" for one in value.split("|") if one not in values]
    return found


def test_what_is_asked_is_there(series: Series) -> None:
    assert len(ASKED) > 25
    for expression, shown in ASKED:
        parse(expression)
        assert complaints(series, expression, shown) == [], expression


def test_every_metric_of_the_list_is_exposed(series: Series) -> None:
    """The list of docs/operations.md, which another test compares with the code."""
    page = (DEPLOY.parent / "docs" / "operations.md").read_text()
    listed = set(re.findall(r"`((?:otelcol|ringtail)_\w+)`", page))
    exposed = {name.removesuffix("_bucket") for name in series}
    assert {name for name in listed if name not in exposed and f"{name}_info" not in exposed} == set()


@pytest.mark.parametrize(
    ("expression", "shown", "complaint"),
    [
        ("ringtail_wal_faild == 1", "", "no metric ringtail_wal_faild"),
        ("sum by (signl) (ringtail_wal_bytes)", "", "no label signl"),
        ("ringtail_wal_bytes", "of {{ $labels.tenant }}", "no label tenant"),
        (
            'ringtail_receiver_requests_total{outcome=~"failed|overlodaed"}',
            "",
            "ringtail_receiver_requests_total has no",
        ),
    ],
)
def test_a_mistake_would_be_found(series: Series, expression: str, shown: str, complaint: str) -> None:
    """The canary."""
    (found,) = complaints(series, expression, shown)
    assert found.startswith(complaint)
