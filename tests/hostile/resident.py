"""How much a daemon's resident memory grows while something happens to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.daemon import Daemon


class Growth:
    """`bytes`: by how much the peak exceeded what was resident before; known behind the `with` block."""

    bytes = 0


@contextmanager
def growth(daemon: Daemon) -> Iterator[Growth]:
    """Measure what happens inside the block."""
    process = Path(f"/proc/{daemon.process.pid}")
    (process / "clear_refs").write_text("5")  # the peak begins anew
    before = _figure(process, "VmRSS")
    measured = Growth()
    yield measured
    measured.bytes = _figure(process, "VmHWM") - before


def _figure(process: Path, name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def cpu_seconds(daemon: Daemon) -> float:
    """CPU time that the daemon has used."""
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
