"""Series over time: steps of a range, samples, and the stages that choose among series."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.errors import InvalidQuery
from collector.query.traceql.ast import Literal, Metrics, MetricsFilter, Type
from collector.query.traceql.exemplars import Exemplar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

POINTS_MAX: Final = 11_000
"""Steps of one query."""
POINTS_USUAL: Final = 240
"""Steps that a range is cut into at most when none is asked for."""

Label = str | int | float | bool | None
Labels = tuple[tuple[str, Label], ...]

_HOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a range: `count` of `step_ns`, the first from behind `begin_ns`. Of an instant query one."""

    begin_ns: int
    step_ns: int
    count: int
    instant: bool = False

    @classmethod
    def over(cls, start_ns: int, end_ns: int, step_ns: int) -> Steps:
        """Cut a range, widened to whole steps. Raises InvalidQuery when they are too many."""
        begin = start_ns // step_ns * step_ns
        count = max(1, -(-(end_ns - begin) // step_ns))
        if count > POINTS_MAX:
            raise InvalidQuery(f"the range has {count} steps; {POINTS_MAX} are the most: take a larger step")
        return cls(begin, step_ns, count)

    @classmethod
    def one(cls, start_ns: int, end_ns: int) -> Steps:
        """Take a range as one step that has both its ends."""
        return cls(start_ns - 1, max(1, end_ns - start_ns), 1, instant=True)

    @property
    def first_ns(self) -> int:
        """The first nanosecond of the first step."""
        return self.begin_ns + 1

    @property
    def last_ns(self) -> int:
        """The last nanosecond of the last step."""
        return self.begin_ns + self.step_ns * self.count + self.instant

    @property
    def times(self) -> list[int]:
        """When each step ends, Unix ns."""
        if self.instant:
            return [self.last_ns]
        return [self.begin_ns + self.step_ns * (at + 1) for at in range(self.count)]

    def of(self, times: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return in which step each time lies."""
        if self.instant:
            return np.zeros(len(times), np.int64)
        # Unsigned, numpy divides by a constant several times faster.
        return ((times - np.uint64(self.first_ns)) // np.uint64(self.step_ns)).view(np.int64)


def usual_step(start_ns: int, end_ns: int) -> int:
    """Return a step for a range: whole seconds, and at most `POINTS_USUAL` steps."""
    second = 10**9
    return max(1, -(-(end_ns - start_ns) // (POINTS_USUAL * second))) * second


@dataclass(slots=True)
class Series:
    """One series: labels, a sample for each step (NaN: none), and exemplars."""

    labels: Labels
    samples: NDArray[np.float64]
    exemplars: list[Exemplar] = field(default_factory=list)


def second(series: list[Series], stage: Any) -> list[Series]:
    """Apply a stage behind the first to series: a comparison, topk or bottomk."""
    if not series:
        return series
    samples = np.stack([one.samples for one in series])
    if isinstance(stage, MetricsFilter):
        limit = float(stage.value.value or 0) / (1e9 if stage.value.type is Type.DURATION else 1)
        with np.errstate(invalid="ignore"):
            kept = _HOLDS[stage.op](samples, limit)
    else:
        assert isinstance(stage, Metrics)
        argument = stage.arguments[0]
        assert isinstance(argument, Literal)
        ranks = np.where(np.isnan(samples), np.inf, -samples if stage.op == "topk" else samples)
        place = np.empty_like(ranks)
        np.put_along_axis(place, np.argsort(ranks, axis=0, kind="stable"), np.arange(len(series))[:, None], axis=0)
        kept = place < int(argument.value or 0)
    return [
        Series(one.labels, np.where(keep, one.samples, np.nan), one.exemplars)
        for one, keep in zip(series, kept, strict=True)
    ]


def samples(steps: Steps, series: Series) -> Iterator[tuple[int, float]]:
    """Yield the samples that there are: (Unix ms, value)."""
    for time, value in zip(steps.times, series.samples.tolist(), strict=True):
        if math.isfinite(value):
            yield time // 1_000_000, value
