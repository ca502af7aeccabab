"""Every input that is kept, judged again: the seeds, the corpus of our fuzzing runs, and what once broke something."""

from __future__ import annotations

import math
import resource
import time
import warnings
from collections.abc import Iterator
from random import Random

import pytest

from tests.effort import seed_of_the_run
from tests.fuzz import target
from tests.fuzz.registry import ROOMS, load
from tests.fuzz.target import CORPUS, GROWTH_BYTES_MAX, REGRESSIONS, SECONDS_MAX, Exceeded, Target, mutant, run

MUTANTS = 1000
MUTATED_S = 0.6
"""CPU time after which a target gets no more of them."""
each_target = pytest.mark.parametrize("name", ROOMS)


def inputs(judged: Target) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every input of a target."""
    for number, data in enumerate(judged.seeds()):
        yield f"seed {number}", data
    for directory in (CORPUS, REGRESSIONS):
        for path in judged.files(directory):
            yield str(path), path.read_bytes()


@each_target
def test_kept_inputs(name: str) -> None:
    with warnings.catch_warnings():
        # hpack's own, about what it lets through
        warnings.simplefilter("ignore")
        for place, data in inputs(load(name)):
            try:
                run(load(name), data)
            except Exception as error:
                raise AssertionError(f"{name}: {place}: {error!r}") from error


@each_target
def test_mutants(name: str) -> None:
    """A little fuzzing without a fuzzer: what is kept, changed in a few places, as the seed of the run has it."""
    judged = load(name)
    kept = [data for _, data in inputs(judged)]
    chance = Random(f"{name} {seed_of_the_run()}")
    end = time.process_time() + MUTATED_S
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(MUTANTS):
            data = mutant(judged, kept, chance)
            try:
                run(judged, data)
            except Exception as error:
                raise AssertionError(f"{name}: {error!r} of {data.hex()}") from error
            if time.process_time() > end:
                break


@each_target
def test_the_corpus_stays_small(name: str) -> None:
    files = load(name).files(CORPUS)
    assert len(files) <= 200
    assert sum(path.stat().st_size for path in files) <= 500_000
    assert len(list(load(name).seeds())) > 1


def test_a_broken_part_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canary: what fails, hangs or grows is told."""

    def grow(data: bytes) -> None:
        # What the process has held before, it may hold again unnoticed.
        assert bytearray(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 + 2 * GROWTH_BYTES_MAX)

    def hang(data: bytes) -> None:
        end = time.process_time() + 1.01 * SECONDS_MAX
        while time.process_time() < end:
            pass

    with pytest.raises(Exceeded, match=" s$"):
        run(Target("hangs", hang, lambda: iter(())), b"x")
    monkeypatch.setattr(target, "SECONDS_MAX", math.inf)  # growing beyond what the whole run has held takes a while
    with pytest.raises(Exceeded, match="MiB"):
        run(Target("grows", grow, lambda: iter(())), b"x")
