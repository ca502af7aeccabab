"""How much a test does: its short form, which is part of `make test`, or its long one, which is `make torture`.

A test that takes the fixture `effort` has both, and is what `make torture` runs. The environment decides:

* `RINGTAIL_TORTURE_MINUTES` asks for the long form. `NOMINAL_MINUTES` give the counts that docs/reliability.md
  promises; other values give more or fewer.
* `RINGTAIL_TEST_SEED` repeats a run; every test derives its own randomness from it. Without it there is a new one. The
  first and the last line of pytest's output name it.
* `RINGTAIL_TORTURE_RESULTS` names a file to which each `report` adds a line of JSON: test, row of the table in
  docs/reliability.md, commit, seed, form, and what was counted. `python -m tests.effort FILE` sums them up.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pytest

MINUTES = "RINGTAIL_TORTURE_MINUTES"
SEED = "RINGTAIL_TEST_SEED"
RESULTS = "RINGTAIL_TORTURE_RESULTS"
NOMINAL_MINUTES = 90.0

T = TypeVar("T")


@dataclass(slots=True)
class Effort:
    """What one test may spend, and where its randomness comes from."""

    test: str
    seed: int
    minutes: float = 0.0
    """Of the whole of `make torture`; 0 asks for the short form."""
    _started: float = field(default_factory=time.monotonic)

    @property
    def long(self) -> bool:
        """Whether this is the long form."""
        return self.minutes > 0

    def times(self, short: int, long: int) -> int:
        """How often to do something: `short`, or `long` in the nominal minutes and in proportion in others."""
        return max(short, round(long * self.minutes / NOMINAL_MINUTES)) if self.long else short

    def some(self, everything: Sequence[T], short: int) -> Sequence[T]:
        """So many at random, in their order; in the long form all of it, or its share when the minutes are fewer."""
        count = self.times(short, len(everything))
        if count >= len(everything):
            return everything
        return [everything[at] for at in sorted(self.chance("some").sample(range(len(everything)), count))]

    def only_long(self) -> None:
        """Leave the test to the long form."""
        if not self.long:
            pytest.skip("in `make torture` only")

    def chance(self, about: object = "") -> random.Random:
        """Randomness that the seed repeats; another one for each `about`."""
        return random.Random(f"{self.seed} {self.test} {about}")

    def report(self, row: str, **counts: object) -> None:
        """Say what was done for a row of the table."""
        line = json.dumps(
            {
                "row": row,
                "test": self.test,
                "form": "long" if self.long else "short",
                "seed": self.seed,
                "commit": commit(),
                "seconds": round(time.monotonic() - self._started, 1),
                **counts,
            }
        )
        print(line)
        if path := os.environ.get(RESULTS):
            with Path(path).open("a") as results:
                results.write(f"{line}\n")


def effort_of(test: str) -> Effort:
    """What the environment asks of a test."""
    return Effort(test, int(os.environ[SEED]), float(os.environ.get(MINUTES, "0")))


def seed_of_the_run() -> int:
    """The seed of this run of pytest: what the environment says, or a new one, which it then says."""
    return int(os.environ.setdefault(SEED, str(random.SystemRandom().randrange(1, 2**32))))


def commit() -> str:
    """The commit that is tested, with a plus when files differ from it; empty where there is no repository."""
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        check=False,
        text=True,
    )
    return told.stdout.strip()


def summary(lines: Iterable[str]) -> Iterator[str]:
    """What the reports of a run say, row by row: a test may report several times, and its counts are added up."""
    rows: dict[tuple[str, str], Counter[str]] = {}
    runs = set()
    for line in lines:
        one = json.loads(line)
        runs.add(f"commit {one['commit']}, seed {one['seed']}, {one['form']} form")
        counts = rows.setdefault((one["row"], one["test"].rpartition("/")[2]), Counter())
        for name, value in one.items():
            if isinstance(value, dict):
                counts.update({f"{name} {part}": number for part, number in value.items()})
            elif name == "seconds":
                counts[name] = max(counts[name], value)  # Of the test, until its last report.
            elif isinstance(value, int | float) and name != "seed":
                counts[name] += value
    yield from sorted(runs)
    for (row, test), counts in sorted(rows.items(), key=lambda item: (int(item[0][0][1:]), item[0][1])):
        yield f"{row:4} {test}: " + ", ".join(f"{name} {round(number, 3):,}" for name, number in counts.items())


if __name__ == "__main__":
    with Path(sys.argv[1]).open() as written:
        print("\n".join(summary(written)))
