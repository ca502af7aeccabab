"""A trace in a few figures, from its columns: what a list of search results shows before a trace is opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from collector.otlp.records import service_name
from collector.query.jaeger.model import NO_SERVICE
from collector.query.slices import END_OF_TIME

if TYPE_CHECKING:
    from collections.abc import Sequence

    from collector.otlp.records import Ref

_ERROR = 2


@dataclass(slots=True)
class Summary:
    """Times in Unix ns. The root is the earliest span without a parent, or else the earliest whose parent is not held."""

    root_service: str = ""
    root_operation: str = ""
    start: int = END_OF_TIME
    end: int = 0
    spans: int = 0
    errors: int = 0
    services: dict[str, list[int]] = field(default_factory=dict)
    """Service name -> [spans, spans in error]."""


def summary(refs: Sequence[Ref]) -> Summary:
    """Return the figures of a trace's spans, at least one."""
    made = Summary()
    held = {int(ref.block.column("span_id")[ref.row]) for ref in refs}
    root: tuple[bool, int] = (True, END_OF_TIME)
    for ref in refs:
        block, row = ref.block, ref.row
        service = service_name(block, int(block.column("group")[row])) or NO_SERVICE
        failed = int(block.column("status")[row]) == _ERROR
        parent = int(block.column("parent_span_id")[row])
        made.start, made.end = min(made.start, ref.time), max(made.end, ref.time, int(block.column("end_time")[row]))
        made.spans += 1
        made.errors += failed
        counts = made.services.setdefault(service, [0, 0])
        counts[0] += 1
        counts[1] += failed
        if parent not in held and (parent != 0, ref.time) < root:
            root = (parent != 0, ref.time)
            start, length = int(block.column("name_start")[row]), int(block.column("name_length")[row])
            made.root_operation = bytes(memoryview(block.payload)[start : start + length]).decode()
            made.root_service = service
    return made
