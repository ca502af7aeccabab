"""What is wanted, as conditions in SQL: every value is a parameter.

A condition lets through all that is wanted and perhaps more: times to the microsecond, attributes that jsonb may not hold
as they were (`irregular`), texts anywhere in a record's bytes. Source, tenant and what is held are exact.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from psycopg import sql

from collector.exporters import jsontext
from collector.exporters.postgres.copying import stored, stored_json
from collector.exporters.postgres.partitions import time_of
from collector.exporters.postgres.schema import TABLES
from collector.otlp.signals import LOGS, METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from collector.exporters.base import Equal, Source, Wanted

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


def conditions(schema: str, wanted: Wanted, sources: Mapping[Source, int]) -> Conditions:
    """Return what a record must be, but for its time; `sources` are those of the signal and the tenant."""
    found = Conditions([], [])
    found.add("source = ANY(%s)", list(sources.values()))
    for held in wanted.held:
        if held.source in sources:
            found.add("NOT (source = %s AND log_offset >= %s)", sources[held.source], held.first_offset)
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


def _add_attribute(found: Conditions, schema: str, wanted: Wanted, equal: Equal) -> None:
    objects = [_object(equal.key, value) for value in equal.values]
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


def _object(key: str, value: str | float | bool) -> str:
    """Return the JSON object that a record's attributes contain, if it has this one."""
    made = AnyValue()
    if isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int):
        if not -_INT64 <= value < _INT64:
            return stored_json(json.dumps({stored(key): value}))
        made.int_value = value
    elif isinstance(value, float):
        made.double_value = value
    else:
        made.string_value = stored(value)
    return stored_json(f"{{{json.dumps(stored(key))}:{jsontext.value(made.SerializeToString())}}}")
