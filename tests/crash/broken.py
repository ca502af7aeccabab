"""Daemons that are broken on purpose, to see that the crash tests notice: the tests' own tests.

    python -m tests.crash.broken VARIANT run --set …

`early` acknowledges a batch before it is written, and writes it when the next one comes.
"""

from __future__ import annotations

import sys
from typing import Any

import collector.daemon
from collector.cli import main
from collector.wal.commit import Committer


class EarlyCommitter(Committer[Any]):
    """Acknowledges, and then keeps the batch for a while."""

    _kept: tuple[Any, ...] = ()

    def _commit(self, group: list[Any]) -> None:
        log = self._log
        offset = log.next_offset + sum(batch.count for batch in self._kept)
        for batch in group:
            self._done(batch, offset)
            offset += batch.count
        for batch in self._kept:
            log.append(batch.payloads, batch.count, batch.min_time, batch.max_time)
        log.sync()
        self._kept = tuple(group)


def run() -> None:
    """Break what the first argument says, and go on as `ringtail`."""
    variant = sys.argv.pop(1)
    if variant == "early":
        collector.daemon.Committer = EarlyCommitter  # type: ignore[misc]
    else:
        raise SystemExit(f"no variant {variant}")
    main()


if __name__ == "__main__":
    run()
