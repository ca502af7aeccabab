"""The compactor: one thread that compacts the sealed segments of all logs, in what time others leave, and makes key
indexes anew that are missing or wrong.

It never delays an acknowledgement: it takes no lock that a committer waits for while a system call runs, works in
steps of less than a millisecond, of which zstd and the disk take the most without the GIL, and rests after
`BURST_S` of them so long that it has at most `SHARE` of one core. (Resting after each step would cost twice the CPU
time: every step would find the caches cold.) A step that had to wait for the GIL counts as long as it took, so a busy
daemon slows it further. At that share it keeps up with some 20 MB/s of appends (on the machine of docs/benchmarks.md);
beyond, retention removes segments that it has not come to.

The newest segment goes first: under a load that it cannot keep up with, the oldest is about to be removed anyway.

What goes wrong leaves the original and is logged and counted. A refusal of the file system (EIO, a full disk) is tried
again `RETRY_S` later, and nothing else is begun for `PAUSE_S`; a segment that is damaged, or that met a defect of ours,
is left alone until the next start.

Left out: a lower scheduling priority for the thread. A thread that is preempted while it holds the GIL stops the event
loop and the committers until it runs again, and the lower its priority, the later that is.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Final, TypeVar

from collector.errors import Unavailable
from collector.wal.compact import compact, rebuild_keys
from collector.wal.files import Files
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from collector.wal.reader import Unfit
from collector.wal.segment import Segment

T = TypeVar("T")

SHARE: Final = 0.05
"""Of one core, at most."""
BURST_S: Final = 0.005
"""Work after which it rests."""
REST_S_MAX: Final = 1.0
"""The longest rest: a machine that stood still for a while owes nothing."""
IDLE_S: Final = 2.0
"""How often an idle compactor looks for sealed segments."""
PAUSE_S: Final = 10.0
"""How long it does nothing after a failure."""
RETRY_S: Final = 600.0
"""How long a segment rests that could not be compacted."""


class Compactor:
    """Compacts the sealed segments of some logs, and those again of which records were deleted. `work` may be called instead of `start`, never beside it."""

    def __init__(
        self,
        logs: Callable[[], Sequence[Log]],
        *,
        files: Files,
        metrics: LogMetrics,
        entropy: Callable[[int], bytes] = os.urandom,
        pause: Callable[[float], bool] | None = None,
    ) -> None:
        """`logs` tells the open logs, in any thread. `pause(seconds)` waits, and tells whether to stop; without it, until `close`."""
        self._logs = logs
        self._files = files
        self._metrics = metrics
        self._entropy = entropy
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._turn = 0
        # Seconds since the last rest.
        self._worked_s = 0.0
        # Until when a segment rests, by the monotonic clock.
        self._resting: dict[tuple[Log, int], float] = {}
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name="compactor", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give up what is under way, which costs nothing but the work, and end the thread. Before the logs close."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            if not self.work():
                self._pause(IDLE_S)

    def work(self) -> bool:
        """Compact one segment, or make one key index anew, of the logs in turn; false when there is nothing to do."""
        logs = self._logs()
        for _ in logs:
            log = logs[self._turn % len(logs)]
            self._turn += 1
            found = self._next(log)
            if found is not None:
                self._handle(log, found)
                return True
        return False

    def _next(self, log: Log) -> Segment | None:
        """The newest segment that is to be compacted, or that is and lacks its key index."""
        if log.failed is not None:
            return None
        now = log.clock.monotonic()
        self._resting = {
            key: until for key, until in self._resting.items() if key[0] is not log or key[1] >= log.first_offset
        }
        for one in reversed(log.sealed_segments):
            done = one.compacted and (one.keyed or log.key_indexes.usable(one)) and not _has_deleted(log, one)
            if not done and self._resting.get((log, one.base_offset), 0.0) <= now:
                return one
        return None

    def _handle(self, log: Log, one: Segment) -> None:
        try:
            if one.compacted and not _has_deleted(log, one):
                self._rebuild_keys(log, one)
            else:
                self._compact(log, one)
        except FileNotFoundError:
            # Retention was faster, or somebody has removed the file by hand.
            self._resting[log, one.base_offset] = log.clock.monotonic() + RETRY_S
        except (OSError, Unavailable) as error:
            self._failed(log, one, str(error), RETRY_S)
            self._pause(PAUSE_S)
        except Unfit as error:
            self._failed(log, one, str(error), math.inf)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not end the compaction of all else
            self._failed(log, one, repr(error), math.inf)

    def _compact(self, log: Log, old: Segment) -> None:
        started = log.clock.monotonic()
        nonce = int.from_bytes(self._entropy(8), "little") or 1
        result = self._drive(log, compact(log, old, self._files, nonce))
        if result is None or not result.replaced:
            return
        metrics = self._metrics.of(log.signal)
        metrics.compaction_runs.inc()
        metrics.compaction_bytes_in.inc(result.bytes_in)
        metrics.compaction_bytes_out.inc(result.bytes_out)
        log.logger.info(
            "segment compacted",
            signal=log.signal.name,
            path=old.path,
            bytes_before=result.bytes_in,
            bytes=result.bytes_out,
            seconds=round(log.clock.monotonic() - started, 3),
        )

    def _rebuild_keys(self, log: Log, of: Segment) -> None:
        if self._drive(log, rebuild_keys(log, of, self._files)):
            self._metrics.of(log.signal).index_rebuilds.inc()
            log.logger.info("key index rebuilt", signal=log.signal.name, path=of.path)

    def _drive(self, log: Log, steps: Generator[None, None, T]) -> T | None:
        """Take every step, with rests between; what they return, or None when told to stop."""
        with closing(steps):
            while True:
                began = log.clock.monotonic()
                try:
                    next(steps)
                except StopIteration as end:
                    self._worked_s += log.clock.monotonic() - began
                    result: T = end.value
                    return result
                self._worked_s += log.clock.monotonic() - began
                if self._rest():
                    return None

    def _rest(self) -> bool:
        """Rest if it is time to; tells whether to stop."""
        seconds = 0.0
        if self._worked_s >= BURST_S:
            seconds = min(REST_S_MAX, self._worked_s * (1 / SHARE - 1))
            self._worked_s = 0.0
        return self._pause(seconds)

    def _failed(self, log: Log, old: Segment, reason: str, rest_s: float) -> None:
        self._metrics.of(log.signal).compaction_failures.inc()
        self._resting[log, old.base_offset] = log.clock.monotonic() + rest_s
        log.logger.warning("segment not compacted", signal=log.signal.name, path=old.path, reason=reason)


def _has_deleted(log: Log, one: Segment) -> bool:
    """Whether a segment still has bytes of records that were deleted."""
    return log.deletions.present.touch(one.base_offset, one.next_offset)
