"""Which traces come into question for a query over whole traces, before they are evaluated.

Every span of the answer fulfils the plan's seed, so the traces that have such a span come into question. Each of what is
required is fulfilled by some span of every trace in the answer, which serves in two ways:

* `having` and `sifted`: of many traces those are left out that do not have it.
* `rare_side`: if key indexes say that few frames of the log can have it, the traces that have it are all that come into
  question, and to read those is cheaper than to read all that has the seed. Say, of `{ .customer = "4711" } >> { status =
  error }`: all errors, or the traces of one customer. Which of them is rare is asked when it is about to matter
  (`Patience`): a query whose answer lies among the newest traces never asks.

What is required is implied by the query, and the query is evaluated on whole traces, so the answer is the same whichever
way a trace was found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from collector.query.effort import as_part
from collector.query.slices import END_OF_TIME
from collector.query.traceql.conditions import fulfilling
from collector.query.traceql.keywords import terms
from collector.query.traceql.structure import Numbering

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from collector.otlp.block import Block
    from collector.query.deadline import Deadline
    from collector.query.slices import Wanted
    from collector.query.traceql.ast import Expression
    from collector.query.traceql.plan import Plan
    from collector.store import View

TRACE_SPREAD_NS: Final = 3600 * 10**9
"""How far from the span by which it was found a trace's spans are looked for in the log: an hour to both sides."""
FRAMES_FIRST: Final = 32
"""Frames of the log, and segments, that are looked at before it is asked whether something required is rare."""
RARE_SHARE: Final = 1 / 2
"""What is rare: frames with at most this share of the log's bytes can have it.

Both ways stop when the answer is complete, so down to the same time what is rare is read with this share of the work."""

Candidate = tuple[bytes, int]
"""A trace, and a time near which it is."""


def fresh(known: Numbering, block: Block, rows: NDArray[np.intp]) -> list[Candidate]:
    """Return the traces of some rows that were not known yet."""
    if not rows.size:
        return []
    words = block.column("trace_id")[rows]
    before = len(known)
    numbers = known.add(words[:, 0], words[:, 1])
    if len(known) == before:
        return []
    fresh = np.full(len(known) - before, -1, np.intp)
    new = np.flatnonzero(numbers >= before)[::-1]
    fresh[numbers[new] - before] = new
    times = block.column("time")[rows[fresh]].tolist()
    raw = np.ascontiguousarray(words[fresh]).tobytes()
    return [(raw[16 * at : 16 * at + 16], time) for at, time in enumerate(times)]


@as_part("traces that have what is required")
def having(deadline: Deadline, view: View, condition: Expression, start_ns: int, end_ns: int) -> Numbering:
    """Return the traces around [start_ns, end_ns] that have a span which fulfils a condition."""
    found = Numbering()
    since, until = max(0, start_ns - TRACE_SPREAD_NS), min(END_OF_TIME, end_ns + TRACE_SPREAD_NS)
    for block, rows in fulfilling(deadline, view, condition, since if view.log is not None else 0, until):
        words = block.column("trace_id")[rows]
        found.add(words[:, 0], words[:, 1])
    return found


def sifted(waiting: list[Candidate], sieve: list[Numbering]) -> list[Candidate]:
    """Leave out the traces that one of these does not have."""
    for having in sieve:
        if not waiting:
            break
        words = np.frombuffer(b"".join(trace for trace, _ in waiting), "u8").reshape(-1, 2)
        kept = having.find(words[:, 0], words[:, 1]) >= 0
        waiting = [one for one, keep in zip(waiting, kept.tolist(), strict=True) if keep]
    return waiting


def rare_side(view: View, planned: Plan, since_ns: int, until_ns: int) -> Expression | None:
    """Return what is required and rare in the log, rarer than the seed; None when nothing is.

    It asks key indexes, and reads nothing else.
    """
    if view.log is None or not planned.required:
        return None
    end = view.ring.blocks[0].base_offset if view.ring.blocks else view.ring.next_offset
    least, rarest = RARE_SHARE, None
    for at, one in enumerate((planned.seed, *planned.required)):
        asked = terms(one)
        share = view.log.share(asked, end, since_ns, until_ns) if asked else 1.0
        if share < least or (at == 0 and share <= least):
            least, rarest = share, one if at else None
    return rarest


@as_part("traces that have what is rare")
def having_rare(deadline: Deadline, view: View, side: Expression, since_ns: int, until_ns: int) -> list[Candidate]:
    """Return the traces that have what is required and rare, in a time range that has all of a query's traces."""
    known = Numbering()
    return [one for piece in fulfilling(deadline, view, side, since_ns, until_ns) for one in fresh(known, *piece)]


class Patience:
    """Lets the log be read for the seed, and then finds out whether it is better to begin at something that is rare."""

    def __init__(self, wanted: Wanted, rare_side: Callable[[], Expression | None]) -> None:
        """`rare_side` is asked at most once."""
        self._wanted = wanted
        self._rare_side = rare_side
        self._frames = 0
        self._asked = False
        self.side: Expression | None = None
        """What is rare; then the seed's spans are wanted no more."""

    def wanted(self, min_ns: int, max_ns: int) -> bool:
        """See `engine.Wanted`: of what the log has."""
        if self.side is not None or not self._wanted(min_ns, max_ns):
            return False
        self._frames += 1
        return self._frames < FRAMES_FIRST or not self.ends()

    def ends(self) -> bool:
        """Ask, and tell whether there is something rare."""
        if not self._asked:
            self._asked = True
            self.side = self._rare_side()
        return self.side is not None
