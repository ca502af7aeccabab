"""The log played again: records go to an OTLP endpoint, or an exporter, in the order and at the pace in which they once happened.

The pace goes by the oldest main time of each piece of the log: a piece is sent when as much time has passed since the first
one as lies between their times, divided by the speed; what is older than a piece before it goes at once. Several signals are
merged by these times. Times in the records stay, or are shifted all by the same, so that distances stay at any speed.

It may be gone on with: `at` says for each signal what was acknowledged, and by how much times are shifted. What was under way
when a replay ended is sent again: OTLP has no key for it, but an exporter is given every record under its offset in a source
that is made up for the replay, so that a destination which keeps keys has it once. Memory: one piece a signal.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, Final

import msgspec

from collector.errors import Malformed, Permanent
from collector.moving.source import Range
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, TRACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from collector.clock import Clock
    from collector.exporters.base import Rejected
    from collector.moving.source import Piece, Runs
    from collector.otlp.signals import Signal

WAIT_S: Final = 1.0
"""The longest wait at once, so that progress is told meanwhile."""
TIME_MAX: Final = 2**64 - 1
_POINTS: Final = ("gauge", "sum", "histogram", "exponential_histogram", "summary")


class Position(msgspec.Struct):
    """How far a replay has come."""

    request: dict[str, Any]
    shift_ns: int | None
    """What is added to times; None while it is not known."""
    at: dict[str, int]
    """By signal, the next offset."""
    records: int = 0
    rejected: int = 0
    refused: int = 0
    """Records of requests that were refused as a whole."""
    instance: str = ""
    """The made-up source's, under whose keys an exporter is given the records."""
    within: Range = Range()
    """The range, as it was understood when the replay began: `now-15m` means something else later."""


def replay(
    pieces: Mapping[Signal, Iterator[Piece]],
    send: Callable[[Signal, bytes, Runs], Rejected | None],
    wait: Callable[[float], None],
    clock: Clock,
    position: Position,
    *,
    speed: float | None,
    to_now: bool,
    told: Callable[[str], None] = lambda _: None,
    progress: Callable[[Position, float], None] = lambda _, __: None,
) -> None:
    """Send all of it, `speed` times as fast as it happened, None for as fast as it is taken. With `to_now`, times are
    shifted so that the first record's is now. `progress` is told the position, and how many seconds it is late.

    Raises as the pieces and `send` do, but for Permanent: that is told, and costs the piece.
    """
    began: tuple[float, int] | None = None
    timed = (_timed(signal, found) for signal, found in pieces.items())
    for time_ns, _, signal, piece in heapq.merge(*timed, key=lambda one: one[:2]):
        if piece.records:
            if position.shift_ns is None:
                position.shift_ns = clock.now_ns() - time_ns if to_now else 0
            if began is None:
                began = clock.monotonic(), time_ns
            late_s = 0.0
            if speed is not None:
                due = began[0] + (time_ns - began[1]) / 1e9 / speed
                while (left := due - clock.monotonic()) > 0:
                    progress(position, 0.0)
                    wait(min(left, WAIT_S))
                late_s = -left
            try:
                rejected = send(signal, shifted(signal, piece.payload, position.shift_ns), piece.runs)
            except Permanent as error:
                position.refused += piece.records
                told(f"{piece.records} {signal.noun} before offset {piece.next_offset} are refused: {error}")
            else:
                refused = rejected.records if rejected is not None else 0
                position.rejected += refused
                position.records += piece.records - refused
            progress(position, late_s)
        position.at[signal.name] = piece.next_offset


def _timed(signal: Signal, pieces: Iterable[Piece]) -> Iterator[tuple[int, int, Signal, Piece]]:
    """Yield pieces with their times; none is older than the one before."""
    newest = 0
    for piece in pieces:
        if piece.records:
            try:
                newest = max(newest, piece.time_ns or int(scan(signal, piece.payload, 0).column("time").min()))
            except Malformed:
                continue  # A program with other rules has written it.
        yield newest, signal.code, signal, piece


def shifted(signal: Signal, payload: bytes, by_ns: int) -> bytes:
    """Return a request with all its times moved; those that are 0, which is unknown, stay so."""
    if not by_ns:
        return payload
    made = signal.request_type.FromString(payload)
    if signal is TRACES:
        for container in made.resource_spans:
            for scope in container.scope_spans:
                for span in scope.spans:
                    _move(span, by_ns, "start_time_unix_nano", "end_time_unix_nano")
                    for event in span.events:
                        _move(event, by_ns, "time_unix_nano")
    elif signal is LOGS:
        for container in made.resource_logs:
            for scope in container.scope_logs:
                for record in scope.log_records:
                    _move(record, by_ns, "time_unix_nano", "observed_time_unix_nano")
    else:
        for container in made.resource_metrics:
            for scope in container.scope_metrics:
                for metric in scope.metrics:
                    _move_points(metric, by_ns)
    return bytes(made.SerializeToString())


def _move_points(metric: Any, by_ns: int) -> None:
    kind = metric.WhichOneof("data")
    for point in getattr(metric, kind).data_points if kind in _POINTS else ():
        _move(point, by_ns, "start_time_unix_nano", "time_unix_nano")
        for exemplar in getattr(point, "exemplars", ()):
            _move(exemplar, by_ns, "time_unix_nano")


def _move(message: Any, by_ns: int, *names: str) -> None:
    for name in names:
        value = getattr(message, name)
        if value:
            setattr(message, name, min(max(1, value + by_ns), TIME_MAX))
