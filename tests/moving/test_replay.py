"""Replay: the pace is that of the records' times, the order that of their arrival, and distances stay; ranges are exact."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from collector.cli import main
from collector.errors import Malformed, Permanent, Unavailable
from collector.exporters import kinds
from collector.exporters.base import Rejected
from collector.moving.replay import Position, replay, shifted
from collector.moving.source import END, Piece, Range, Runs, from_directory, persistent, range_of
from collector.moving.target import ExporterTarget, numbered
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, SIGNALS, TRACES, Signal
from collector.testing import otlp
from collector.wal.files import OperatingSystemFiles
from tests.exporters.memory_backend import KEPT, MemoryBackend, MemorySettings
from tests.wal.logs import FakeClock, open_log

SECOND = 10**9
BEGIN = 1_700_000_000 * SECOND


def logs(*times: int) -> bytes:
    made = LOGS.request_type()
    scope = made.resource_logs.add().scope_logs.add()
    for time in times:
        scope.log_records.add(time_unix_nano=time, observed_time_unix_nano=time + 1)
    return made.SerializeToString()


class Played:
    """What was sent when, by a clock that waits move."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sent: list[tuple[float, Signal, bytes]] = []
        self.refuse: set[bytes] = set()

    def send(self, signal: Signal, payload: bytes, runs: Runs) -> Rejected | None:
        if payload in self.refuse:
            raise Permanent("no")
        self.sent.append((self.clock.monotonic() - 1000.0, signal, payload))
        return None

    def play(self, pieces: dict[Signal, list[Piece]], position: Position | None = None, **options: Any) -> Position:
        made = position or Position({}, None, {})
        replay(
            {signal: iter(some) for signal, some in pieces.items()},
            self.send,
            self.clock.pass_time,
            self.clock,
            made,
            **({"speed": 1.0, "to_now": False} | options),
        )
        return made


def pieces_at(*seconds: float) -> list[Piece]:
    return [Piece(logs(BEGIN + int(at * SECOND)), 1, number + 1) for number, at in enumerate(seconds)]


@pytest.mark.parametrize(("speed", "expected"), [(1.0, [0, 2.5, 2.5, 10]), (10.0, [0, 0.25, 0.25, 1]), (None, [0] * 4)])
def test_the_pace(speed: float | None, expected: list[float]) -> None:
    played = Played()
    position = played.play({LOGS: pieces_at(0, 2.5, 1, 10)}, speed=speed)
    assert [at for at, *_ in played.sent] == pytest.approx(expected)
    assert (position.at, position.records) == ({"logs": 4}, 4)


def test_signals_are_merged_by_their_times() -> None:
    played = Played()
    spans = [Piece(otlp.traces(1, time_ns=BEGIN + at * SECOND), 1, at) for at in (1, 3)]
    played.play({LOGS: pieces_at(0, 2, 4), TRACES: spans}, speed=None)
    assert [signal for _, signal, _ in played.sent] == [LOGS, TRACES, LOGS, TRACES, LOGS]


def test_what_is_refused_is_told_and_passed_by() -> None:
    played = Played()
    some = pieces_at(0, 1, 2)
    played.refuse = {some[1].payload}
    position = played.play({LOGS: some})
    assert (position.records, position.refused, position.at) == (2, 1, {"logs": 3})


def test_times_shifted_to_now_keep_their_distances_over_an_interruption() -> None:
    played = Played()
    some = pieces_at(0, 1, 5)
    now = played.clock.now_ns()
    position = played.play({LOGS: some[:2]}, to_now=True)
    played.play({LOGS: some[2:]}, position, to_now=True)
    times = [int(scan(LOGS, payload, 0).column("time")[0]) for *_, payload in played.sent]
    assert times == [now, now + SECOND, now + 5 * SECOND]


@pytest.mark.parametrize("signal", SIGNALS)
def test_shifting_there_and_back_changes_nothing(signal: Signal) -> None:
    payload = otlp.BUILDERS[signal](20)
    there = shifted(signal, payload, 3600 * SECOND)
    moved = scan(signal, there, 0).column("time") - scan(signal, payload, 0).column("time")
    assert set(moved.tolist()) == {3600 * SECOND}
    back = signal.request_type.FromString(shifted(signal, there, -3600 * SECOND))
    assert back == signal.request_type.FromString(payload)
    assert shifted(signal, payload, 0) is payload


def test_ranges_of_a_directory_are_exact(tmp_path: Path) -> None:
    log = open_log(OperatingSystemFiles(), directory=str(tmp_path), signal=LOGS, segment_bytes=1000)
    times = [BEGIN + number * SECOND for number in range(40)]
    for at in range(0, 40, 4):
        some = [times[at + 1], times[at], *times[at + 2 : at + 4]]
        log.append([logs(*some)], 4, some[1], some[-1])
    log.close()

    def read(within: Range) -> list[int]:
        found = list(from_directory(str(tmp_path), LOGS, within, OperatingSystemFiles()))
        assert all(piece.records == scan(LOGS, piece.payload, 0).count for piece in found if piece.records)
        return [
            time for piece in found if piece.records for time in scan(LOGS, piece.payload, 0).column("time").tolist()
        ]

    everything = read(Range())
    assert sorted(everything) == times
    for first, end in ((0, 40), (3, 3 + 1), (5, 18), (39, 99), (8, 12)):
        assert read(Range(first, end)) == everything[first:end]
    assert sorted(read(Range(start_ns=times[2], end_ns=times[9]))) == times[2:9]
    assert read(Range(6, END, times[1], times[10])) == [one for one in everything[6:] if one < times[10]]


def test_bounds() -> None:
    now = BEGIN
    assert range_of("5", "9", now) == Range(5, 9)
    assert range_of("now-15m", "now", now)[2:] == (now - 900 * SECOND, now)
    assert range_of("2023-11-14T22:13:20Z", "2023-11-14T23:13:21+01:00", now)[2:] == (BEGIN, BEGIN + SECOND)
    for since, until in (("9", "5"), ("x", None), ("now", "now-1h"), ("-1", None)):
        with pytest.raises(Malformed):
            range_of(since, until, now)


def test_a_source_that_breaks_off_is_asked_again_as_long_as_more_comes() -> None:
    asked = []

    def make(first: int) -> Iterator[Piece]:
        asked.append(first)
        for at in range(first, min(first + 3, 7)):
            yield Piece(b"", 0, at + 1)
        if first + 3 <= 7 or first == 99:
            raise Unavailable("gone")

    assert [piece.next_offset for piece in persistent(make, 0)] == list(range(1, 8))
    assert asked == [0, 3, 6]
    with pytest.raises(Unavailable):
        list(persistent(make, 99))


def test_an_exporter_is_given_each_record_under_its_offset(tmp_path: Path) -> None:
    """However the log is cut into pieces: what was sent before a crash is sent again under the same keys."""
    log = open_log(OperatingSystemFiles(), directory=str(tmp_path), signal=LOGS, segment_bytes=1000)
    times = [BEGIN + number * SECOND for number in range(40)]
    for at in range(0, 40, 4):
        log.append([logs(*times[at : at + 4])], 4, times[at], times[at + 3])
    log.close()
    within = Range(start_ns=times[3], end_ns=times[30])
    KEPT.pop("to", None)

    def play(pieces: Iterator[Piece]) -> None:
        with ExporterTarget(
            lambda _: MemoryBackend(MemorySettings(name="to"), None),  # type: ignore[arg-type]
            "1" * 32,
            "",
            FakeClock(),
        ) as target:
            target.__dict__["_reached"] = {LOGS: 0}  # A destination that keeps keys, but no position.
            replay({LOGS: pieces}, target.send, target.wait, FakeClock(), Position({}, 0, {}), speed=None, to_now=False)

    found = list(from_directory(str(tmp_path), LOGS, within, OperatingSystemFiles()))
    play(iter(found[:4]))
    joined = [one for one in found[2:] if one.records]
    whole = Piece(
        b"".join(one.payload for one in joined),
        sum(one.records for one in joined),
        joined[-1].next_offset,
        runs=tuple(run for one in joined for run in one.runs),
    )
    play(iter([whole]))
    assert {offset: ref.time for (_, offset), ref in KEPT.pop("to").items()} == {at: times[at] for at in range(3, 30)}
    with pytest.raises(Malformed, match="for 2 offsets"):
        list(numbered(LOGS, logs(1, 2, 3), ((0, 2),)))


def test_the_command_finds_an_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds.BUILT_IN, "memory", "tests.exporters.memory_backend:KIND")
    KEPT.pop("to", None)
    log = open_log(OperatingSystemFiles(), directory=str(tmp_path), signal=LOGS)
    log.append([logs(BEGIN, BEGIN + SECOND)], 2, BEGIN, BEGIN + SECOND)
    log.close()
    asked = ("replay", "--directory", str(tmp_path), "--signal", "logs", "--speed", "max", "--to-exporter", "memory/a")
    done = CliRunner().invoke(main, (*asked, "--set", "exporters.memory/a.name=to", "--shift", "1h"))
    assert done.exit_code == 0, done.output
    assert sorted(ref.time for ref in KEPT.pop("to").values()) == [BEGIN + 3600 * SECOND, BEGIN + 3601 * SECOND]
    assert "there is no exporter memory/a" in CliRunner().invoke(main, asked).output
    assert "--to-exporter" in CliRunner().invoke(main, (*asked[:-2], "--set", "a=b")).output
