"""The generator: counts the spans of each block that is committed, and keeps the counters' history by the clock.

`add` is told of every block on its way into the log, before the block can be read: whoever finds a span finds it counted.
Then its bytes lie in the processor's caches, which is half the cost. A block that cannot be made durable is counted as
well; it is the last one that its log takes.
`tick` ends an interval; the daemon calls it every `metrics_generator.collection_interval`.

Everything is bounded: label sets (`CALLS_MAX`, `EDGES_MAX`), names of services and peers, spans that wait for their
other half, and the bytes of the history. What finds no room is counted in one series with the label
`metric_overflow="true"`, and how much that was in `stats`.

A span waits for its other half for one to two of `WAIT_MS`, or until `WAITING_MAX` others wait behind it.

Owned by the event loop's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collector.otlp.block import GROUPS, RECORDS
from collector.otlp.records import service_name
from collector.otlp.signals import TRACES
from collector.query.spanmetrics.history import History, Texts
from collector.query.spanmetrics.labelsets import LabelSets
from collector.query.spanmetrics.series import CALLS, EDGES, SpanSeries
from collector.query.spanmetrics.tally import DATABASE, MESSAGING, USER, VIRTUAL, Tally

if TYPE_CHECKING:
    from collector.clock import Clock
    from collector.otlp.block import Block

CALLS_MAX = 2048
"""Label sets of calls: services times span names times kinds and statuses that occur together. All their buckets are
fewer series than one selector of PromQL may find."""
EDGES_MAX = 512
"""Label sets of edges: pairs of services that call each other."""
NAMES_MAX = 4096
"""Names of services and peers."""
WAITING_MAX = 16_384
"""Spans of one generation that wait for their other half."""
WAIT_MS = 10_000
"""How long a generation lasts: Tempo's `wait`."""
STALE_MS = 15 * 60 * 1000
"""How long a label set lives without a span: Tempo's `stale_duration`."""
NAMES_SHARE = 3 / 4
"""Of the names, how many may be known before those of no span that waits are forgotten."""

_KINDS = (
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
)
_STATUSES = ("STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR")
_CONNECTIONS = {MESSAGING: "messaging_system", DATABASE: "database", VIRTUAL: "virtual_node"}


class Generator:
    """Span metrics of one store of traces."""

    def __init__(self, clock: Clock, max_bytes: int, since_ms: int | None = None) -> None:
        """Begin with nothing counted. The history has at most `max_bytes`; half of them for calls, half for edges. It
        begins now, or at a time before, in Unix ms."""
        self._clock = clock
        now = self._now_ms() if since_ms is None else since_ms
        calls = LabelSets(CALLS_MAX, CALLS.width, CALLS.sums)
        edges = LabelSets(EDGES_MAX, EDGES.width, EDGES.sums)
        self._tally = Tally(
            RECORDS[TRACES], GROUPS[TRACES], calls, CALLS.bounds, edges, EDGES.bounds, WAITING_MAX, NAMES_MAX
        )
        self._calls = History(calls, max_bytes // 2, STALE_MS, now)
        self._edges = History(edges, max_bytes // 2, STALE_MS, now)
        self._turned = now

    def _now_ms(self) -> int:
        return self._clock.now_ns() // 1_000_000

    def add(self, block: Block, begin: int = 0) -> None:
        """Count a block's spans, from row `begin` on."""
        tally = self._tally
        tally.add(
            block.payload,
            block.records.buffer,
            block.count,
            block.groups.buffer,
            block.groups.count,
            begin,
            block.count,
        )
        for slot, row, _, _, rest in tally.calls.take_fresh():
            self._calls.begin(slot, _call_labels(block, row, rest))
        self._begin_edges()

    def _begin_edges(self) -> None:
        for slot, _, client, server, connection in self._tally.edges.take_fresh():
            labels = (
                ("client", self._name(client)),
                ("server", self._name(server)),
                ("connection_type", _CONNECTIONS.get(connection, "")),
            )
            self._edges.begin(slot, labels)

    def _name(self, key: int) -> str:
        # A commit is told of here, and must not fail for a name that is not known.
        return "user" if key == USER else self._tally.names.get(key, "")

    def tick(self, now_ms: int | None = None) -> None:
        """End an interval, now or at a time before, and let what has waited long enough expire."""
        now = self._now_ms() if now_ms is None else now_ms
        if not 0 <= now - self._turned < WAIT_MS:
            self._tally.turn()
            self._turned = now
            self._begin_edges()
        self._calls.tick(now)
        self._edges.tick(now)
        if self._tally.names_known() > NAMES_MAX * NAMES_SHARE:
            self._tally.forget_names()

    def series(self) -> SpanSeries:
        """Return all values there are now, for queries in any thread."""
        now = self._now_ms()
        return SpanSeries(self._calls.moment(now), self._edges.moment(now))

    @property
    def nbytes(self) -> int:
        """What it holds of memory, in bytes."""
        return self._tally.nbytes + self._calls.nbytes + self._edges.nbytes

    def stats(self) -> dict[str, Any]:
        """Return its part of `/api/stats`."""
        tally = self._tally
        return {
            "series": {"calls": self._calls.live(), "edges": self._edges.live()},
            "folded": {"calls": tally.calls.folded, "edges": tally.edges.folded},
            "waiting": tally.waiting,
            "expired": tally.expired,
            "bytes": self.nbytes,
        }

    def check(self) -> None:
        """Recount; AssertionError when anything is not as it should be."""
        self._calls.check()
        self._edges.check()


def _call_labels(block: Block, row: int, rest: int) -> Texts:
    start, length = int(block.column("name_start")[row]), int(block.column("name_length")[row])
    name = bytes(memoryview(block.payload)[start : start + length]).decode("utf-8", "replace")
    kind, status = rest >> 8, rest & 0xFF
    return (
        ("service", service_name(block, int(block.column("group")[row]))),
        ("span_name", name),
        ("span_kind", _KINDS[kind] if kind < len(_KINDS) else _KINDS[0]),
        ("status_code", _STATUSES[status] if status < len(_STATUSES) else _STATUSES[0]),
    )
