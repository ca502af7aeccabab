"""Loki's push requests made OTLP: what Promtail, Alloy, Docker's driver and Fluent Bit send to `/loki/api/v1/push`.

Both of Loki's forms become one: JSON is written as the protobuf that the other clients send, and that is read by compiled
code (`push.py`), which writes log records. So everything behind knows OTLP only: admission, the log, the ring, queries.

A stream becomes a resource. Its labels become attributes: those that Loki makes of OTLP's names by its default rules get
these names back (`k8s_pod_name` is k8s.pod.name), others keep theirs, and `loki.resource.labels` names these, so that they
are labels again when they are read (`query/logql/labels.py`). A stream without `service_name` gets one from the labels that
Loki looks at. So `{job="x"}` selects what was pushed under it.

What is wrong with a stream, or with an entry, costs that stream or entry; the rest is stored, and the answer says so. Each
number of what a request may hold has a limit, which is looked at before anything is made of it.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

import cramjam
import msgspec

from collector.errors import InvalidQuery, Malformed, TooLarge, Unsupported
from collector.otlp.records import read_varint, tagged
from collector.query.logql.containers import label_name
from collector.query.logql.labels import INDEX_ATTRIBUTES, LABEL_NAME, LABELS_ATTRIBUTE, SERVICE, UNKNOWN_SERVICE
from collector.query.logql.levels import SEVERITIES, told
from collector.query.logql.literals import quote
from collector.query.logql.parser import parse_selector
from collector.receivers import push
from collector.receivers.encoding import COMPRESSIONS, check_encoding, inflate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PUSH_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bytes of a request, before and after decompression; clients send a megabyte."""
STREAMS_MAX: Final = 10_000
ENTRIES_MAX: Final = 200_000
METADATA_MAX: Final = 1_000_000
"""Streams, entries and labels of structured metadata of a request."""
LABELS_MAX: Final = 64
"""Labels of a stream."""
NAME_BYTES_MAX: Final = 1024
VALUE_BYTES_MAX: Final = 2048
"""Bytes of a label's name and value: Loki's own limits."""
TEXT_BYTES_MAX: Final = 64 * 1024
"""Bytes of a stream's labels, as text."""
JSON_TIMES: Final = 16
"""What JSON may hold of memory while it is read, in times of its size."""
KNOWN_MAX: Final = 1024
KNOWN_BYTES_MAX: Final = 2048
"""Streams whose labels are remembered, and the bytes of these labels."""
REASONS_MAX: Final = 10
"""Reasons that an answer names."""

JSON: Final = "application/json"
PROTOBUF: Final = "application/x-protobuf"

DISCOVERED: Final = (
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
)
"""The labels that a service's name is taken from, the first that is there: Loki's discover_service_name."""
_OTLP_NAMES: Final = {label_name(key): key for key in INDEX_ATTRIBUTES}
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")


class NoStreams(Malformed):
    """A request without streams; Loki has a code of its own for it."""


class Converted(NamedTuple):
    """A push request as OTLP."""

    payload: bytes
    """An ExportLogsServiceRequest."""
    refused: int
    """Entries that are not in it."""
    reasons: list[str]
    """Why, at most REASONS_MAX."""


class _Stream(NamedTuple):
    """What a stream's labels become."""

    resource: bytes
    """The field of a ResourceLogs."""
    severity: int
    """The severity number of its level; 0 for none."""


class _Entry(msgspec.Struct, array_like=True, gc=False):
    time: str
    line: str
    metadata: dict[str, str] | None = None


class _JsonStream(msgspec.Struct):
    stream: dict[str, str]
    values: list[_Entry] | None = None


class _JsonRequest(msgspec.Struct):
    streams: list[_JsonStream]


_JSON: Final = msgspec.json.Decoder(_JsonRequest)


def unpacked(body: bytes, media_type: str, encoding: str, grow: Callable[[int], None]) -> bytes:
    """Return a body without its compression. `grow` is told of each piece of memory that this, and reading it, takes, and
    may raise.

    Raises Malformed, TooLarge over PUSH_BYTES_MAX, Unsupported for a media type or an encoding that is not known, and
    what `grow` raises.
    """
    if media_type not in (JSON, PROTOBUF, ""):
        raise Unsupported(f"Content-Type {media_type[:100]!r} is not supported; use {PROTOBUF} or {JSON}")
    is_json = media_type == JSON
    if is_json or encoding != "snappy":
        check_encoding(encoding, COMPRESSIONS)
    inflated = inflate(
        body, "" if encoding == "snappy" else encoding, PUSH_BYTES_MAX, "the limit of a push request", grow
    )
    if is_json:
        grow(JSON_TIMES * len(inflated))
        return bytes(inflated)
    return _unsnapped(bytes(inflated), grow)


def _unsnapped(body: bytes, grow: Callable[[int], None]) -> bytes:
    """Return what a block of snappy holds; its first bytes say how much, and it holds neither more nor less."""
    try:
        size = int(cramjam.snappy.decompress_raw_len(body)) if body else 0
    except cramjam.DecompressionError as error:
        raise Malformed(f"the body is not compressed by snappy: {error}") from None
    if size > PUSH_BYTES_MAX:
        raise TooLarge(f"the request has {size} bytes after decompression, at most {PUSH_BYTES_MAX} are taken")
    grow(size)
    try:
        return bytes(cramjam.snappy.decompress_raw(body)) if body else b""
    except cramjam.DecompressionError as error:
        raise Malformed(f"the body does not inflate: {error}") from None


def _read_json(body: bytes) -> list[_JsonStream]:
    try:
        return _JSON.decode(body).streams
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Malformed(f"this is no push request: {error}") from None


def _written(streams: list[_JsonStream]) -> bytes:
    """Return a request that was JSON as protobuf. Raises TooLarge, and Malformed for a time that is no number."""
    if len(streams) > STREAMS_MAX:
        raise TooLarge(f"the request has {len(streams)} streams, at most {STREAMS_MAX} are taken")
    return b"".join(tagged(1, b"".join(_stream_parts(one))) for one in streams)


def _stream_parts(one: _JsonStream) -> list[bytes]:
    text = "{" + ", ".join(f"{name}={quote(value)}" for name, value in one.stream.items()) + "}"
    parts = [tagged(1, text.encode())]
    for entry in one.values or ():
        if not _INTEGER.fullmatch(entry.time):
            raise Malformed(f"a time is Unix nanoseconds, as a text, and not {entry.time[:40]!r}")
        seconds, nanos = divmod(int(entry.time), 1_000_000_000)
        fields = [tagged(1, _number(1, seconds) + _number(2, nanos)), tagged(2, entry.line.encode())]
        fields += [
            tagged(3, tagged(1, name.encode()) + tagged(2, value.encode()))
            for name, value in (entry.metadata or {}).items()
        ]
        parts.append(tagged(2, b"".join(fields)))
    return parts


def _number(field: int, value: int) -> bytes:
    """Return a field that is a varint."""
    out = bytearray((field << 3,))
    value &= 0xFFFF_FFFF_FFFF_FFFF
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Converter:
    """Makes push requests OTLP, and remembers streams. For one thread at a time."""

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, _Stream] = OrderedDict()

    def convert(self, data: bytes, media_type: str = PROTOBUF) -> Converted:
        """Return a PushRequest as OTLP. Raises Malformed, NoStreams, and TooLarge over a limit."""
        if media_type == JSON:
            data = _written(_read_json(data))
        counted = push.count(data)
        if counted is None:
            raise Malformed("this is no push request: the protobuf has no valid form")
        for number, most, what in zip(
            counted,
            (STREAMS_MAX, ENTRIES_MAX, METADATA_MAX),
            ("streams", "entries", "labels of structured metadata"),
            strict=True,
        ):
            if number > most:
                raise TooLarge(f"the request has {number} {what}, at most {most} are taken")
        if not counted[0]:
            raise NoStreams("error at least one valid stream is required for ingestion")
        parts: list[bytes] = []
        reasons: list[str] = []
        taken = 0
        for labels, start, length in push.streams(data):
            try:
                stream = self._stream(labels)
            except Malformed as error:
                reasons.append(str(error))
                continue
            source = data
            records, count, untimely, is_utf8 = push.records(data, start, length, stream.severity)
            if not is_utf8:
                source = _legible(data[start : start + length])
                records, count, untimely, _ = push.records(source, 0, len(source), stream.severity)
            taken += count
            if untimely:
                reasons.append(f"{untimely} entries of {_shown(labels)} have times before 1970 or after 2262")
            if count:
                parts.append(tagged(1, stream.resource + tagged(2, records)))
        return Converted(b"".join(parts), counted[1] - taken, reasons[:REASONS_MAX])

    def _stream(self, text: bytes) -> _Stream:
        """Return what a stream's labels become; raise Malformed, in Loki's words, for what are none."""
        found = self._known.get(text)
        if found is not None:
            self._known.move_to_end(text)
            return found
        found = _stream(_labels(text))
        if len(text) <= KNOWN_BYTES_MAX:
            self._known[text] = found
            if len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)
        return found


def _shown(text: bytes) -> str:
    return text[:100].decode(errors="replace")


def _labels(text: bytes) -> dict[str, str]:
    """Read a stream's labels, as in a selector; those with an empty value are none."""
    if len(text) > TEXT_BYTES_MAX:
        raise Malformed(f"the labels of a stream have {len(text)} bytes, at most {TEXT_BYTES_MAX} are read")
    try:
        matchers = parse_selector(text.decode()).matchers
    except (InvalidQuery, UnicodeDecodeError) as error:
        raise Malformed(f"error parsing labels '{_shown(text)}' with error: {error}") from None
    labels: dict[str, str] = {}
    for one in matchers:
        if one.op != "=" or not LABEL_NAME.fullmatch(one.label):
            raise Malformed(f"error parsing labels '{_shown(text)}' with error: {str(one)[:100]} is no label")
        if one.label in labels:
            raise Malformed(f"stream '{_shown(text)}' has duplicate label name: '{one.label[:100]}'")
        if len(one.label) > NAME_BYTES_MAX:
            raise Malformed(f"stream '{_shown(text)}' has label name too long: '{one.label[:100]}'")
        if len(one.value.encode()) > VALUE_BYTES_MAX:
            raise Malformed(f"stream '{_shown(text)}' has label value too long: '{one.value[:100]}'")
        labels[one.label] = one.value
    labels = {name: value for name, value in labels.items() if value}
    if not labels:
        raise Malformed("error at least one label pair is required per stream")
    if len(labels) > LABELS_MAX:
        raise Malformed(f"entry for stream '{_shown(text)}' has {len(labels)} label names; limit {LABELS_MAX}")
    return labels


def _stream(labels: Mapping[str, str]) -> _Stream:
    attributes: dict[str, str] = {}
    if label_name(SERVICE) not in labels:
        service = next((labels[name] for name in DISCOVERED if name in labels), UNKNOWN_SERVICE)
        if service != UNKNOWN_SERVICE:
            attributes[SERVICE] = service
    attributes |= {_OTLP_NAMES.get(name, name): value for name, value in labels.items()}
    named = [name for name in labels if name not in _OTLP_NAMES]
    if named:
        attributes[LABELS_ATTRIBUTE] = ",".join(named)
    resource = b"".join(
        tagged(1, tagged(1, key.encode()) + tagged(2, tagged(1, value.encode()))) for key, value in attributes.items()
    )
    return _Stream(tagged(1, resource), SEVERITIES.get(told(labels), 0))


def _legible(stream: bytes) -> bytes:
    """Return the entries of a stream with what is not UTF-8 replaced by U+FFFD, as what reads OTLP wants it."""
    parts: list[bytes] = []
    for field, content in _fields(stream):
        if field == 2:
            parts.append(tagged(2, b"".join(_legible_field(*each) for each in _fields(content))))
    return b"".join(parts)


def _legible_field(field: int, content: bytes) -> bytes:
    if field == 2:
        content = _text(content)
    elif field == 3:
        content = b"".join(tagged(number, _text(part)) for number, part in _fields(content))
    return tagged(field, content)


def _text(raw: bytes) -> bytes:
    return raw.decode(errors="replace").encode()


def _fields(message: bytes) -> list[tuple[int, bytes]]:
    """Return the fields of a message, which `push.count` has read, that have a length."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        if tag & 7 == 2:
            length, at = read_varint(message, at)
            found.append((tag >> 3, message[at : at + length]))
            at += length
        elif tag & 7 == 0:
            _, at = read_varint(message, at)
        elif tag & 7 in (1, 5):
            at += 8 if tag & 7 == 1 else 4
        else:
            break
    return found
