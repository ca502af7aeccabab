"""Commands in processes of their own that are killed at any moment, and begun again until they are done.

The processes are forked off one that has the modules, so that a start costs next to nothing. How long one may live grows, so
that the kills fall everywhere on any machine, and the last one comes to its end.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        *("collector.cli", "collector.moving.importing", "collector.moving.out", "collector.moving.replay"),
        *("collector.moving.migrate", "collector.moving.target", "collector.exporters.sqlite.kind"),
        *("collector.exporters.postgres.backend", "collector.exporters.clickhouse.backend"),
    ]
)
FIRST_S = 0.01
GROWTH = 1.6
LIVES_MAX = 60


def command(arguments: list[str], patches: Mapping[str, Any], output: str) -> None:
    """In the process: run a command, with some constants replaced, `module:NAME`."""
    for place, value in patches.items():
        module, _, name = place.partition(":")
        setattr(importlib.import_module(module), name, value)
    with open(output, "a") as file:
        sys.stdout = sys.stderr = file
        from collector.cli import main

        main(arguments)


def until_done(
    arguments: list[str],
    patches: Mapping[str, Any],
    output: Path,
    seed: int,
    is_complete: Callable[[], bool] = lambda: False,
    first_s: float = FIRST_S,
) -> int:
    """Run a command until it ends by itself, with success; return how often it was killed before.

    One that has removed its state, and has yet to say so, is let go on: begun again, it would not know.
    """
    chance = random.Random(seed)
    limit = first_s
    for kills in range(LIVES_MAX):
        process = CONTEXT.Process(target=command, args=(arguments, dict(patches), str(output)))
        process.start()
        process.join(limit * (0.5 + chance.random()))
        if process.exitcode is None and process.pid is not None and _stopped(process.pid) and not is_complete():
            process.kill()
            process.join()
            limit *= GROWTH
            continue
        _goes_on(process.pid)
        process.join()
        assert process.exitcode == 0, output.read_text()
        return kills
    raise AssertionError(f"it is never done: {output.read_text()}")


def _stopped(pid: int) -> bool:
    """Stop a process; tell whether there still is one."""
    try:
        os.kill(pid, signal.SIGSTOP)
        while (state := Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]) not in "TZ":
            pass
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state == "T"


def _goes_on(pid: int | None) -> None:
    try:
        if pid is not None:
            os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
