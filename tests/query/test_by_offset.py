"""Entries by offset against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from collector.query.by_offset import LEAST, ByOffset


class Offsets(RuleBasedStateMachine):
    """Adds, forgets and restarts, with a dictionary of what was added beside it."""

    def __init__(self) -> None:
        """Begin at an offset that is not zero."""
        super().__init__()
        self.held = ByOffset(np.uint8, 7)
        self.naive: dict[int, int] = {}

    @rule(count=st.sampled_from([1, 5, 1000, LEAST, 3 * LEAST]), largest=st.sampled_from([0, 200, 300, 70_000]))
    def append(self, count: int, largest: int) -> None:
        """Add numbers up to what is named as the largest."""
        numbers = np.arange(count, dtype=np.uint32) % (largest + 1)
        self.naive.update({self.held.end + place: int(number) for place, number in enumerate(numbers)})
        self.held.append(numbers, largest)

    @rule(part=st.floats(0, 1))
    def forget(self, part: float) -> None:
        """Let go of a part; what is after it stays."""
        offset = self.held.first + int(part * (self.held.end - self.held.first))
        self.held.forget_before(offset)
        assert self.held.first <= offset
        assert offset - self.held.first <= max(LEAST, self.held.end - offset)

    @rule(offset=st.integers(0, 2**40))
    def restart(self, offset: int) -> None:
        """Begin anew."""
        self.held.restart(offset)
        self.naive.clear()

    @invariant()
    def holds_what_was_added(self) -> None:
        """Every offset of the stretch has its number, in no more memory than wide numbers would need."""
        stretch = range(self.held.first, self.held.end)
        assert self.held.between(stretch.start, stretch.stop).tolist() == [self.naive[offset] for offset in stretch]
        assert self.held.nbytes <= 4 * max(LEAST, 4 * len(stretch) + LEAST)


TestByOffset = Offsets.TestCase
TestByOffset.settings = settings(max_examples=20, stateful_step_count=20)
