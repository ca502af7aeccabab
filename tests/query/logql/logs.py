"""Log records for tests: hypothesis strategies for small requests, and a ring or a view of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from collector.otlp.scan import scan
from collector.otlp.signals import LOGS
from collector.query.deadline import Deadline
from collector.query.logql.columns import Batch
from collector.query.logql.labels import Records
from collector.ring.ring import Ring
from collector.store import Store, View

SECOND = 1_000_000_000

KEYS = [
    "service.name",
    "service_name",
    "k8s.pod.name",
    "http.method",
    "http_method",
    "http",
    "level",
    "flags",
]
KEYS += ["trace_id", "severity_text", "detected_level", "é", "", "a.b", "service.name_extracted"]
KEYS += ["severity", "Level", "level_extracted", "loki.resource.labels"]
TEXTS = st.sampled_from(
    [
        "",
        "a",
        "b",
        "GET",
        "unknown_service",
        "error",
        "7",
        "true",
        "é\n",
        "WRN",
        "level, a.b",
        "it=5 lvl=Warn",
        '{"level":"ERR"}',
    ]
)


def values(depth: int = 2) -> st.SearchStrategy[dict[str, Any]]:
    """Return a strategy for AnyValues as keyword arguments."""
    scalar = st.one_of(
        TEXTS.map(lambda text: {"string_value": text}),
        st.booleans().map(lambda truth: {"bool_value": truth}),
        st.sampled_from([-1, 0, 7, 2**63 - 1, -(2**63)]).map(lambda number: {"int_value": number}),
        st.sampled_from([0.0, -0.0, 7.0, 1.5, 1e21, 1e-7, float("inf"), float("nan")]).map(
            lambda number: {"double_value": number}
        ),
        st.sampled_from([b"", b"\xff\x00"]).map(lambda raw: {"bytes_value": raw}),
        st.just({}),
    )
    if depth == 0:
        return scalar
    inner = values(depth - 1)
    pairs = st.lists(st.fixed_dictionaries({"key": st.sampled_from(["method", "x", ""]), "value": inner}), max_size=2)
    return st.one_of(
        TEXTS.map(lambda text: {"string_value": text}),
        scalar,
        st.lists(inner, max_size=2).map(lambda each: {"array_value": {"values": each}}),
        pairs.map(lambda each: {"kvlist_value": {"values": each}}),
    )


def attributes(keys: Sequence[str] = KEYS) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Return a strategy for lists of KeyValues."""
    return st.lists(st.fixed_dictionaries({"key": st.sampled_from(keys), "value": values()}), max_size=3)


SERVICES = st.sampled_from(["", "a", "b"]).map(
    lambda name: [{"key": "service.name", "value": {"string_value": name}}] if name else []
)
RECORDS = st.fixed_dictionaries(
    {
        "time_unix_nano": st.integers(0, 60).map(lambda s: s * SECOND) | st.integers(1, 60 * SECOND),
        "observed_time_unix_nano": st.sampled_from([0, 5 * SECOND]),
        "severity_number": st.sampled_from([0, 1, 9, 17, 24]),
        "severity_text": st.sampled_from(["", "INFO", "Warning", "CRITICAL", "notice"]),
        "body": TEXTS.map(lambda text: {"string_value": text}) | values(),
        "attributes": attributes(),
        "trace_id": st.sampled_from([b"", bytes(16), b"t" * 16, b"u" * 16]),
        "span_id": st.sampled_from([b"", bytes(8), b"s" * 8]),
        "flags": st.sampled_from([0, 1]),
        "dropped_attributes_count": st.sampled_from([0, 3]),
        "event_name": st.sampled_from(["", "a"]),
    }
)
SCOPES = st.fixed_dictionaries(
    {
        "scope": st.fixed_dictionaries(
            {
                "name": st.sampled_from(["", "lib"]),
                "version": st.sampled_from(["", "1"]),
                "attributes": attributes(),
            }
        ),
        "log_records": st.lists(RECORDS, max_size=4),
    }
)
RESOURCES = st.fixed_dictionaries(
    {
        "resource": st.builds(lambda service, others: {"attributes": [*service, *others]}, SERVICES, attributes()),
        "scope_logs": st.lists(SCOPES, max_size=2),
    }
)
REQUESTS = st.lists(RESOURCES, max_size=2).map(lambda each: LOGS.request_type(resource_logs=each))

"""Requests of every shape: keys that collide, values of all types, empty containers."""


def _dense(service: str, records: list[tuple[int, str, str, int, bool]]) -> Any:
    """Return a request of (second, body, level attribute, severity, has a trace)."""
    return LOGS.request_type(
        resource_logs=[
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"string_value": service}}]},
                "scope_logs": [
                    {
                        "log_records": [
                            {
                                "time_unix_nano": second * SECOND,
                                "body": {"string_value": body},
                                "attributes": [{"key": "level", "value": {"string_value": level}}],
                                "severity_number": severity,
                                "trace_id": b"t" * 16 if traced else b"",
                            }
                            for second, body, level, severity, traced in records
                        ]
                    }
                ],
            }
        ]
    )


DENSE_REQUESTS = st.builds(
    _dense,
    st.sampled_from(["", "a", "b"]),
    st.lists(
        st.tuples(
            st.integers(0, 30),
            st.sampled_from(["", "a", "a\nb", "GET b", "Ger", "7é"]),
            st.sampled_from(["", "a", "ab", "error"]),
            st.sampled_from([0, 9, 17]),
            st.booleans(),
        ),
        min_size=1,
        max_size=8,
    ),
)
"""Requests of which queries find something: few texts, few seconds, few labels."""


class Stopped:
    """A clock that stands still."""

    def __init__(self, now_ns: int = 100 * SECOND) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        """See `Clock.now_ns`."""
        return self._now_ns

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return 0.0


def deadline() -> Deadline:
    """Return a deadline that is never reached."""
    return Deadline(1.0, Stopped())


def store_of(payloads: Sequence[bytes], capacity: int = 1000) -> Store:
    """Return a store without a log that holds these requests, a block each."""
    ring = Ring(LOGS, capacity, 1 << 30)
    for payload in payloads:
        block = scan(LOGS, payload, ring.next_offset)
        if block.count:
            ring.append(block)
    loop: Any = None
    return Store(LOGS, ring, None, loop)


def view_of(payloads: Sequence[bytes]) -> View:
    """Return a view of these requests, a block each."""
    return store_of(payloads).view()


def batch_of(payload: bytes) -> Batch:
    """Return a batch of all records of a request."""
    import numpy as np

    block = scan(LOGS, payload, 0)
    return Batch(block, np.arange(block.count), Records())
