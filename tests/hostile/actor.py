"""One client process: `python -m tests.hostile.actor NAME GRPC HTTP JSON-OPTIONS`, and its parent's side.

It says `ready` when it has begun, acts until its standard input ends, and then prints what it counted as one line of
JSON. A parent that dies ends it.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from tests.daemon import ROOT, Daemon, environment

PATIENCE_S = 60.0
NICENESS = 10
"""Of attackers: what is measured is how the daemon divides itself, not how the kernel divides the machine."""


@dataclass(frozen=True, slots=True)
class Target:
    """What an actor is told."""

    grpc: str
    http: str
    until: asyncio.Event
    """The end."""


Act = Callable[..., Awaitable[dict[str, Any]]]


class Actor:
    """A running client process. `name` is `module.function` below tests.hostile."""

    def __init__(
        self, name: str, daemon: Daemon, *, nice: int = NICENESS, command: Sequence[str] = (), **options: Any
    ) -> None:
        """Start it, and wait until it is ready. `command` is another program that keeps to the same rules."""
        self.name = name
        own = [sys.executable, "-m", "tests.hostile.actor", name, daemon.grpc, daemon.http, json.dumps(options)]
        self._process = subprocess.Popen(
            # Not by preexec_fn: what a process with gRPC's threads runs behind a fork may hang or die.
            ["nice", "-n", str(nice), *(command or own)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=environment(),
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == b"ready\n", f"{name} did not begin: {line!r}"

    def end(self) -> dict[str, Any]:
        """End it, and return what it counted."""
        out, _ = self._process.communicate(timeout=PATIENCE_S)
        assert self._process.returncode == 0, self.name
        found: dict[str, Any] = json.loads(out)
        return found

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        return cpu_s(self._process.pid)

    def kill(self) -> None:
        """End it at once."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _act(name: str, grpc: str, http: str, options: dict[str, Any]) -> dict[str, Any]:
    module, _, function = name.rpartition(".")
    act: Act = getattr(importlib.import_module(f"tests.hostile.{module}"), function)
    target = Target(grpc, http, asyncio.Event())
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def watch() -> None:
        await reader.read()
        target.until.set()

    watching = asyncio.create_task(watch())
    found = await act(target, **options)
    watching.cancel()
    return found


def ready() -> None:
    """Tell the parent that the actor has begun."""
    print("ready", flush=True)


def main() -> None:
    """Run one actor."""
    name, grpc, http, options = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        found = runner.run(_act(name, grpc, http, json.loads(options)))
    print(json.dumps(found))
    sys.stdout.flush()
    # Ten thousand connections have no need to be taken down one by one.
    os._exit(0)


if __name__ == "__main__":
    main()
