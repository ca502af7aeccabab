"""The process's memory: one limit, divided at the start, and held to while it runs.

`memory.limit` is what the whole process may hold. What it holds before any data came (interpreter, libraries) is
taken off first. Of the rest, requests in flight get at most a quarter, each counted twice, because the block that a
commit makes of several requests is there beside them for a moment; queries, compaction and the log's key indexes have a
quarter, of which live tails may hold a quarter for their readers, queries remember as much, as much are blocks of the log
that queries have read (wal/cache.py), and exporters' batches hold as much; the rings what is left, in proportion to what is
configured for them, and never more than that.

Buffers are counted exactly, but a process holds more than its buffers: allocators keep holes, and what queries make
of data is not known before. So the guard looks at the resident memory twice a second, too. Near the limit the rings give
up what is too much, freed memory goes back to the system, and requests are let in one at a time, the others being told
to come again; far enough below, both go back to their shares in steps. What a ring gives up is still in the log.

Not here: a limit on one query's memory; that is bounded by the limits on what a query may select and return.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge

from collector.errors import InvalidConfig, Overloaded
from collector.exporters.exports import Exports
from collector.heap import give_back, resident_bytes
from collector.quantities import read_size
from collector.query.tails import Tails
from collector.receivers.admission import Admission
from collector.ring.ring import Ring, bytes_min
from collector.store import MEMO_BYTES_MAX, Memo
from collector.wal.cache import BlockCache

MIB: Final = 1024 * 1024
DEFAULT_BYTES_MAX: Final = 1024 * MIB
"""What `auto` is at most."""
IN_FLIGHT_SHARE: Final = 1 / 4
IN_FLIGHT_COPIES: Final = 2
OTHER_SHARE: Final = 1 / 4
"""For what queries make of data, and compaction and the key indexes of the log hold."""
PRESSED_SHARE: Final = 0.9
"""Above this share of the limit the guard acts: it looks now and then, and memory grows in between."""
RECOVERED_SHARE: Final = 0.8
"""Below this share of the limit the rings grow again."""
TAILS_SHARE: Final = 1 / 4
"""What live tails may hold of that, and no less than `TAILS_LEAST`."""
TAILS_LEAST: Final = 4 * MIB
MEMOS_SHARE: Final = 1 / 4
"""What queries may remember, of the same."""
CACHE_SHARE: Final = 1 / 4
"""What blocks of the log may take that queries have read, of the same."""
EXPORTS_SHARE: Final = 1 / 4
"""What exporters' batches may hold, of the same."""
STEPS: Final = 32
"""In so many steps a ring goes from nothing to its share."""
SLACK_BYTES: Final = 4 * MIB
"""Given up beyond what was too much, so that the next second does not find the same."""


def limit_bytes(setting: str, available: int) -> int:
    """Return the bytes that `memory.limit` means on a machine, or in a container, that has `available` bytes."""
    if setting == "auto":
        return min(available // 2, DEFAULT_BYTES_MAX)
    if setting.endswith("%"):
        return int(available * float(setting[:-1]) / 100)
    return read_size(setting)


def available_bytes(root: Path = Path("/")) -> int:
    """Return the memory that the process could have: the machine's, or what its control group allows if that is less.

    Both versions of control groups are asked, at the process's place and above. `root` is for tests.
    """
    found = [_machine_bytes(root)]
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, place = rest.partition(":")
        if controllers == "":
            base, name = root / "sys/fs/cgroup", "memory.max"
        elif "memory" in controllers.split(","):
            base, name = root / "sys/fs/cgroup/memory", "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in place.split("/") if part not in ("", "..")]
        for count in range(len(parts) + 1):
            text = _read(base.joinpath(*parts[:count], name)).strip()
            if text.isdigit():
                found.append(int(text))
    return min(found)


def _machine_bytes(root: Path) -> int:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def divided(limit: int, held: int, in_flight: int, least: int) -> tuple[int, int]:
    """Return what requests in flight and rings may have of a limit, of which the process itself holds `held` bytes.

    `in_flight` is what is wished for, `least` what the rings need. Raises InvalidConfig when there is too little.
    """
    rest = limit - held
    in_flight_max = min(in_flight, int(rest * IN_FLIGHT_SHARE) // IN_FLIGHT_COPIES)
    for_rings = rest - IN_FLIGHT_COPIES * in_flight_max - int(rest * OTHER_SHARE)
    if for_rings < least or in_flight_max < MIB:
        needed = held + max(int(least / (1 - IN_FLIGHT_SHARE - OTHER_SHARE)), int(8 * MIB)) + MIB
        problem = (
            f"memory.limit: {limit} bytes are too few: the process itself holds {held}, and the indexes of such "
            f"rings want {least}; make it at least {needed}, or stores.*.capacity smaller"
        )
        raise InvalidConfig([problem])
    return in_flight_max, for_rings


class RingSize(NamedTuple):
    """What a signal's rings are configured to be."""

    capacity: int
    """Records."""
    max_bytes: int


class MemoryGuard:
    """Divides the limit among rings and requests, and holds the process to it. Owned by the event loop's thread."""

    def __init__(
        self,
        limit: int,
        rings: Callable[[], Sequence[Ring]],
        sizes: Mapping[str, RingSize],
        admission: Admission,
        logger: Any,
        registry: CollectorRegistry,
        *,
        resident: Callable[[], int] = resident_bytes,
        trim: Callable[[], None] = give_back,
        tails: Tails | None = None,
        memos: Callable[[], Sequence[Memo]] = tuple,
        cache: BlockCache | None = None,
        exports: Exports | None = None,
    ) -> None:
        """Take the limit in bytes, and who shares it: the rings, with the sizes that are wished for by signal, the
        admission, the live tails, what queries remember, blocks of the log, and the exporters."""
        self._exports = exports
        self._memos = memos
        self._cache = cache
        self.limit = limit
        self._rings = rings
        self._sizes = sizes
        self._held = 0
        self._for_rings = 0
        self._admission = admission
        self._tails = tails
        self._logger = logger
        self._resident = resident
        self._trim = trim
        self._in_flight_wanted = self._in_flight_max = admission.bytes_max
        self._shares: list[int] = []
        self._pressed = False
        self._gauge = Gauge("ringtail_memory_limit_bytes", "Memory that the whole process may hold.", registry=registry)
        self._gauge.set(limit)
        self._shrinks = Counter(
            "ringtail_memory_shrinks",
            "How often rings were made smaller because the process held more than its limit.",
            registry=registry,
        )

    def divide(self) -> None:
        """Give everyone a share, from what the process holds now; once, while the rings are empty.

        Raises InvalidConfig when the limit leaves too little.
        """
        self._held = self._resident()
        self.reconfigure(self.limit, self._in_flight_wanted, self._sizes)

    def reconfigure(self, limit: int, in_flight: int, sizes: Mapping[str, RingSize]) -> None:
        """Divide anew: another limit, other wishes. Raises InvalidConfig, and changes nothing, when it is too little."""
        least = sum(_least(ring, sizes) for ring in self._rings())
        in_flight_max, for_rings = divided(limit, self._held, in_flight, least)
        self.limit = limit
        self._gauge.set(limit)
        self._sizes = sizes
        self._in_flight_wanted = in_flight
        self._in_flight_max = self._admission.bytes_max = in_flight_max
        self._for_rings = for_rings
        if self._tails is not None:
            self._tails.bytes_max = max(TAILS_LEAST, int((limit - self._held) * OTHER_SHARE * TAILS_SHARE))
        if self._cache is not None:
            self._cache.bytes_max = int((limit - self._held) * OTHER_SHARE * CACHE_SHARE)
        if self._exports is not None:
            self._exports.limit(int((limit - self._held) * OTHER_SHARE * EXPORTS_SHARE))
        self.share_out()

    def share_out(self) -> None:
        """Divide what there is for the rings among those that there are now.

        Raises Overloaded, and changes nothing, when that is too little for their indexes.
        """
        memos = self._memos()
        for memo in memos:
            remembered = (self.limit - self._held) * OTHER_SHARE * MEMOS_SHARE / len(memos)
            memo.bytes_max = min(MEMO_BYTES_MAX, int(remembered))
        rings, sizes = self._rings(), self._sizes
        least = [_least(ring, sizes) for ring in rings]
        spare = self._for_rings - sum(least)
        if spare < 0:
            raise Overloaded(
                f"the indexes of {len(rings)} rings want {sum(least)} bytes; memory.limit leaves {self._for_rings}"
            )
        wanted = [sizes[ring.signal.name].max_bytes for ring in rings]
        wish = sum(wanted) - sum(least)
        self._shares = [
            min(most, own + (most - own) * spare // max(1, wish)) for most, own in zip(wanted, least, strict=True)
        ]
        if wish > spare:
            self._logger.warning(
                "rings are smaller than configured",
                memory_limit=self.limit,
                configured=sum(wanted),
                bytes=sum(self._shares),
            )
        self._resize(self._shares)

    def check(self) -> None:
        """Look at what the process holds, and act."""
        resident = self._resident()
        rings = self._rings()
        ceiling = int(self.limit * PRESSED_SHARE)
        if resident > ceiling and not self._pressed:  # Holes may be all that is too much.
            self._trim()
            resident = self._resident()
        if resident > ceiling:
            if not self._pressed:
                self._logger.warning("memory limit reached", resident=resident, limit=self.limit)
            self._pressed = True
            self._admission.bytes_max = 0
            self._shrinks.inc()
            for memo in self._memos():
                memo.forget()
            if self._cache is not None:
                self._cache.clear()
            excess = resident - ceiling + SLACK_BYTES
            held = max(1, sum(ring.total_bytes for ring in rings))
            self._resize([ring.total_bytes - excess * ring.total_bytes // held for ring in rings])
            self._trim()
        elif self._pressed:
            self._pressed = False
            self._admission.bytes_max = self._in_flight_max
        if resident < self.limit * RECOVERED_SHARE:
            grown = [
                min(share, ring.max_bytes + max(1, share // STEPS))
                for ring, share in zip(rings, self._shares, strict=True)
            ]
            if any(size > ring.max_bytes for size, ring in zip(grown, rings, strict=True)):
                self._resize(grown)
        for ring in rings:
            ring.shrink()

    def _resize(self, sizes: Sequence[int]) -> None:
        for ring, size in zip(self._rings(), sizes, strict=True):
            ring.resize(max(size, _least(ring, self._sizes)), self._sizes[ring.signal.name].capacity)

    def stats(self) -> dict[str, int]:
        """Return the figures of `/api/stats`."""
        cache = self._cache.stats() if self._cache is not None else {}
        return {
            "limit_bytes": self.limit,
            "resident_bytes": self._resident(),
            "ring_bytes": sum(ring.total_bytes for ring in self._rings()),
            "in_flight_bytes": self._admission.in_flight_bytes,
            "remembered_bytes": sum(memo.nbytes for memo in self._memos()),
            "tail_bytes": self._tails.held_bytes if self._tails is not None else 0,
            "export_bytes": self._exports.held_bytes if self._exports is not None else 0,
        } | {f"log_cache_{name}": value for name, value in cache.items()}


def _least(ring: Ring, sizes: Mapping[str, RingSize]) -> int:
    """Return the fewest bytes that a ring of the size wished for can have."""
    return bytes_min(ring.signal, sizes[ring.signal.name].capacity)
