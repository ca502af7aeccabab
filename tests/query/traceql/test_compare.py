"""compare(): figures counted by hand, of everything that spans, their events and links, resources and scopes have."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collector.clock import SystemClock
from collector.otlp.signals import TRACES
from collector.query.deadline import Deadline
from collector.query.traceql import conditions, metrics
from collector.query.traceql.parser import parse
from collector.query.traceql.series import Steps
from collector.ring.ring import Ring
from collector.store import Store, View

STEP = 100


def pairs(**texts: Any) -> list[dict[str, Any]]:
    """Attributes, `_` in a name for a dot."""
    kinds = {str: "string_value", int: "int_value", bool: "bool_value", float: "double_value"}
    found = []
    for name, value in texts.items():
        if isinstance(value, list):
            one: dict[str, Any] = {"array_value": {"values": [{kinds[type(each)]: each} for each in value]}}
        else:
            one = {kinds[type(value)]: value}
        found.append({"key": name.replace("_", "."), "value": one})
    return found


def span(number: int, *, time: int, error: bool = False, parent: int = 0, **parts: Any) -> dict[str, Any]:
    """A span of the one trace."""
    return {
        "trace_id": bytes(15) + b"\1",
        "span_id": number.to_bytes(8, "big"),
        "parent_span_id": parent.to_bytes(8, "big") if parent else b"",
        "name": "GET" if number < 4 else "SELECT",
        "start_time_unix_nano": time,
        "end_time_unix_nano": time + 5,
        "status": {"code": 2} if error else {},
        **parts,
    }


RETRY = {"name": "retry", "attributes": pairs(attempt=1)}
AGAIN = {"name": "retry", "attributes": pairs(attempt=2)}
THROWN = {"name": "exception", "attributes": pairs(exception_type="Timeout")}
NAMELESS = {"attributes": pairs(attempt=2, sizes=[1, 2])}
LINK = {"trace_id": bytes(15) + b"\2", "span_id": bytes(7) + b"\1", "attributes": pairs(via="queue")}

SPANS = [
    span(1, time=10, attributes=pairs(route="/a"), events=[RETRY, AGAIN, AGAIN]),
    span(2, time=20, parent=1, error=True, attributes=pairs(route="/b", sizes=[7]), events=[AGAIN, THROWN]),
    span(3, time=110, parent=1, error=True, links=[LINK, LINK]),
    span(4, time=120, parent=1, attributes=pairs(route="/a"), events=[NAMELESS], links=[LINK]),
    span(5, time=130, parent=9),
]


def filled(store: Store, spans: list[dict[str, Any]] | None = None) -> None:
    """Put spans into a store, a request for each two."""
    loop = asyncio.new_event_loop()
    store._loop = loop
    spans = SPANS if spans is None else spans
    for at in range(0, len(spans), 2):
        resource = {"attributes": pairs(service_name="shop")}
        scope = {"name": "lib", "attributes": pairs(mode="fast")}
        scopes = [{"scope": scope, "spans": spans[at : at + 2]}]
        request = TRACES.request_type(resource_spans=[{"resource": resource, "scope_spans": scopes}])
        loop.run_until_complete(store.append(request.SerializeToString()))
    loop.close()


@pytest.fixture
def store() -> Store:
    """A ring of the spans."""
    loop = asyncio.new_event_loop()
    made = Store(TRACES, Ring(TRACES, 1000, 1 << 24), None, loop)
    loop.close()
    filled(made)
    return made


def asked(view: View, text: str, steps: Steps) -> list[str]:
    """The series of a query, a line each; without those of roots and of fields that all spans have alike."""
    found = []
    for one in metrics.run(Deadline(60, SystemClock()), view, view, parse(text), steps, 0):
        (meta, group), (name, value) = one.labels
        if name in ("resource.service.name", "instrumentation.mode", "instrumentation:name", "instrumentation:version"):
            continue
        if name.startswith(("root", "kind", "statusMessage")):
            continue
        samples = " ".join(f"{sample:g}" for sample in one.samples.tolist())
        assert meta == ("__meta_error" if group == "__too_many_values__" else "__meta_type")
        found.append(f"{group} {name}={value!r}: {samples}")
    return sorted(found)


GOLDEN = """
baseline event.attempt=1: 1 0
baseline event.attempt=2: 1 1
baseline event:name='': 0 1
baseline event:name='retry': 1 0
baseline link.via='queue': 0 1
baseline name='GET': 1 0
baseline name='SELECT': 0 2
baseline span.route='/a': 1 1
baseline status='unset': 1 2
baseline_total event.attempt=None: 1 1
baseline_total event:name=None: 1 1
baseline_total link.via=None: 0 1
baseline_total name=None: 1 2
baseline_total span.route=None: 1 1
baseline_total status=None: 1 2
selection event.attempt=2: 1 0
selection event.exception.type='Timeout': 1 0
selection event:name='exception': 1 0
selection event:name='retry': 1 0
selection link.via='queue': 0 1
selection name='GET': 1 1
selection span.route='/b': 1 0
selection status='error': 1 1
selection_total event.attempt=None: 1 0
selection_total event.exception.type=None: 1 0
selection_total event:name=None: 1 0
selection_total link.via=None: 0 1
selection_total name=None: 1 1
selection_total span.route=None: 1 0
selection_total status=None: 1 1
"""


@pytest.mark.parametrize("remembering", [True, False])
def test_everything_is_counted(store: Store, remembering: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A span with a value twice counts once for it; arrays do not count."""
    monkeypatch.setattr(conditions, "PROBED", 0)
    with store.view() as view:
        if not remembering:
            view.memo = None
        found = asked(view, "{ } | compare({ status = error })", Steps(0, STEP, 2))
    assert found == GOLDEN.strip().splitlines()


def test_the_commonest_values_are_returned_and_the_rest_is_said_to_be_missing(store: Store) -> None:
    with store.view() as view:
        found = asked(view, '{ name = "GET" } | compare({ status = error }, 1)', Steps(0, 1000, 1))
    assert [one for one in found if "event" in one] == [
        "__too_many_values__ event.attempt=None: 0",
        "__too_many_values__ event:name=None: 0",
        "baseline event.attempt=1: 1",
        "baseline event:name='retry': 1",
        "baseline_total event.attempt=None: 1",
        "baseline_total event:name=None: 1",
        "selection event.attempt=2: 1",
        "selection event.exception.type='Timeout': 1",
        "selection event:name='exception': 1",
        "selection_total event.attempt=None: 1",
        "selection_total event.exception.type=None: 1",
        "selection_total event:name=None: 1",
    ]


def test_a_window_narrows_the_selection(store: Store) -> None:
    with store.view() as view:
        found = asked(view, "{ } | compare({ status = error }, 10, 100, 200)", Steps(0, 1000, 1))
    assert "selection name='GET': 1" in found
    assert "baseline name='GET': 2" in found
    assert "baseline event.exception.type='Timeout': 1" in found
