"""Where a query's lines come from: the slices of a view, narrowed by a selector and a pipeline.

A selector is asked once for each container and not for each record. `service_name="x"` is also a key of the
ring's postings and of the log's columns (`service`), which spares most blocks; the selector still decides by
the bytes. What the query asks of texts (`keywords.py`) narrows it further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from collector.query.engine import Pruning, slices
from collector.query.logql import keywords
from collector.query.logql.columns import Batch
from collector.query.logql.labels import CONTAINERS_CACHED, SERVICE, UNKNOWN_SERVICE, Records, label_name
from collector.query.logql.regex import literal
from collector.query.logql.steps import ChangeStep, Kept, compile_stages, run, text_predicate

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.engine import Deadline, Slice
    from collector.query.logql import ast
    from collector.query.logql.columns import Change
    from collector.query.logql.labels import Container
    from collector.store import View

SERVICE_LABEL = label_name(SERVICE)


class Statistics:
    """What a query has looked at: lines and their bytes, in the ring and in the log behind it."""

    def __init__(self) -> None:
        self.ring_lines = self.ring_bytes = self.log_lines = self.log_bytes = 0
        self.matched = 0
        """Lines that the pipelines have left."""
        self.pruning = Pruning()
        """What the keyword index has spared it."""

    def count(self, view: View, block: Block, rows: NDArray[np.intp]) -> None:
        """Count rows of a block, with the bytes of their bodies."""
        size = int(block.column("body_length")[rows].sum())
        if block.end_offset > view.ring_offset:
            self.ring_lines += len(rows)
            self.ring_bytes += size
        else:
            self.log_lines += len(rows)
            self.log_bytes += size


class Selection:
    """A selector, ready to run."""

    def __init__(self, selector: ast.Selector) -> None:
        self._tests = [(matcher.label, text_predicate(matcher)) for matcher in selector.matchers]
        self._verdicts: dict[Container, bool] = {}
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

    def rows(self, piece: Slice, records: Records) -> NDArray[np.intp]:
        """Return the rows of a slice that are selected."""
        block, rows = piece
        codes, containers = records.containers(block, rows)
        selected = np.array([self.has(container) for container in containers], np.bool_)
        if selected.all():
            return rows
        chosen: NDArray[np.intp] = rows[selected[codes]]
        return chosen


class Source:
    """A log query, ready to run. For one thread at a time."""

    def __init__(self, query: ast.LogQuery) -> None:
        """Raises InvalidQuery for a stage that is not evaluated."""
        self.selection = Selection(query.selector)
        self._steps = compile_stages(query.stages)
        self.terms = keywords.terms(query)
        """What it asks of a record's texts."""
        self.records = Records()
        self.changes: Sequence[Change] = [step.change for step in self._steps if isinstance(step, ChangeStep)]
        """What the pipeline does to labels."""
        kept = [change.names for change in self.changes if isinstance(change, Kept)]
        self.kept: frozenset[str] | None = frozenset.intersection(*kept) if kept else None
        """The only labels that `keep` can have left; None when there is none."""

    def batch(self, piece: Slice, view: View, deadline: Deadline, statistics: Statistics) -> Batch:
        """Return what selector and pipeline leave of a slice. Raises QueryTimeout."""
        rows = self.selection.rows(piece, self.records)
        statistics.count(view, piece.block, rows)
        batch = run(self._steps, Batch(piece.block, rows, self.records), deadline)
        statistics.matched += len(batch.rows)
        return batch

    def batches(
        self, view: View, start_ns: int, end_ns: int, deadline: Deadline, statistics: Statistics
    ) -> Iterator[Batch]:
        """Yield the batches with lines of start_ns <= time <= end_ns."""
        self.records.remember(view.memo)
        for piece in slices(view, start_ns, end_ns, deadline, terms=self.terms, pruning=statistics.pruning):
            batch = self.batch(piece, view, deadline, statistics)
            if batch.rows.size:
                yield batch
