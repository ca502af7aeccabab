"""Files of records, read request by request: OTLP/JSON lines, length-prefixed protobuf, Jaeger JSON.

What a file holds is seen from its first byte: `{` or white space is JSON, anything else protobuf, each request behind its
length in four bytes, big-endian. gzip and zstd are undone first for the whole file; zstd also for each request behind its
length, as the Collector's file exporter writes it: then JSON may be behind lengths, too. JSON whose first key is `data` is Jaeger's, a document of at most
`DOCUMENT_BYTES_MAX`, or one a line. A line of OTLP/JSON says itself which signal it is of; protobuf does not, so that it is told,
or found in the file's name.

Memory is bounded by one request, or one Jaeger document. What cannot be read costs itself, and its number is told; only a
length that makes no sense ends a file, because nothing says where the next one would be.
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import zstandard

from collector.errors import Malformed, TooLarge
from collector.moving.jaeger import to_otlp, traces_of
from collector.moving.streams import ZSTD
from collector.otlp.json.request import to_protobuf
from collector.otlp.signals import BY_NAME, LOGS, METRICS, TRACES, Signal

if TYPE_CHECKING:
    import io
    from collections.abc import Iterator

REQUEST_BYTES_MAX: Final = 64 * 1024 * 1024
"""Bytes of a line, or of a request behind its length."""
DOCUMENT_BYTES_MAX: Final = 256 * 1024 * 1024
_BAD: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding JSON raises; the last one for what is nested too deep."""
_LENGTH: Final = struct.Struct(">I")
_KEY: Final = re.compile(rb'\s*\{\s*"([A-Za-z]+)"')
_SIGNALS: Final = {b"resourceSpans": TRACES, b"resourceLogs": LOGS, b"resourceMetrics": METRICS}


class Found(NamedTuple):
    """A request of a file, or why there is none."""

    number: int
    """Of the line, request, or trace, from 1."""
    signal: Signal | None
    payload: bytes
    reason: str = ""


def signal_of_name(path: str) -> Signal | None:
    """Return the signal that a file's name mentions, if it is one: `traces-2026.binpb`."""
    found = [signal for name, signal in BY_NAME.items() if re.search(rf"{name[:-1]}s?", os.path.basename(path))]
    return found[0] if len(found) == 1 else None


def requests(stream: io.BufferedIOBase, signal: Signal | None) -> Iterator[Found]:
    """Yield what a file holds, in order; `signal` is that of protobuf. Raises Malformed for a file that is of no kind that
    is known, and OSError."""
    head = _peeked(stream)
    if not head[0]:
        return
    if head[0].lstrip()[:1] == b"{" or not head[0].strip():
        yield from _json(head[1])
    else:
        yield from _prefixed(head[1], signal)


class _Reader:
    """A stream whose first bytes were looked at."""

    def __init__(self, stream: io.BufferedIOBase, head: bytes) -> None:
        self._stream = stream
        self._head = head

    def read(self, size: int) -> bytes:
        """Return so many bytes, fewer at the end."""
        data, self._head = self._head[:size], self._head[size:]
        parts = [data]
        missing = size - len(data)
        while missing > 0 and (data := self._stream.read(min(missing, 1024 * 1024))):
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def line(self, size_max: int) -> bytes:
        """Return a line with its end, or so many bytes of it."""
        at = self._head.find(b"\n") + 1
        if at:
            data, self._head = self._head[:at], self._head[at:]
            return data
        data, self._head = self._head, b""
        return data + self._stream.readline(size_max - len(data))


def _peeked(stream: io.BufferedIOBase) -> tuple[bytes, _Reader]:
    head = stream.read(64)
    return head, _Reader(stream, head)


def _json(reader: _Reader) -> Iterator[Found]:
    number = 0
    while line := reader.line(REQUEST_BYTES_MAX + 1):
        number += 1
        if len(line) > REQUEST_BYTES_MAX and not line.endswith(b"\n"):
            if number == 1 and _KEY.match(line) and _KEY.match(line)[1] == b"data":  # type: ignore[index]
                yield from _jaeger(line, reader)
                return
            while line and not line.endswith(b"\n"):
                line = reader.line(REQUEST_BYTES_MAX)
            yield Found(number, None, b"", f"longer than {REQUEST_BYTES_MAX} bytes")
            continue
        if not line.strip():
            continue
        key = _KEY.match(line)
        if number == 1 and (key is None or key[1] not in _SIGNALS):
            document = _is_whole(line)
            if not document:
                yield from _jaeger(line, reader)
                return
        if key is not None and key[1] in _SIGNALS:
            yield _line(number, _SIGNALS[key[1]], line)
        else:
            yield from _other(number, line)


def _line(number: int, signal: Signal, line: bytes) -> Found:
    try:
        return Found(number, signal, to_protobuf(signal, line))
    except Malformed as error:
        return Found(number, None, b"", str(error))


def _is_whole(line: bytes) -> bool:
    try:
        msgspec.json.decode(line)
    except _BAD:
        return False
    return True


def _other(number: int, line: bytes) -> Iterator[Found]:
    """A line that is no OTLP by its first key: Jaeger's, or OTLP with other keys before."""
    try:
        document = msgspec.json.decode(line)
        signal = _signal_of(document)
        traces = traces_of(document) if signal is None else []
    except (*_BAD, Malformed) as error:
        yield Found(number, None, b"", str(error))
        return
    if signal is not None:
        yield _line(number, signal, line)
    for trace in traces:
        yield _trace(number, trace)


def _signal_of(document: object) -> Signal | None:
    """Return the signal of a document of OTLP/JSON."""
    found = [one for name, one in _SIGNALS.items() if isinstance(document, dict) and name.decode() in document]
    return found[0] if found else None


def _trace(number: int, trace: object) -> Found:
    try:
        return Found(number, TRACES, to_otlp(trace))
    except Malformed as error:
        return Found(number, None, b"", str(error))


def _jaeger(head: bytes, reader: _Reader) -> Iterator[Found]:
    """A document over several lines, which is Jaeger's, or OTLP that somebody has laid out for people."""
    data = head + reader.read(DOCUMENT_BYTES_MAX + 1 - len(head))
    if len(data) > DOCUMENT_BYTES_MAX:
        raise TooLarge(f"a document of more than {DOCUMENT_BYTES_MAX} bytes that is no JSON lines")
    if not _is_whole(data):
        # Lines after all, of which the first is damaged.
        for number, line in enumerate(data.splitlines(), 1):
            if line.strip():
                key = _KEY.match(line)
                signal = _SIGNALS.get(key[1]) if key is not None else None
                yield from [_line(number, signal, line)] if signal is not None else _other(number, line)
        return
    document = msgspec.json.decode(data)
    signal = _signal_of(document)
    if signal is not None:
        yield _line(1, signal, data)
        return
    for number, trace in enumerate(traces_of(document), 1):
        yield _trace(number, trace)


def _prefixed(reader: _Reader, signal: Signal | None) -> Iterator[Found]:
    """Requests behind their lengths: protobuf, or what the Collector compresses one by one, which may be JSON."""
    number = 0
    unpack = zstandard.ZstdDecompressor()
    while head := reader.read(_LENGTH.size):
        number += 1
        size = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else None
        if size is None or size > REQUEST_BYTES_MAX:
            if number == 1:
                what = "this is neither OTLP/JSON lines, nor protobuf behind lengths, nor Jaeger's JSON"
            else:
                what = "its length makes no sense: the rest of the file cannot be read"
            yield Found(number, None, b"", what)
            return
        data = reader.read(size)
        if len(data) < size:
            yield Found(number, None, b"", f"the file ends after {len(data)} of {size} bytes of it")
            return
        if data.startswith(ZSTD):
            try:
                data = unpack.stream_reader(data).read(REQUEST_BYTES_MAX + 1)
            except zstandard.ZstdError as error:
                yield Found(number, None, b"", f"zstd: {error}")
                continue
            if len(data) > REQUEST_BYTES_MAX:
                yield Found(number, None, b"", f"more than {REQUEST_BYTES_MAX} bytes")
                continue
        if data.startswith(b"{"):  # A group, which no message of OTLP has.
            key = _KEY.match(data)
            known = _SIGNALS.get(key[1]) if key is not None else None
            yield from [_line(number, known, data)] if known is not None else _other(number, data)
        elif signal is None:
            raise Malformed("protobuf does not say which signal it is of; --signal does")
        else:
            yield Found(number, signal, data)
