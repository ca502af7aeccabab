"""Where a query's lines come from: the slices of a view, narrowed by a selector and a pipeline.

A selector is asked once for each container and not for each record. `service_name="x"` is also a key of the
ring's postings and of the log's columns (`service`), which spares most blocks; the selector still decides by
the bytes. What the query asks of texts (`keywords.py`) narrows it further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.clock import SystemClock
from collector.otlp.asked import NOTHING
from collector.query.logql import keywords
from collector.query.logql.columns import Batch
from collector.query.logql.containers import label_name
from collector.query.logql.explain import noted
from collector.query.logql.hints import hints_of
from collector.query.logql.known import STREAM, BlockLayer
from collector.query.logql.labels import CONTAINERS_CACHED, SERVICE, UNKNOWN_SERVICE, Records
from collector.query.logql.regex import literal
from collector.query.logql.steps import compile_stages, kept_labels, run, text_predicate
from collector.query.slices import Among, log_slices, slices

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from collector.clock import Clock
    from collector.otlp.asked import Hints
    from collector.otlp.block import Block
    from collector.otlp.records import Ref
    from collector.otlp.terms import Terms
    from collector.query.deadline import Deadline
    from collector.query.logql import ast
    from collector.query.logql.known import Known
    from collector.query.logql.labels import Container
    from collector.query.logql.row import Row
    from collector.query.slices import Slice
    from collector.store import View

SERVICE_LABEL = label_name(SERVICE)


class Statistics:
    """What a query has looked at: lines and their bytes, in the ring and in the log behind it."""

    def __init__(self) -> None:
        self.ring_lines = self.ring_bytes = self.log_lines = self.log_bytes = 0

    def count(self, view: View, block: Block, rows: NDArray[np.intp]) -> None:
        """Count rows of a block, with the bytes of their bodies."""
        size = int(block.column("body_length")[rows].sum())
        if block.end_offset > view.ring_offset:
            self.ring_lines += len(rows)
            self.ring_bytes += size
        else:
            self.log_lines += len(rows)
            self.log_bytes += size

    def count_ring(self, lines: int, size: int) -> None:
        """Count lines of the ring, with the bytes of their bodies."""
        self.ring_lines += lines
        self.ring_bytes += size


class Selection:
    """A selector, ready to run."""

    def __init__(self, selector: ast.Selector) -> None:
        self.selector = selector
        self._tests = [(matcher.label, text_predicate(matcher)) for matcher in selector.matchers]
        self._verdicts: dict[Container, bool] = {}
        self._known: tuple[Known, NDArray[np.bool_]] | None = None
        self.service: bytes | None = None
        """The one service whose records can match, as a key of the `service` index; None: any."""
        for matcher in selector.matchers:
            if matcher.label == SERVICE_LABEL and matcher.op in ("=", "=~"):
                value = matcher.value if matcher.op == "=" else literal(matcher.value)
                if value and value != UNKNOWN_SERVICE:
                    self.service = value.encode()

    def has(self, container: Container) -> bool:
        """Tell whether a container's stream is selected."""
        verdict = self._verdicts.get(container)
        if verdict is None:
            if len(self._verdicts) >= CONTAINERS_CACHED:
                self._verdicts.clear()
            stream = container.stream
            verdict = all(test(stream.get(label, "")) for label, test in self._tests)
            self._verdicts[container] = verdict
        return verdict

    def verdicts(self, streams: Known) -> NDArray[np.bool_]:
        """Tell for each stream of those known whether it is selected."""
        if self._known is None or self._known[0] is not streams:
            selected = np.array([self.has(container) for container in streams.streams], np.bool_)
            self._known = (streams, selected)
        return self._known[1]

    def rows(self, piece: Slice, records: Records, streams: Known | None = None) -> NDArray[np.intp]:
        """Return the rows of a slice that are selected; the records' streams may be known."""
        block, rows = piece
        if streams is not None:
            codes, selected = streams.of(rows + block.base_offset), self.verdicts(streams)
        else:
            codes, containers = records.containers(block, rows)
            selected = np.array([self.has(container) for container in containers], np.bool_)
        if selected.all():
            return rows
        chosen: NDArray[np.intp] = rows[selected[codes]]
        return chosen


def log_pieces(
    view: View, start_ns: int, end_ns: int, deadline: Deadline, terms: Terms = (), hints: Hints = NOTHING
) -> Iterator[Slice]:
    """Yield the parts of log and backend, behind the ring, that can have lines of start_ns <= time <= end_ns."""
    among = Among(view.index, (view.key,)) if view.index is not None else None
    return log_slices(view, start_ns, end_ns, deadline, among, terms=terms, hints=hints, newest_first=True)


class Source:
    """A log query, ready to run. For one thread at a time."""

    def __init__(self, query: ast.LogQuery, clock: Clock | None = None) -> None:
        """Raises InvalidQuery for a stage that cannot be one. The clock is for templates that ask for the time."""
        self.query = query
        self.selection = Selection(query.selector)
        self._steps = compile_stages(query.stages, (clock or SystemClock()).now_ns())
        self.terms = keywords.terms(query)
        """What it asks of a record's texts."""
        self.hints = hints_of(query)
        """What it asks of records in a backend."""
        self.records = Records()
        self.kept: frozenset[str] | None = kept_labels(query.stages)
        """The only labels that `keep` can have left; None when there is none."""

    def row(self, block: Block, row: int) -> Row:
        """Return a record that is among the answers as the pipeline leaves it."""
        line = self.records.row(block, row)
        for step in self._steps:
            step.line(line)
        return line

    def pieces(self, view: View, start_ns: int, end_ns: int, deadline: Deadline) -> Iterator[Slice]:
        """Yield the parts of ring and log that can have lines of start_ns <= time <= end_ns."""
        self.records.remember(view.memo)
        return slices(view, start_ns, end_ns, deadline, terms=self.terms, hints=self.hints)

    def batch(
        self,
        piece: Slice,
        view: View,
        deadline: Deadline,
        statistics: Statistics,
        known: Mapping[str, Known] | None = None,
    ) -> Batch:
        """Return what selector and pipeline leave of a slice; some labels may be known. Raises QueryTimeout."""
        block, effort = piece.block, deadline.effort
        began = effort.clock.monotonic() if effort is not None else 0.0
        here = {name: one for name, one in known.items() if one.has(block)} if known else {}
        rows = self.selection.rows(piece, self.records, here.get(STREAM))
        statistics.count(view, block, rows)
        if effort is not None:
            effort.stage(str(self.query.selector), len(piece.rows), len(rows), began)
        batch = Batch(block, rows, self.records, deadline)
        if here:
            batch.layer = BlockLayer(block, rows, self.records, deadline, here)
        return self.through(batch, deadline)

    def rows(self, refs: Sequence[Ref], deadline: Deadline, statistics: Statistics) -> list[tuple[Ref, Row]]:
        """Return what selector and pipeline leave of a few records of the ring, one by one. Raises QueryTimeout."""
        effort, records = deadline.effort, self.records
        began = effort.clock.monotonic() if effort is not None else 0.0
        found: list[tuple[Ref, Row]] = []
        size = 0
        for ref in refs:
            numbers = ref.block.records.number
            container = records.container(ref.block, numbers("group", ref.row))
            if self.selection.has(container):
                size += numbers("body_length", ref.row)
                found.append((ref, records.row(ref.block, ref.row, container)))
        statistics.count_ring(len(found), size)
        if effort is not None:
            effort.stage(str(self.query.selector), len(refs), len(found), began)
        for stage, step in zip(self.query.stages, self._steps, strict=True):
            if not found:
                break
            deadline.check()
            before, began = len(found), effort.clock.monotonic() if effort is not None else 0.0
            found = [one for one in found if step.line(one[1])]
            if effort is not None:
                effort.stage(str(stage), before, len(found), began)
        return found

    def through(self, batch: Batch, deadline: Deadline) -> Batch:
        """Return what the pipeline leaves of a batch. Raises QueryTimeout."""
        if deadline.effort is not None:
            return noted(deadline.effort, self.query.stages, self._steps, batch, deadline)
        return run(self._steps, batch, deadline)
