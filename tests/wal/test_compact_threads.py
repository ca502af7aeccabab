"""Appends, retention, compaction and readers at once, on real files: nobody sees anything but what was appended."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from collector.otlp.scan import scan
from collector.otlp.signals import TRACES
from collector.testing.otlp import traces
from collector.wal import compactor as module
from collector.wal.compactor import Compactor
from collector.wal.files import OperatingSystemFiles
from collector.wal.inspect import verify
from collector.wal.log import Log
from collector.wal.metrics import LogMetrics
from tests.wal.logs import open_log
from tests.wal.test_keys import SERVICES, column_keys

REQUESTS = 400
RECORDS = 4


class Reader(threading.Thread):
    """Reads the log again and again until told to stop; `problems` is what it has seen that nobody appended."""

    def __init__(self, log: Log, payloads: list[bytes], newest_first: bool) -> None:
        super().__init__(daemon=True)
        self.log = log
        self.payloads = payloads
        self.newest_first = newest_first
        self.stopping = threading.Event()
        self.problems: list[str] = []
        self.rounds = 0

    def run(self) -> None:
        try:
            while not self.stopping.is_set() and not self.problems:
                self.look()
                self.rounds += 1
        except Exception as error:
            self.problems.append(repr(error))

    def look(self) -> None:
        """One pass over everything, and one by a key."""
        first, end = self.log.first_offset, self.log.next_offset
        frames = list(self.log.frames(0, end, newest_first=self.newest_first))
        at = None
        for frame in frames[::-1] if self.newest_first else frames:
            number, left = divmod(frame.base_offset, RECORDS)
            expected = b"".join(self.payloads[number : number + frame.count // RECORDS])
            if left or frame.payload != expected:
                self.problems.append(f"{frame.base_offset}..{frame.end_offset} is something else")
            if at not in (None, frame.base_offset) and at >= self.log.first_offset:  # else retention took them
                self.problems.append(f"{at} is followed by {frame.base_offset}")
            at = frame.end_offset
        if at is not None and at < end:
            self.problems.append(f"{at}..{end} is missing")
        service = SERVICES[self.rounds % 3].encode()
        found = set()
        for frame in self.log.frames(0, end, index="service", any_of=[service], newest_first=self.newest_first):
            column = column_keys(scan(TRACES, frame.payload, 0), "service")
            found |= {frame.base_offset + row for row in range(frame.count) if column[row] == self.key(service)}
        first = max(first, self.log.first_offset)
        own = range(self.rounds % 3 * RECORDS, end, 3 * RECORDS)
        expected_offsets = {offset + row for offset in own for row in range(RECORDS)}
        if missing := {offset for offset in expected_offsets - found if offset >= first and offset < end}:
            self.problems.append(f"{sorted(missing)[:5]} of {service!r} are missing")

    @staticmethod
    def key(service: bytes) -> int:
        from collector.otlp.wire import hash_key

        return hash_key(service)


@pytest.mark.parametrize("retention_bytes", [None, 120_000])
def test_everybody_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retention_bytes: int | None) -> None:
    monkeypatch.setattr(module, "SHARE", 1.0)
    monkeypatch.setattr(module, "IDLE_S", 0.001)
    files = OperatingSystemFiles()
    log = open_log(files, directory=str(tmp_path), segment_bytes=20_000, retention_bytes=retention_bytes)
    payloads = [traces(RECORDS, seed=seed, service=SERVICES[seed % 3]) for seed in range(60)]
    payloads = [payloads[number % 60] for number in range(REQUESTS)]
    compactor = Compactor(lambda: [log], files=files, metrics=LogMetrics(CollectorRegistry()))
    readers = [Reader(log, payloads, newest_first) for newest_first in (False, True)]
    for payload in payloads[:20]:
        log.append([payload], RECORDS, 1, 2)
    compactor.start()
    for reader in readers:
        reader.start()
    for payload in payloads[20:]:
        log.append([payload], RECORDS, 1, 2)
        log.enforce_retention()
    for reader in readers:
        reader.stopping.set()
        reader.join()
    compactor.close()
    assert [problem for reader in readers for problem in reader.problems] == []
    assert all(reader.rounds for reader in readers)
    assert log.damaged == ()
    assert sum(one.compacted for one in log.sealed_segments) > 3
    assert all(one.readers == 0 for one in log.segments)
    assert log.check() == []
    log.close()
    assert verify(tmp_path, files).problems == []
    assert log.logger.named("key index not used") == []  # type: ignore[attr-defined]
