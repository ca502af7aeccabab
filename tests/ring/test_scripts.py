"""Golden scripts for the ring: what it holds after each step, written so that anyone can check it by hand.

Commands: `ring capacity=N [max_bytes=N]` starts over; `append trace=1 service=a name=x …` appends one block of one
span per `trace=` group given as `trace/service/name` arguments; `find INDEX VALUE`; `dump`; `stats`; `blocks`.
`start` takes also what the ring merges: `merged=N` records at most, blocks below `small=N` records, `run=N` at once;
nothing by default. `keep` remembers a snapshot, `kept` dumps its blocks.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.otlp.records import Ref, record
from collector.otlp.signals import TRACES
from collector.ring.blocks import Limits
from collector.ring.ring import Ring, Snapshot
from tests import goldenscript
from tests.goldenscript import Command
from tests.ring import blocks


class RingScript:
    """One ring of spans, driven by commands."""

    def __init__(self) -> None:
        self.ring = Ring(TRACES, 3, 1 << 20)
        self.kept_snapshot = self.ring.snapshot()

    def run(self, command: Command) -> str | list[str] | None:
        result = getattr(self, command.name)(command)
        self.ring.check()
        return result

    def start(self, command: Command) -> None:
        merging = Limits(
            command.option("merged", 0), 1 << 20, command.option("small", 0), 1 << 20, command.option("run", 1)
        )
        self.ring = Ring(TRACES, command.option("capacity", 3), command.option("max_bytes", 1 << 20), merging=merging)

    def append(self, command: Command) -> str:
        spans = [tuple(argument.split("/")) for argument in command.arguments]
        payload = [(int(trace), service, name) for trace, service, name in spans]
        evicted = self.ring.append(blocks.spans(self.ring.next_offset, payload))
        return f"holds [{self.ring.first_offset}, {self.ring.next_offset}), evicted {evicted}"

    def find(self, command: Command) -> str:
        index, value = command.argument(0), command.argument(1)
        raw = int(value).to_bytes(16, "big") if index == "trace_id" else value.encode()
        found = self.ring.find(index, self.ring.key(index, raw), command.option("limit", 1000))
        return f"{index} {value}: " + (" ".join(map(str, found)) or "none")

    def dump(self, command: Command) -> list[str]:
        lines = []
        for block in self.ring.snapshot().blocks:
            for row in range(block.count):
                ref = Ref(0, block.base_offset + row, block, row)
                span = record(block, row)
                live = "" if ref.offset >= self.ring.first_offset else "  (evicted, its block still held)"
                lines.append(f"{ref.offset}: trace {int.from_bytes(span.trace_id, 'big')} {span.name}{live}")
        return lines or ["empty"]

    def blocks(self, command: Command) -> str:
        return ranges(self.ring.snapshot())

    def keep(self, command: Command) -> None:
        self.kept_snapshot = self.ring.snapshot()

    def kept(self, command: Command) -> str:
        return ranges(self.kept_snapshot)

    def stats(self, command: Command) -> list[str]:
        stats = self.ring.stats()
        lines = [f"records {stats['records']} evicted {stats['evicted']}"]
        lines += [f"{name}: {one['keys']} keys, {one['postings']} postings" for name, one in stats["indexes"].items()]
        return lines


def ranges(snapshot: Snapshot) -> str:
    """The blocks by the offsets they hold."""
    return "blocks " + " ".join(f"[{block.base_offset}, {block.end_offset})" for block in snapshot.blocks)


@pytest.mark.parametrize("path", goldenscript.scripts("ring"), ids=goldenscript.script_id)
def test_script(path: Path) -> None:
    goldenscript.check(path, RingScript().run)
