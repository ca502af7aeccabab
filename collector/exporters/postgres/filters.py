"""What is wanted, as conditions in SQL: every value is a parameter.

A condition lets through all that is wanted and perhaps more: times to the microsecond, attributes that jsonb may not hold
as they were (`irregular`), texts anywhere in a record's bytes. Source, tenant and what is held are exact.
"""

from __future__ import annotations

import json
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from psycopg import sql
from psycopg.types.multirange import Multirange
from psycopg.types.range import Int8Range

from collector.exporters import jsontext
from collector.exporters.postgres.copying import stored, stored_json
from collector.exporters.postgres.partitions import time_of
from collector.exporters.postgres.schema import TABLES
from collector.otlp.signals import LOGS, METRICS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collector.exporters.base import Equal, Source, Wanted
    from collector.otlp.signals import Signal

STRETCHES_MAX: Final = 8
"""Of offsets, in one statement: each is looked up in all of a table's index."""
_NO_ID: Final = bytes(16)
_INT64: Final = 2**63


class Conditions(NamedTuple):
    """Conditions that all hold, and their parameters."""

    parts: list[sql.Composable]
    values: list[Any]

    def add(self, text: str, *values: Any, **names: sql.Composable) -> None:
        """Add one more."""
        self.parts.append(sql.SQL(text).format(**names))
        self.values.extend(values)

    @property
    def where(self) -> sql.Composed:
        """All of them."""
        return sql.SQL(" AND ").join(self.parts)


def of_tenant(schema: str, signal: Signal, tenant: str) -> Conditions:
    """Return what the records of a tenant are; it has no NUL."""
    found = Conditions([], [])
    found.add(
        "source = ANY(ARRAY(SELECT id FROM {schema}.sources WHERE tenant = %s AND signal = %s))",
        *(tenant, signal.name),
        schema=sql.Identifier(schema),
    )
    return found


def conditions(schema: str, wanted: Wanted) -> Conditions:
    """Return what a record must be, but for its time."""
    found = of_tenant(schema, wanted.signal, wanted.tenant)
    for held in wanted.held:
        source = held.source
        if source.signal is wanted.signal and source.tenant == wanted.tenant and "\0" not in source.instance:
            found.add(
                "NOT (log_offset >= %s AND source = ANY(ARRAY("
                "SELECT id FROM {schema}.sources WHERE instance = %s AND tenant = %s AND signal = %s)))",
                *(held.first_offset, source.instance, source.tenant, source.signal.name),
                schema=sql.Identifier(schema),
            )
    if wanted.trace_ids and wanted.signal is not METRICS:
        absent = " OR trace_id IS NULL" if _NO_ID in wanted.trace_ids else ""
        found.add(f"(trace_id = ANY(%s){absent})", list(wanted.trace_ids))
    if wanted.services:
        found.add("service = ANY(%s)", [stored(one) for one in wanted.services])
    if wanted.names and wanted.signal is not LOGS:
        found.add("name = ANY(%s)", [stored(one) for one in wanted.names])
    if wanted.severities and wanted.signal is LOGS:
        found.add("severity_number = ANY(%s)", list(wanted.severities))
    if wanted.signal is LOGS:
        for texts in wanted.texts:
            found.add("(" + " OR ".join(["position(%s in record) > 0"] * len(texts)) + ")", *texts)
    for one in wanted.attributes:
        _add_attribute(found, schema, wanted, one)
    return found


def stretches_of(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return `STRETCHES_MAX` stretches at most, of offsets [first, end), that hold all of these ranges: cut where most is
    between two of them."""
    ordered = sorted(ranges)
    ends = list(accumulate((end for _, end in ordered), max))
    gaps = sorted(range(1, len(ordered)), key=lambda at: ordered[at][0] - ends[at - 1], reverse=True)
    edges = [0, *sorted(at for at in gaps[: STRETCHES_MAX - 1] if ordered[at][0] > ends[at - 1]), len(ordered)]
    return [(ordered[at][0], ends[behind - 1]) for at, behind in pairwise(edges)]


def deletion(schema: str, source: Source, ranges: Sequence[tuple[int, int]]) -> tuple[sql.Composed, list[Any]]:
    """Return the statement, with its parameters, that deletes the records of a source with these offsets, one range at least.

    BRIN tells which pages have offsets of some stretches that the ranges lie in; those are read.
    """
    found = Conditions([], [])
    within = stretches_of(ranges)
    found.add(
        f"({' OR '.join(['(log_offset >= %s AND log_offset < %s)'] * len(within))})",
        *(edge for stretch in within for edge in stretch),
    )
    found.add("log_offset <@ %s::int8multirange", Multirange([Int8Range(first, end) for first, end in ranges]))
    found.add(
        "source = ANY(ARRAY(SELECT id FROM {schema}.sources WHERE instance = %s AND tenant = %s AND signal = %s))",
        *(source.instance, source.tenant, source.signal.name),
        schema=sql.Identifier(schema),
    )
    records = sql.Identifier(schema, TABLES[source.signal].records)
    return sql.SQL("DELETE FROM {} WHERE {}").format(records, found.where), found.values


def _add_attribute(found: Conditions, schema: str, wanted: Wanted, equal: Equal) -> None:
    objects = [made for value in equal.values for made in _objects(equal.key, value)]
    own = " OR ".join(["irregular", *["attributes @> %s::jsonb"] * len(objects)])
    around = " OR ".join(["irregular", *["resource_attributes @> %s::jsonb"] * len(objects)])
    of_resource = (
        f"container IN (SELECT id FROM {{schema}}.{{containers}} WHERE day >= %s AND day <= %s AND ({around}))"  # noqa: S608 - both are of constants
    )
    names = {
        "schema": sql.Identifier(schema),
        "containers": sql.Identifier(TABLES[wanted.signal].containers),
    }
    days = [time_of(wanted.start_ns).date(), time_of(wanted.end_ns).date()]
    if equal.where == "record":
        found.add(f"({own})", *objects)
    elif equal.where == "resource":
        found.add(of_resource, *days, *objects, **names)
    else:
        found.add(f"({own} OR {of_resource})", *objects, *days, *objects, **names)


def _objects(key: str, value: str | float | bool) -> tuple[str, str]:
    """Return JSON objects of which a record's attributes contain one, if it has this one: as a value, or in an array."""
    alone = _object(key, value, "")
    return alone, _object(key, value, "[]")


def _object(key: str, value: str | float | bool, around: str) -> str:
    made = AnyValue()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            return stored_json(json.dumps({stored(key): [value] if around else value}))
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    else:
        made.string_value = stored(value)
    text = around[:1] + jsontext.value(made.SerializeToString()) + around[1:]
    return stored_json(f"{{{json.dumps(stored(key))}:{text}}}")
