"""A fuzz target, and what one input may cost.

A target's `check` takes bytes and returns; whatever it raises is a finding. Causes that Ringtail declares
(`RingtailError`) it catches itself, where they are due. Beside that no input may take more than `SECONDS_MAX` of CPU
time, nor make the process grow by more than `GROWTH_BYTES_MAX`.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

SECONDS_MAX = 1.0
"""CPU time of one input."""
GROWTH_BYTES_MAX = 64 << 20
"""By how much one input may raise the peak of resident memory."""
HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
REGRESSIONS = HERE / "regressions"


@dataclass(frozen=True)
class Target:
    """A part of Ringtail under fuzzing."""

    name: str
    check: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    """The first inputs, made by our own builders; always the same ones."""
    words: tuple[bytes, ...] = ()
    """What mutations may put in: keywords, magics, tags."""
    length_max: int = 4096
    """Bytes of an input."""
    mutate: Callable[[bytes, int, int], bytes] | None = None
    """`mutate(data, length_max, seed)`: mutations of its own, beside atheris'."""

    def files(self, directory: Path) -> list[Path]:
        """Return this target's inputs that are kept in `CORPUS` or `REGRESSIONS`, in order."""
        return sorted((directory / self.name).glob("*"))


def mutant(target: Target, kept: Sequence[bytes], chance: Random) -> bytes:
    """Change one of a target's inputs in a few places, as its own mutations do, or byte by byte and word by word."""
    data = chance.choice(kept)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if target.mutate is not None and chance.random() < 0.7:
            data = target.mutate(data, target.length_max, chance.getrandbits(32))
            continue
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data = data[:at] + chance.choice((*target.words, chance.randbytes(2))) + data[at:]
            case 1:
                data = data[:at] + data[at + chance.randint(1, 8) :]
            case 2:
                other = chance.choice(kept)
                data = data[:at] + other[chance.randrange(len(other) + 1) :]
            case _:
                data = data[:at] + chance.randbytes(1) + data[at + 1 :]
    return data[: target.length_max]


class Exceeded(AssertionError):
    """One input took too much time or memory."""


def run(target: Target, data: bytes) -> None:
    """Judge one input: raises what `check` raises, and Exceeded."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    target.check(data)
    seconds = time.process_time() - begin
    if seconds > SECONDS_MAX:
        raise Exceeded(f"{len(data)} bytes took {seconds:.1f} s")
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024
    if growth > GROWTH_BYTES_MAX:
        raise Exceeded(f"{len(data)} bytes took {growth >> 20} MiB")
