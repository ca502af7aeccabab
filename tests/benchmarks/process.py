"""CPU time and memory of a process and its descendants, read from the kernel (Linux).

CPU time comes from the process's CPU-time clock (clock_getcpuclockid(3)): user and system time of all its threads,
ended ones included, in nanoseconds, where /proc/PID/stat counts ticks of 10 ms. Of descendants, the living are
read in the same way, and those already waited for come from their parent's stat.

Not seen: work that the kernel does in its own threads (writing pages back, committing a journal), and the
receiving half of loopback TCP, which Linux mostly charges to the sender. Both are alike for every server.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def cpu_time_ns(pid: int) -> int:
    """Return user and system CPU time of a process and its descendants in ns. ProcessLookupError if it is gone."""
    try:
        return sum(_own_cpu_time_ns(one) + _waited_for_ns(one) for one in _family(pid))
    except OSError as error:
        raise ProcessLookupError(f"process {pid} cannot be read: {error}") from error


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants in bytes."""
    return sum(_status_bytes(one, "VmRSS") for one in _family(pid))


def anonymous_bytes(pid: int) -> int:
    """Return the resident memory of a process and its descendants without pages of files: VmRSS less page cache."""
    return sum(_status_bytes(one, "RssAnon") for one in _family(pid))


def peak_resident_bytes(pid: int) -> int:
    """Return the largest resident memory that a process ever had, its descendants' added, in bytes."""
    return sum(_status_bytes(one, "VmHWM") for one in _family(pid))


def open_files(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return len(os.listdir(f"/proc/{pid}/task"))


def _family(pid: int) -> list[int]:
    found = [pid]
    for one in found:  # grows while it is walked
        for thread in Path(f"/proc/{one}/task").glob("*/children"):
            found.extend(map(int, thread.read_text().split()))
    return found


def _own_cpu_time_ns(pid: int) -> int:
    """Read the process's clock, whose number is made from the pid as in the kernel's MAKE_PROCESS_CPUCLOCK."""
    return time.clock_gettime_ns((~pid << 3) | 2)


def _waited_for_ns(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) * _TICK_NS  # cutime, cstime; the first field here is the state


def _status_bytes(pid: int, key: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    return 0
