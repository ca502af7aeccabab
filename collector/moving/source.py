"""Records of a log in order of offset, out of a data directory or through a running daemon, in pieces.

A data directory is read as `ringtail wal cat` reads it: no lock, beside a daemon or without one, damage passed over. A daemon
is asked by its query service (proto/ringtail/v1/query.proto): ReadLog for everything, Tail for what a query matches,
which knows TraceQL and LogQL. A tail tells where it is with each match, and when it has come to what was the end of the log at its
begin.

A piece is what came at once, some 256 KiB at most by a daemon, a frame from a directory; memory is bounded by that.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from collector.api.messages import SERVICE, message
from collector.errors import Malformed, Unavailable
from collector.otlp.cut import cut
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, Signal
from collector.wal.inspect import cat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from collector.otlp.block import Block
    from collector.wal.files import Files

Runs: TypeAlias = "tuple[tuple[int, int], ...]"

END: Final = 2**63
END_OF_TIME: Final = 2**64 - 1
FRAMES_MAX: Final = 2**62
_NUMBER: Final = re.compile(r"[0-9]{1,19}")
_AGO: Final = re.compile(r"now(?:-([0-9]+)(s|m|h|d))?")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Range(NamedTuple):
    """Which records are wanted: offsets in [first, end) that have main times in [start_ns, end_ns)."""

    first: int = 0
    end: int = END
    start_ns: int = 0
    end_ns: int = END_OF_TIME


class Piece(NamedTuple):
    """Records that follow each other in a log."""

    payload: bytes
    """One OTLP export request."""
    records: int
    next_offset: int
    """Where what comes after it begins: everything before it has been told, or is not wanted."""
    time_ns: int = 0
    """The oldest main time in it, where that was looked at; else 0."""
    runs: Runs = ()
    """Its records' offsets, as ranges [first, end) in their order; none where a query chose them."""


def bound(text: str, now_ns: int) -> tuple[int | None, int | None]:
    """Read an OFFSET|TIME: (offset, None) or (None, ns). An offset is a number; a time RFC 3339, or now-15m (s, m, h, d).

    Raises Malformed.
    """
    from datetime import UTC, datetime

    if _NUMBER.fullmatch(text):
        return int(text), None
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return None, max(0, now_ns - int(ago[1] or 0) * _UNITS[ago[2] or "s"] * 10**9)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise Malformed(f"{text!r} is neither an offset nor a time like 2026-11-21T10:00:00Z or now-15m") from error
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return None, max(0, (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000)


def range_of(since: str | None, until: str | None, now_ns: int) -> Range:
    """Read both ends. Raises Malformed."""
    made = Range()
    for text, place, when in ((since, "first", "start_ns"), (until, "end", "end_ns")):
        if text is not None:
            offset, time_ns = bound(text, now_ns)
            made = made._replace(**({place: offset} if offset is not None else {when: time_ns}))
    if made.first >= made.end or made.start_ns >= made.end_ns:
        raise Malformed("the range ends before it begins")
    return made


def from_directory(directory: str, signal: Signal, within: Range, files: Files) -> Iterator[Piece]:
    """Yield what a data directory, or a tenant's, holds of the range. Raises NotFound, UnsupportedFormat, Unavailable."""
    for frame in cat(directory, signal, within.first, FRAMES_MAX, files):
        if frame.base_offset >= within.end:
            return
        whole = within.first <= frame.base_offset and frame.end_offset <= within.end
        if whole and within.start_ns <= frame.min_time and frame.max_time < within.end_ns:
            runs = ((frame.base_offset, frame.end_offset),)
            yield Piece(frame.payload, frame.count, frame.end_offset, frame.min_time, runs)
        elif frame.max_time >= within.start_ns and frame.min_time < within.end_ns:
            yield _narrowed(signal, frame.payload, frame.base_offset, frame.end_offset, within)
        else:
            yield Piece(b"", 0, frame.end_offset)


def _narrowed(signal: Signal, payload: bytes, base: int, end: int, within: Range) -> Piece:
    """Return what is wanted of records that follow each other from offset `base` on. Raises Malformed."""
    block = scan(signal, payload, base)
    times = block.column("time").tolist()
    rows = [
        row
        for row in range(max(0, within.first - base), min(block.count, within.end - base))
        if within.start_ns <= times[row] < within.end_ns
    ]
    return _rows(block, rows, end)


def _rows(block: Block, rows: list[int], end: int) -> Piece:
    """Return these rows, which are in order, as a piece that ends before offset `end`."""
    oldest = int(block.column("time")[rows].min()) if rows else 0
    base = block.base_offset
    if len(rows) == block.count:
        return Piece(bytes(block.payload), block.count, end, oldest, ((base, base + block.count),))
    parts: list[bytes] = []
    runs: list[tuple[int, int]] = []
    at = 0
    while at < len(rows):
        behind = at + 1
        while behind < len(rows) and rows[behind] == rows[behind - 1] + 1:
            behind += 1
        first, last = rows[at], rows[behind - 1]
        parts.append(bytes(cut(block, first, last + 1).payload))
        runs.append((base + first, base + last + 1))
        at = behind
    return Piece(b"".join(parts), len(rows), end, oldest, tuple(runs))


def from_daemon(
    channel: Any,
    signal: Signal,
    within: Range,
    query: str,
    metadata: Sequence[tuple[str, str]],
    missed: Callable[[int, str], None],
) -> Iterator[Piece]:
    """Yield what a daemon holds of the range now, and a query matches, by a gRPC channel. `missed` is told how many
    offsets were passed over, and why. Raises Unavailable, and Malformed for a query of data points.
    """
    import grpc

    if query and signal is METRICS:
        raise Malformed("a query selects spans or log records; data points go by offset or time")
    try:
        if query:
            yield from _tailed(channel, signal, within, query, metadata, missed)
        else:
            yield from _read(channel, signal, within, metadata, missed)
    except grpc.RpcError as error:
        raise Unavailable(f"the daemon's query service answers {error.code().name}: {error.details()}") from error


def persistent(make: Callable[[int], Iterator[Piece]], first: int) -> Iterator[Piece]:
    """Yield the pieces that `make` gives from an offset on, and ask again where it broke off, as long as more comes: a daemon
    ends an answer that nobody takes for half a minute."""
    at = first
    while True:
        began = at
        try:
            for piece in make(at):
                at = piece.next_offset
                yield piece
        except Unavailable:
            if at == began:
                raise
        else:
            return


def _read(
    channel: Any, signal: Signal, within: Range, metadata: Sequence[tuple[str, str]], missed: Callable[[int, str], None]
) -> Iterator[Piece]:
    method = channel.unary_stream(
        f"/{SERVICE}/ReadLog",
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=message("ReadLogResponse").FromString,
    )
    asked = message("ReadLogRequest")(
        signal=signal.code, from_offset=within.first, end_offset=0 if within.end == END else within.end
    )
    at = within.first
    narrow = within.start_ns > 0 or within.end_ns < END_OF_TIME
    for one in method(asked, metadata=metadata):
        if one.base_offset > at:
            missed(one.base_offset - at, "deleted, damaged, or removed by retention")
        at = one.base_offset + one.count
        payload = getattr(one, signal.name).SerializeToString()
        piece = Piece(payload, one.count, at, runs=((one.base_offset, at),))
        yield _narrowed(signal, payload, one.base_offset, at, within) if narrow else piece


def _tailed(
    channel: Any,
    signal: Signal,
    within: Range,
    query: str,
    metadata: Sequence[tuple[str, str]],
    missed: Callable[[int, str], None],
) -> Iterator[Piece]:
    tail = channel.unary_stream(
        f"/{SERVICE}/Tail",
        request_serializer=lambda one: one.SerializeToString(),
        response_deserializer=message("TailResponse").FromString,
    )
    code = 2 if signal is LOGS else 1
    # The first answer of a tail without an offset says where the log ends now.
    call = tail(message("TailRequest")(signal=code, query=query), metadata=metadata)
    end = min(within.end, next(iter(call)).next_offset)
    call.cancel()
    if within.first >= end:
        return
    asked = message("TailRequest")(signal=code, query=query, from_offset=within.first)
    call = tail(asked, metadata=metadata)
    at = within.first
    try:
        for one in call:
            if one.WhichOneof("told") == "missed":
                missed(one.missed.next_offset - one.missed.first_offset, "not held, or too large")
                yield Piece(b"", 0, one.next_offset)
            elif one.WhichOneof("told") is not None:
                payload = getattr(one, signal.name).SerializeToString()
                piece = _narrowed(signal, payload, 0, one.next_offset, within._replace(first=0, end=END))
                piece = piece._replace(runs=())
                yield piece if one.next_offset <= end else _before(channel, signal, piece, at, end, metadata)
            elif one.next_offset:
                yield Piece(b"", 0, one.next_offset)
            at = max(at, one.next_offset)
            if at >= end:
                return
    finally:
        call.cancel()


def _before(
    channel: Any, signal: Signal, piece: Piece, first: int, end: int, metadata: Sequence[tuple[str, str]]
) -> Piece:
    """Return those of a piece's records that lie before `end`. A tail tells no offsets, so the records from `first` to there
    are read, and compared."""
    known: set[bytes] = set()
    for one in _read(channel, signal, Range(first, end), metadata, lambda _, __: None):
        known.update(_records(scan(signal, one.payload, 0)))
    block = scan(signal, piece.payload, 0)
    rows = [row for row, record in enumerate(_records(block)) if record in known]
    return _rows(block, rows, piece.next_offset)


def _records(block: Block) -> list[bytes]:
    starts, lengths = block.column("start").tolist(), block.column("length").tolist()
    return [bytes(block.payload[start : start + length]) for start, length in zip(starts, lengths, strict=True)]
