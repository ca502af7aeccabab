"""Runs tests/scripts/wal/*.txt: a log on files in memory, driven and dumped as text.

Commands, with N for a segment by its place from 0:

    open [segment_bytes=] [retention_bytes=] [retention_age_s=]    options stay for later opens
    append COUNT… [size=] [min=] [max=]        frames of so many records; prints their offsets
    sync | close | retain | check | dump | stats
    kill | lose_power                          the process, or the machine with all that was not synced, stops
    reopen                                     opens and prints what recovery found
    read OFFSET | frames FROM TO [newest]      prints what is found
    cut BYTES | extend HEX                     the last segment loses bytes at its end, or gets some
    flip N BYTE | zero N FROM TO | remove FILE | copy FILE FILE      what disks and people do
    full | room                                the disk
    pass SECONDS | ls | hex N | inspect | verify | cat FROM LIMIT
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from pathlib import Path

import pytest

from collector.otlp.signals import TRACES
from collector.testing.files import FaultyFiles, MemoryFiles, keep_all, lose_all
from collector.wal import inspect
from collector.wal.frame import Frame
from collector.wal.log import Log
from tests import goldenscript
from tests.goldenscript import Command
from tests.wal.logs import DIRECTORY, CountingNonces, FakeClock, append, exchange_files, open_log, segment_paths

DATA = f"{DIRECTORY}/traces"


class LogRunner:
    """Executes the commands above."""

    def __init__(self) -> None:
        self.memory = MemoryFiles()
        self.files = FaultyFiles(self.memory)
        self.clock = FakeClock()
        self.nonces = CountingNonces(0x0102030405060708)
        self.options: dict[str, int] = {}
        self.log: Log | None = None

    def run(self, command: Command) -> str | Iterable[str] | None:
        """See `goldenscript.Run`."""
        return getattr(self, f"do_{command.name}")(command)

    @property
    def open_log(self) -> Log:
        assert self.log is not None, "open first"
        return self.log

    def path(self, command: Command, at: int = 0) -> str:
        return segment_paths(self.memory)[command.number(at)]

    def change(self, path: str, data: bytes) -> None:
        self.memory.put(path, data)

    def do_open(self, command: Command) -> None:
        self.options |= {key: int(value) for key, value in command.options.items()}
        self.log = open_log(self.files, clock=self.clock, entropy=self.nonces, **self.options)

    def do_reopen(self, command: Command) -> Iterable[str]:
        self.do_open(command)
        found = self.open_log.recovery
        yield (
            f"{found.records} records in {found.segments} segments, {found.truncated_bytes} bytes cut, "
            f"{found.rebuilt_indexes} indexes rebuilt"
        )
        for damage in found.damaged:
            yield f"damaged {damage.first_offset}..{damage.end_offset} {damage.reason}"

    def do_append(self, command: Command) -> str:
        ranges = []
        for count in map(int, command.arguments):
            times = (command.option("min", 0), command.option("max", 0)) if command.options.get("max") else None
            base = append(self.open_log, count, command.option("size", 24), times)
            ranges.append(f"{base}..{base + count}")
        return " ".join(ranges)

    def do_sync(self, _: Command) -> None:
        self.open_log.sync()

    def do_close(self, _: Command) -> None:
        self.open_log.close()

    def do_retain(self, _: Command) -> str:
        return f"{self.open_log.enforce_retention()} segments removed"

    def do_check(self, _: Command) -> Iterable[str]:
        return self.open_log.check() or ["all as it should be"]

    def do_dump(self, _: Command) -> str:
        return self.open_log.dump()

    def do_stats(self, _: Command) -> str:
        return str(self.open_log.stats())

    def do_kill(self, _: Command) -> None:
        self.memory = self.memory.after_power_cut(keep_all)
        self.files = FaultyFiles(self.memory)

    def do_lose_power(self, _: Command) -> None:
        self.memory = self.memory.after_power_cut(lose_all)
        self.files = FaultyFiles(self.memory)

    def do_read(self, command: Command) -> str:
        return describe(self.open_log.read(command.number(0)))

    def do_frames(self, command: Command) -> Iterable[str]:
        newest = "newest" in command.arguments
        found = self.open_log.frames(command.number(0), command.number(1), newest_first=newest)
        return [describe(frame) for frame in found] or ["none"]

    def do_cut(self, command: Command) -> None:
        path = segment_paths(self.memory)[-1]
        self.change(path, self.memory.contents(path).rstrip(b"\0")[: -command.number(0)])

    def do_extend(self, command: Command) -> None:
        path = segment_paths(self.memory)[-1]
        self.change(path, self.memory.contents(path) + bytes.fromhex(command.argument(0)))

    def do_flip(self, command: Command) -> None:
        data = bytearray(self.memory.contents(self.path(command)))
        data[command.number(1)] ^= 1
        self.change(self.path(command), bytes(data))

    def do_zero(self, command: Command) -> None:
        data = bytearray(self.memory.contents(self.path(command)))
        data[command.number(1) : command.number(2)] = bytes(command.number(2) - command.number(1))
        self.change(self.path(command), bytes(data))

    def do_remove(self, command: Command) -> None:
        self.memory.unlink(f"{DATA}/{command.argument(0)}")

    def do_copy(self, command: Command) -> None:
        self.change(f"{DATA}/{command.argument(1)}", self.memory.contents(f"{DATA}/{command.argument(0)}"))

    def do_full(self, _: Command) -> None:
        self.files = FaultyFiles(self.memory, {"pwritev", "allocate"}, 1, errno.ENOSPC, None)
        exchange_files(self.open_log, self.files)
        if self.open_log._writer:
            self.open_log._writer._files = self.files

    def do_room(self, _: Command) -> None:
        self.files.repair()

    def do_pass(self, command: Command) -> None:
        self.clock.pass_time(command.number(0))

    def do_ls(self, _: Command) -> Iterable[str]:
        return [f"{name} {len(self.memory.contents(f'{DATA}/{name}'))}" for name in sorted(self.memory.listdir(DATA))]

    def do_hex(self, command: Command) -> Iterable[str]:
        data = self.memory.contents(self.path(command))
        for at in range(0, len(data), 16):
            row = data[at : at + 16]
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
            yield f"{at:04x}  {row[:8].hex(' ')}  {row[8:].hex(' ')}  {text}"

    def do_inspect(self, _: Command) -> Iterable[str]:
        for one in inspect.inspect(DIRECTORY, self.memory):
            yield (
                f"{one.signal} {one.path.rpartition('/')[2]} {'active' if one.active else 'sealed'} "
                f"offsets {one.base_offset}..{one.next_offset} records {one.records} "
                f"bytes {one.size} of {one.file_size} times {one.min_time}..{one.max_time} index {one.index}"
            )

    def do_verify(self, _: Command) -> Iterable[str]:
        report = inspect.verify(DIRECTORY, self.memory)
        yield f"{report.records} records, {report.bytes} bytes in {report.segments} segments"
        yield from (f"note {note}" for note in report.notes)
        yield from (f"problem {problem.path} {problem.text}" for problem in report.problems)

    def do_cat(self, command: Command) -> Iterable[str]:
        found = inspect.cat(DIRECTORY, TRACES, command.number(0), command.number(1), self.memory)
        return [describe(frame) for frame in found] or ["none"]


def describe(frame: Frame) -> str:
    """A frame on one line."""
    return f"{frame.base_offset}..{frame.end_offset} times {frame.min_time}..{frame.max_time} {frame.payload!r}"


@pytest.mark.parametrize("path", goldenscript.scripts("wal"), ids=goldenscript.script_id)
def test_script(path: Path) -> None:
    goldenscript.check(path, LogRunner().run)
