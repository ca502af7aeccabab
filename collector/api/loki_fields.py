"""What Logs Drilldown asks beside queries: `detected_fields`, `detected_field/{name}/values`, `detected_labels`, `patterns`.

Fields and patterns are found by looking at lines, the newest first. Where a limit ends that before the range does, the
answer has `warnings` that say so, as Loki's answers to queries have.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import msgspec

from collector.api.loki_parameters import POINTS_MAX, QUERY_SPAN, SECOND, Parameters
from collector.api.loki_shapes import utc_text, warnings_of
from collector.errors import InvalidQuery
from collector.query.logql import ast, catalogue, fields, mining
from collector.query.logql.logs import read_lines
from collector.query.logql.parser import parse_selector
from collector.query.logql.plan import Plan, prepare
from collector.query.logql.source import Statistics

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from collector.query.deadline import Deadline
    from collector.query.engine import Engine
    from collector.query.logql.logs import Line
    from collector.query.logql.source import Source
    from collector.store import Store, View

Answer = TypeVar("Answer")

LINES_DEFAULT: Final = 1000
"""Lines that fields are looked for in."""
FIELDS_DEFAULT: Final = 1000
"""Fields, or values of one."""
ALWAYS_SHOWN: Final = frozenset(("cluster", "namespace", "instance", "pod", "service_instance_id"))
"""Labels that are worth showing also where their values are ids: Loki's list, and what OTLP says for instance."""
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?")


class Fields:
    """The endpoints about what lines are made of. Each returns the JSON of its answer."""

    def __init__(self, store: Store, engine: Engine) -> None:
        """Answer from the store of logs."""
        self._store = store
        self._engine = engine

    async def detected_fields(self, request: Request) -> bytes:
        """Answer with the fields of some lines, their types, parsers and numbers of values."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        most = _most(parameters)
        found, warnings = await self._lines(parameters, lambda lines: fields.fields(lines, most))
        answer: dict[str, Any] = {"fields": [_field(one) for one in found]}
        if found:
            answer["limit"] = most
        return msgspec.json.encode(answer | warnings)

    async def detected_field_values(self, request: Request) -> bytes:
        """Answer with the values that one field has on some lines."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        most, name = _most(parameters), request.path_params["name"]
        found, warnings = await self._lines(parameters, lambda lines: fields.values(lines, name, most))
        answer: dict[str, Any] = {"values": found}
        if found:
            answer["limit"] = most
        return msgspec.json.encode(answer | warnings)

    async def detected_labels(self, request: Request) -> bytes:
        """Answer with the labels that are worth a look: not those whose values are all numbers or ids."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        start_ns, end_ns = parameters.bounds(QUERY_SPAN)
        text = parameters.text("query").strip()

        def ask(deadline: Deadline, view: View) -> bytes:
            selectors = [parse_selector(text)] if text else []
            known: dict[str, set[str]] = {}
            for stream in catalogue.streams(deadline, view, selectors, start_ns, end_ns):
                for name, value in stream.items():
                    known.setdefault(name, set()).add(value)
            shown = [
                {"label": name, "cardinality": len(values)}
                for name, values in sorted(known.items())
                if name in ALWAYS_SHOWN or not _are_ids(values)
            ]
            return msgspec.json.encode({"detectedLabels": shown, **warnings_of(view)})

        with self._store.view() as view:
            return await self._engine.run(ask, view)

    async def patterns(self, request: Request) -> bytes:
        """Answer with the patterns of lines, and how many there are of each in each step."""
        parameters = await Parameters.of(request, self._engine.clock.now_ns())
        start_ns, end_ns = parameters.bounds(QUERY_SPAN)
        step_ns = max(parameters.step(start_ns, end_ns), SECOND)
        if (end_ns - start_ns) // step_ns > POINTS_MAX:
            raise InvalidQuery(f"there are more than {POINTS_MAX} steps; take a larger one")

        def ask(deadline: Deadline, view: View, source: Source) -> bytes:
            found = mining.mine(deadline, view, source, start_ns, end_ns - 1, step_ns)
            data = [
                {
                    "pattern": one.text,
                    "level": one.level,
                    "samples": [[time // SECOND, count] for time, count in one.samples],
                }
                for one in found.patterns
            ]
            return msgspec.json.encode({"status": "success", "data": data} | _mined(view, found))

        return await self._ask(parameters, ask)

    async def _lines(
        self, parameters: Parameters, read: Callable[[list[Line]], Any]
    ) -> tuple[Any, dict[str, list[str]]]:
        """Return what `read` makes of the newest lines of a query, and what to warn about."""
        start_ns, end_ns = parameters.bounds(QUERY_SPAN)
        limit = parameters.number("line_limit", LINES_DEFAULT)

        def ask(deadline: Deadline, view: View, source: Source) -> tuple[Any, dict[str, list[str]]]:
            lines = read_lines(deadline, view, source, start_ns, end_ns - 1, limit, False, Statistics())
            return read(lines), warnings_of(view)

        return await self._ask(parameters, ask)

    async def _ask(self, parameters: Parameters, function: Callable[[Deadline, View, Source], Answer]) -> Answer:
        """Run a function over what a log query selects."""
        plan: Plan = await self._engine.run(_prepare, parameters.text("query"))
        [source] = plan.sources.values()
        service = source.selection.service
        with self._store.view("service", service) if service else self._store.view() as view:
            return await self._engine.run(function, view, source)


def _prepare(deadline: Deadline, text: str) -> Plan:
    plan = prepare(text)
    if not isinstance(plan.expression, ast.LogQuery):
        raise InvalidQuery("this asks about log lines, and not about metrics: give a selector, with filters or without")
    return plan


def _most(parameters: Parameters) -> int:
    return parameters.number("limit" if parameters.text("limit") else "field_limit", FIELDS_DEFAULT)


def _field(one: fields.Field) -> dict[str, Any]:
    shape: dict[str, Any] = {
        "label": one.name,
        "type": one.type,
        "cardinality": len(one.values),
        "parsers": one.parsers or None,
    }
    if one.path:
        shape["jsonPath"] = one.path
    return shape


def _are_ids(values: set[str]) -> bool:
    """Tell whether all values are numbers or UUIDs, and not just the truth values 0 and 1."""
    return not values <= {"0", "1"} and all(_NUMBER.fullmatch(value) or _is_uuid(value) for value in values)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _mined(view: View, found: mining.Patterns) -> dict[str, list[str]]:
    """Return what to warn about."""
    warnings = list(warnings_of(view).get("warnings", ()))
    if found.since_ns is not None:
        since = utc_text(found.since_ns)
        warnings.append(f"patterns are of the newest {found.lines} lines, since {since}: more are not looked at")
    if found.left_out:
        warnings.append(
            f"{found.left_out} lines of rare forms are in no pattern; there are {mining.CLUSTERS_MAX} at most"
        )
    return {"warnings": warnings} if warnings else {}
