"""Ringtail's own logs and metrics."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import subprocess
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from collector import telemetry
from collector.api.admin import statistics
from collector.clock import SystemClock
from collector.otlp.signals import SIGNALS
from collector.ring.ring import Ring
from collector.store import Store
from collector.testing.otlp import traces
from tests.e2e.requirements import require

FORMS = pytest.mark.parametrize("form", ["console", "json"])


def logged(form: str, write: Any, level: str = "info") -> list[str]:
    """Return the lines that a logger writes."""
    stream = io.StringIO()
    write(telemetry.logger(telemetry.Level(level), form, stream))
    text = stream.getvalue()
    assert text == "" or text.endswith("\n")
    return text.splitlines()


def test_json_events() -> None:
    (line,) = logged("json", lambda log: log.info("log opened", signal="traces", bytes=128, note="a\nb"))
    event = json.loads(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", event.pop("timestamp"))
    assert event == {"level": "info", "event": "log opened", "signal": "traces", "bytes": 128, "note": "a\nb"}
    assert list(json.loads(line))[:3] == ["timestamp", "level", "event"]


def test_console_events() -> None:
    (line,) = logged("console", lambda log: log.warning("log opened", signal="traces", note="a\n\x1b[31mb\u2028c"))
    assert re.fullmatch(r"\S+Z \[warning *] log opened +signal=traces note=.*a\\x0a\\x1b\[31mb\\u2028c.*", line), line


@FORMS
@given(st.text(st.characters(codec="utf-8")))
def test_every_event_is_one_line_of_printable_characters(form: str, text: str) -> None:
    (line,) = logged(form, lambda log: log.error(text, value=text, values=[text], error=ValueError(text)))
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line)


@FORMS
def test_an_exception_is_one_line_too(form: str) -> None:
    def write(log: Any) -> None:
        try:
            raise ValueError("first\nsecond")
        except ValueError:
            log.exception("failed")

    (line,) = logged(form, write)
    assert "ValueError: first" in line


@FORMS
@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(form: str, level: str, expected: int) -> None:
    def write(log: Any) -> None:
        for name in ("debug", "info", "warning", "error"):
            getattr(log, name)("something")

    assert len(logged(form, write, level)) == expected


def test_two_loggers_share_nothing() -> None:
    one, two = io.StringIO(), io.StringIO()
    first, second = (
        telemetry.logger(telemetry.Level("info"), "json", one),
        telemetry.logger(telemetry.Level("error"), "console", two),
    )
    first.info("one")
    second.info("two")
    second.error("three")
    assert json.loads(one.getvalue())["event"] == "one"
    assert "three" in two.getvalue()
    assert "two" not in two.getvalue()


def test_records_of_the_standard_library_become_events(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    library = logging.getLogger("some.library")
    handler = telemetry.StandardLogs(telemetry.logger(telemetry.Level("info"), "json", stream))
    monkeypatch.setattr(library, "handlers", [handler])
    monkeypatch.setattr(library, "propagate", False)
    library.info("not told")
    library.warning("told %s", "once")
    try:
        raise ValueError("why")
    except ValueError:
        library.exception("failed")
    warning, error = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (warning["level"], warning["event"], warning["name"]) == ("warning", "library", "some.library")
    assert warning["message"] == "told once"
    assert error["level"] == "error"
    assert error["exception"].endswith("ValueError: why")


async def exposition() -> tuple[str, dict[str, Any]]:
    """Metrics and statistics of three stores, one of them with some spans."""
    registry = CollectorRegistry()
    loop = asyncio.get_running_loop()
    stores = {signal.name: Store(signal, Ring(signal, 10, 1 << 20), None, loop) for signal in SIGNALS}
    await stores["traces"].append(traces(24))
    telemetry.process_metrics(registry, SystemClock())
    registry.register(telemetry.StoreCollector(lambda: {"": statistics(stores)}, tenants=False))
    return generate_latest(registry).decode(), statistics(stores)["signals"]


async def test_metrics_say_what_the_statistics_say() -> None:
    text, signals = await exposition()
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    for signal, one in signals.items():
        assert samples["ringtail_ring_records", signal] == one["records"]
        assert samples["ringtail_ring_capacity_records", signal] == one["capacity"]
        assert samples["ringtail_ring_evicted_records_total", signal] == one["evicted"]
        assert samples["ringtail_ring_bytes", signal] == one["total_bytes"]
        for key in ("payload_bytes", "column_bytes", "index_bytes"):
            assert samples[f"ringtail_ring_{key}", signal] == one[key]
        for key in ("bytes", "segments", "first_offset", "next_offset"):
            assert samples[f"ringtail_wal_{key}", signal] == one["log"][key]
        for index, figures in one["indexes"].items():
            for key in ("keys", "postings", "bytes"):
                assert samples[f"ringtail_index_{key}", *sorted((signal, index))] == figures[key]
    assert (signals["traces"]["records"], signals["traces"]["evicted"]) == (10, 14)
    assert samples["otelcol_process_memory_rss_bytes",] > 1 << 20
    assert samples["otelcol_process_cpu_seconds_total",] > 0
    assert samples["otelcol_process_uptime_seconds_total",] >= 0


async def test_promtool_has_nothing_to_say() -> None:
    require("promtool")
    text, _ = await exposition()
    checked = await asyncio.to_thread(
        subprocess.run, ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")
