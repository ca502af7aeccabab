"""One target under atheris: `python -m tests.fuzz.fuzzing TARGET [libFuzzer's arguments]`, started by `__main__.py`.

What fails is kept as a file under `regressions/TARGET`, one for each place that fails, and fuzzing goes on; the process
itself ends only when the interpreter does. Findings are told as lines that begin with FINDING.
"""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from pathlib import Path
from random import Random

import atheris

from tests.fuzz import compiled
from tests.fuzz.registry import load
from tests.fuzz.target import REGRESSIONS, run


def _place(error: BaseException) -> str:
    """Where it failed: the kind of error, and the last line of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "collector" in frame.filename] or frames
    return f"{type(error).__name__} {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def main() -> None:
    """Fuzz until libFuzzer's limits end it."""
    with atheris.instrument_imports(include=["collector"], enable_loader_override=False):
        target = load(sys.argv[1])
    places: set[str] = set()

    def one(data: bytes) -> None:
        try:
            run(target, data)
        except Exception as error:
            place = _place(error)
            if place in places or len(places) >= 20:
                return
            places.add(place)
            directory = REGRESSIONS / target.name
            directory.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(data).hexdigest()[:12]
            (directory / name).write_bytes(data)
            message = " ".join(str(error).split())[:300]
            print(f"FINDING {target.name}/{name}: {place}: {message}", flush=True)

    def mutate(data: bytes, length_max: int, seed: int) -> bytes:
        chance = Random(seed)
        if target.mutate is not None and chance.random() < 0.6:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                data = target.mutate(data, length_max, chance.getrandbits(32))
            return data[:length_max]
        return atheris.Mutate(data, length_max)

    # libFuzzer starts itself again to merge, under the name that it goes by.
    arguments = [os.environ["RINGTAIL_FUZZER"], *sys.argv[2:]]
    if target.mutate is None:
        atheris.Setup(arguments, one)
    else:
        atheris.Setup(arguments, one, custom_mutator=mutate)
    compiled.connect(str(next(Path(atheris.__file__).parent.glob("core_with_libfuzzer.*.so"))))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
