"""Nothing is undocumented: keys, flags, routes and metrics are where a reader looks for them."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path

import click
import pytest
import yaml
from prometheus_client import CollectorRegistry

from collector import telemetry
from collector.api.admin import statistics
from collector.api.app import create_app
from collector.cli import main
from collector.clock import SystemClock
from collector.config import Config
from collector.exporters.figures import Counts, ExporterMetrics, Figures, Reported
from collector.exporters.passing_on import PassingOn
from collector.memory import MemoryGuard
from collector.otlp.signals import SIGNALS
from collector.query.engine import Engine
from collector.query.tails import Tails
from collector.receivers.admission import Admission
from collector.receivers.export import ReceiverMetrics
from collector.ring.ring import Ring
from collector.security.gate import Authenticator
from collector.security.tls import TlsMetrics
from collector.settings import dump, entries, load
from collector.store import Store
from collector.wal.cache import BlockCache
from collector.wal.metrics import LogMetrics
from tests.house import configuration_page

ROOT = Path(__file__).parents[2]


def doc(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def keys_in(node: object, path: str = "") -> set[str]:
    if not isinstance(node, dict):
        return {path}
    return {path} | {key for name, value in node.items() for key in keys_in(value, f"{path}.{name}".lstrip("."))}


def test_the_default_file_has_every_key_at_its_default_and_explains_it() -> None:
    text = (ROOT / "config" / "collector.yaml").read_text()
    written = keys_in(yaml.safe_load(text)) - {""}
    assert written == {key for key, _, _ in entries() if "[]" not in key and not key.startswith("exporters.")}
    assert {key for key, _, _ in entries() if "[]" in key and f" {key.rpartition('.')[2]}: " not in text} == set()
    assert load([("collector.yaml", text)], [], {}) == Config()


def test_the_configuration_page_is_fresh() -> None:
    assert configuration_page.PAGE.read_text() == configuration_page.page(), "run `make docs`"


def test_printed_settings_load_again() -> None:
    config = load([], ["wal.directory=/x$$y", "query.timeout=1m30s", "receivers.otlp.protocols.grpc=null"], {})
    assert load([("printed", dump(config))], [], {}) == config


def commands(group: click.Group, prefix: str = "") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found += commands(command, f"{prefix}{name} ")
        else:
            found.append((f"{prefix}{name}", command))
    return found


@pytest.mark.parametrize(("name", "command"), commands(main), ids=lambda one: one if isinstance(one, str) else "")
def test_commands_and_flags_are_documented(name: str, command: click.Command) -> None:
    page = doc("cli.md")
    assert f"ringtail {name}" in page
    for parameter in command.params:
        for flag in parameter.opts:
            if flag.startswith("--"):
                assert f"`{flag}" in page, flag


async def app_and_registry() -> tuple[object, CollectorRegistry]:
    registry = CollectorRegistry()
    loop = asyncio.get_running_loop()
    stores = {signal.name: Store(signal, Ring(signal, 10, 1 << 20), None, loop) for signal in SIGNALS}
    telemetry.process_metrics(registry, SystemClock())
    registry.register(telemetry.StoreCollector(lambda: {"": statistics(stores)}, tenants=False))
    ReceiverMetrics(registry)
    MemoryGuard(1, list, {}, Admission(1, registry), None, registry)
    LogMetrics(registry)
    BlockCache(registry)
    TlsMetrics(registry)
    Authenticator([], None, registry)
    PassingOn(lambda *_: None, random.Random(), None, registry)
    reported = Reported("otlp", "", SIGNALS[0], Counts(), Figures(0, 0, 0, 0.0), "")
    ExporterMetrics(registry, lambda: [reported], tenants=False)
    engine = Engine(1, 1.0, SystemClock())
    tails = Tails(1, SystemClock(), registry)
    app = create_app(stores, engine, registry, list, dict, dict, None, tails=tails)
    tails.close()
    engine.close()
    return app, registry


async def test_metrics_are_documented() -> None:
    _, registry = await app_and_registry()
    page = doc("operations.md")
    names = {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}
    assert len(names) > 20
    assert {name for name in names if f"`{name}`" not in page} == set()
    assert set(re.findall(r"`((?:otelcol|ringtail)_\w+)`", page)) - names == set(), "documented, and not there"


async def test_routes_are_documented() -> None:
    app, _ = await app_and_registry()
    pages = "".join(path.read_text() for path in [*(ROOT / "docs").glob("api*.md"), ROOT / "docs/live.md"])
    paths = {re.sub(r":[a-z]+}", "}", route.path) for route in app.routes}  # type: ignore[attr-defined]
    assert {path for path in paths if path not in pages} == set()
