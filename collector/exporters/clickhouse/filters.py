"""What is wanted of a table, as conditions with parameters.

Tenant, held records and, for deleting, traces and times are exact. All else narrows, and may let more through: where the
table's texts do not tell (numbers that can be written in several ways, texts that JSON would write differently), there is no
condition.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from collector.exporters.base import Equal, Wanted
    from collector.exporters.clickhouse.schema import Table

VALUES_MAX: Final = 1000
"""Values that one condition has, at most; for more there is none."""
PARAMETER_BYTES_MAX: Final = 256 * 1024
"""Bytes of all values that narrow a search, at most: the server takes a URL of 1 MiB."""
LAST_NS: Final = 2**63 - 1
"""The last time that a table has; later ones are written as this."""
LAST_S: Final = 2**32 - 1
"""The last second that a DateTime has."""
_ANEW_NS: Final = ((LAST_S + 1) * 10**9, 2**16 * 86_400 * 10**9)
"""Where toDateTime and toDate begin anew."""
_EXACT_INTEGERS: Final = 2**53
_UNLIKE_JSON: Final = frozenset('"\\<>&\u2028\u2029\x7f')


class Conditions:
    """Conditions of one statement, joined by AND; and their parameters."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.parameters: dict[str, str] = {}
        self._bytes = 0

    def value(self, value: str | int, kind: str = "String") -> str:
        """Return what stands for a value in the statement."""
        name = f"p{len(self.parameters)}"
        self.parameters[name] = str(value)
        self._bytes += len(self.parameters[name].encode("utf-8", "surrogatepass"))
        return f"{{{name}:{kind}}}"

    def fits(self, values: Iterable[str]) -> bool:
        """Tell whether there is room for values that narrow only."""
        found = list(values)
        return (
            0 < len(found) <= VALUES_MAX
            and self._bytes + sum(len(one.encode("utf-8", "replace")) for one in found) <= PARAMETER_BYTES_MAX
        )

    def among(self, expression: str, values: Iterable[str | int], kind: str = "String") -> str:
        """Return the condition that an expression has one of some values."""
        return f"{expression} IN ({', '.join(self.value(one, kind) for one in values)})"

    @property
    def where(self) -> str:
        """The whole."""
        return " AND ".join(self.parts) or "1"


def time_of(table: Table) -> str:
    """Return a row's main time in Unix ns, as an expression."""
    return nanoseconds(table.layout.time, table.types[table.layout.time])


def nanoseconds(expression: str, kind: str) -> str:
    """Return a time in Unix ns, as an expression."""
    if kind.startswith("DateTime64"):
        return f"toInt64(toUnixTimestamp64Nano(CAST({expression}, 'DateTime64(9)')))"
    return f"toInt64(toUnixTimestamp({expression})) * 1000000000"


def add_range(conditions: Conditions, table: Table, start_ns: int, end_ns: int, *, far: bool = True) -> None:
    """Add that the main time is from `start_ns` to `end_ns`, both inclusive; not `far`: of a table that has nothing later than
    `LAST_S`.

    The server passes over days and granules by toDate and toDateTime of a bound, which begin anew after 2149-06-06 and 2106-02-07.
    What reaches behind that has other conditions beside it, for which those are 0.
    """
    column = f"`{table.layout.time}`"
    if not table.types[table.layout.time].startswith("DateTime64"):
        for sign, time in ((">=", start_ns), ("<=", end_ns)):
            if 0 < time < LAST_NS:
                stamp = conditions.value(min(time // 10**9, LAST_S), "UInt32")
                conditions.parts.append(f"{column} {sign} toDateTime({stamp})")
        return
    behind = end_ns >= _ANEW_NS[0]
    far = far and behind
    exact = time_of(table)
    if start_ns > 0:
        value = conditions.value(min(start_ns, LAST_NS), "Int64")
        later = [f"{column} >= {_stamp(str(one))} AND {exact} >= {value}" for one in _ANEW_NS] if far else []
        conditions.parts.append(f"({' OR '.join([f'{column} >= {_stamp(value)}', *later])})")
    if end_ns < LAST_NS and far >= behind:
        value = conditions.value(end_ns, "Int64")
        if far:
            conditions.parts.append(f"({column} < {_stamp(str(_ANEW_NS[0]))} OR {exact} <= {value})")
        else:
            conditions.parts.append(f"{column} <= {_stamp(value)}")


def _stamp(value: str) -> str:
    return f"fromUnixTimestamp64Nano({value})"


def add_tenant(conditions: Conditions, table: Table, tenant: str) -> bool:
    """Add whose rows are meant; False when the table has none of that tenant."""
    if table.keyed:
        conditions.parts.append(f"RingtailTenant = {conditions.value(tenant)}")
        return True
    return not tenant


def hexadecimal(trace_id: bytes) -> str:
    """Return a trace id as tables have it."""
    return trace_id.hex() if trace_id.strip(b"\0") else ""


def wanted_rows(table: Table, wanted: Wanted, *, far: bool) -> Conditions | None:
    """Return the conditions for what is wanted of a table; None when it has nothing of it. `far` as `add_range` has it."""
    made = Conditions()
    if not add_tenant(made, table, wanted.tenant):
        return None
    if table.keyed:
        for one in wanted.held:
            if (one.source.signal, one.source.tenant) == (wanted.signal, wanted.tenant):
                instance = made.value(one.source.instance)
                offset = made.value(one.first_offset, "UInt64")
                made.parts.append(f"NOT (RingtailInstance = {instance} AND RingtailOffset >= {offset})")
    add_range(made, table, wanted.start_ns, wanted.end_ns, far=far)
    layout = table.layout
    ids = [hexadecimal(one) for one in wanted.trace_ids]
    for column, values in (
        ("TraceId" if layout.traced else "", ids),
        ("ServiceName", wanted.services),
        (layout.name, wanted.names),
    ):
        if column in table.types and made.fits(values):
            made.parts.append(made.among(f"`{column}`", values))
    if "SeverityNumber" in table.types and made.fits(map(str, wanted.severities)):
        made.parts.append(made.among("SeverityNumber", wanted.severities, "UInt8"))
    if {"Body", "LogAttributes"} <= table.types.keys():
        for texts in wanted.texts:
            _add_texts(made, texts)
    for equal in wanted.attributes:
        _add_equal(made, table, equal)
    return made


def _add_texts(made: Conditions, texts: tuple[bytes, ...]) -> None:
    found = []
    for one in texts:
        try:
            found.append(one.decode())
        except UnicodeDecodeError:
            return
    if any(character < " " or character in _UNLIKE_JSON for text in found for character in text) or not made.fits(
        found
    ):
        return
    either = []
    for text in found:
        value = made.value(text)
        either.append(
            f"position(Body, {value}) > 0 OR arrayExists(v -> position(v, {value}) > 0, mapValues(LogAttributes))"
        )
    made.parts.append(f"({' OR '.join(either)})")


def _add_equal(made: Conditions, table: Table, equal: Equal) -> None:
    values: list[str] = []
    for one in equal.values:
        if (spelled := _spelled(one)) is None:
            return
        values += spelled
    own = {"resource": ("ResourceAttributes",), "record": (table.layout.attributes,)}
    maps = own.get(equal.where, ("ResourceAttributes", table.layout.attributes))
    if not all(one in table.types for one in maps) or not made.fits([equal.key, *values]):
        return
    key = made.value(equal.key)
    among = made.among("v", values)
    # An array stands there as JSON, and has its elements as values, too.
    each = f"arrayExists((k, v) -> k = {key} AND ({among} OR startsWith(v, '[')), mapKeys({{0}}), mapValues({{0}}))"
    made.parts.append(f"({' OR '.join(f'(mapContains({one}, {key}) AND {_in(each, one)})' for one in maps)})")


def _in(condition: str, column: str) -> str:
    return condition.replace("{0}", column)


def _spelled(value: str | float | bool) -> list[str] | None:
    """Return the ways in which a value may be written; None when there are more than we know."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, bool):
        return ["true" if value else "false"]
    if value == 0:
        return ["0", "-0"]
    if abs(value) < _EXACT_INTEGERS and value == int(value):
        return [str(int(value))]
    if isinstance(value, float) and 1e-4 <= abs(value) < _EXACT_INTEGERS:
        return [repr(value)]
    return None
