"""What a figure depends on: the machine, the commit, and the versions of what ran."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
_PACKAGES = ("grpcio", "httptools", "numpy", "protobuf", "uvloop")


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and on what a run was made. Nothing in it names the host or a path."""

    date: str
    """UTC, to the second, ISO 8601."""
    commit: str
    """Abbreviated; with `+` when the tree has changes."""
    processor: str
    cores: int
    memory_bytes: int
    kernel: str
    file_system: str
    """The type of the file system that the data lies on."""
    python: str
    packages: dict[str, str]

    def text(self) -> str:
        """Return it in a line, without the packages."""
        return (
            f"{self.date[:10]}, commit {self.commit}, {self.cores} × {self.processor}, "
            f"{self.memory_bytes / 2**30:.0f} GiB, {self.kernel}, {self.file_system}, Python {self.python}"
        )


def describe(scratch: Path) -> Machine:
    """Describe this machine, with data on the file system of `scratch`."""
    return Machine(
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        commit=_commit(),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        kernel=f"{platform.system()} {platform.release()}",
        file_system=_file_system(scratch),
        python=platform.python_version(),
        packages={name: version(name) for name in _PACKAGES},
    )


def _commit() -> str:
    head = _git("rev-parse", "--short", "HEAD")
    return f"{head}+" if head and _git("status", "--porcelain") else head or "unknown"


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""  # a source archive: it has no commit
    return done.stdout.strip()


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Return the type of the mount that the path lies on: the longest mount point that contains it."""
    best, kind = "", "unknown"
    resolved = str(path.resolve())
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, name, *_ = line.split()
        inside = resolved == point or resolved.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind
