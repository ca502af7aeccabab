"""What an exporter is, and what a backend is: the two protocols by which data leaves Ringtail and comes back.

An `Exporter` takes batches. One delivery (delivery.py) for each exporter, signal and tenant follows the log from a durable
cursor, hands over one batch after the other, repeats what failed, and never loses its place. A `Backend` is an exporter
that can also read: what ring and log no longer hold is fetched from it.

Delivery is at least once: whatever was not reported as taken before a crash is handed over again. Every record has a key
that it never shares: (instance, tenant, signal, offset). An instance is a data directory; its id is made once and lies in
it. A destination that keeps the keys, or the position behind the last one in the same transaction as the rows, makes it
exactly once; `position` and `steady` are for those.

Third parties ship an exporter or a backend as a package: kinds.py, docs/backends.md. `collector.testing.exporters` has
the tests that every implementation owes.

Everything here is called on the event loop's thread, and must not hold it up: work that takes a millisecond belongs in
a thread. Blocks may be read in any thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from collector.otlp.cut import cut

if TYPE_CHECKING:
    from concurrent.futures import Executor

    import numpy as np
    from numpy.typing import NDArray
    from prometheus_client import CollectorRegistry

    from collector.clock import Clock
    from collector.otlp.block import Block
    from collector.otlp.signals import Signal

END_OF_TIME: Final = 2**64 - 1
"""The last nanosecond that a record's time can name."""

PIECE_RECORDS: Final = 4096
"""Records of one block that `Backend.read` gives, at most."""

NAMES_KNOWN_MAX: Final = 100_000
"""Names that `Backend.names` tells; of more, none."""


class Source(NamedTuple):
    """Where a batch comes from: one signal's log of one tenant of one instance."""

    instance: str
    """32 hexadecimal digits."""
    tenant: str
    """Empty where tenants are not kept apart."""
    signal: Signal

    @property
    def key(self) -> str:
        """The source as a text: `INSTANCE/TENANT/SIGNAL`."""
        return f"{self.instance}/{self.tenant}/{self.signal.name}"


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Records of one source, in order of offset. Immutable; never empty.

    Row i of a block has offset `block.base_offset + i`. Blocks neither overlap nor go backwards; between them, and after
    the last one, offsets may be missing, because those records cannot be read any more.
    """

    source: Source
    blocks: tuple[Block, ...]
    first_offset: int
    """The position before the batch: at or before the first record's offset."""
    end_offset: int
    """The position after the batch: behind the last record's offset."""

    @property
    def signal(self) -> Signal:
        """The signal of all records."""
        return self.source.signal

    @property
    def records(self) -> int:
        """How many records it holds."""
        return sum(block.count for block in self.blocks)

    @property
    def payload_bytes(self) -> int:
        """Bytes of `payload`."""
        return sum(len(block.payload) for block in self.blocks)

    @property
    def nbytes(self) -> int:
        """What it holds of memory, in bytes."""
        return sum(block.nbytes for block in self.blocks)

    @property
    def payload(self) -> bytes:
        """All records as one serialized OTLP export request."""
        if len(self.blocks) == 1 and isinstance(self.blocks[0].payload, bytes):
            return self.blocks[0].payload
        return b"".join(block.payload for block in self.blocks)

    @property
    def key(self) -> str:
        """Names the batch: `INSTANCE/TENANT/SIGNAL/FIRST-END`. Repeated as a whole, it has the same key; so it has
        after a crash, for an exporter that is `steady`."""
        return f"{self.source.key}/{self.first_offset}-{self.end_offset}"

    def part(self, first: int, end: int) -> Batch | None:
        """Return the records with offsets in [first, end) as a batch of these bounds; None if there are none."""
        kept = tuple(
            cut(
                block,
                max(0, first - block.base_offset),
                min(block.count, end - block.base_offset),
            )
            for block in self.blocks
            if block.base_offset < end and block.end_offset > first
        )
        return Batch(self.source, kept, first, end) if kept else None

    def separated(self, offsets: Collection[int]) -> tuple[Batch | None, Batch | None]:
        """Return the records at these offsets, and the others, each as a batch of the same bounds; None for no records."""
        chosen: tuple[list[Block], list[Block]] = ([], [])
        for block in self.blocks:
            edges = sorted({one - block.base_offset for one in offsets if block.base_offset <= one < block.end_offset})
            at = 0
            for row in edges:
                if row > at:
                    chosen[1].append(cut(block, at, row))
                chosen[0].append(cut(block, row, row + 1))
                at = row + 1
            if at < block.count:
                chosen[1].append(cut(block, at, block.count))
        named, others = (
            Batch(self.source, tuple(blocks), self.first_offset, self.end_offset) if blocks else None
            for blocks in chosen
        )
        return named, others

    def middle(self) -> int:
        """Return an offset such that half of the records lie before it."""
        left = self.records // 2
        for block in self.blocks:
            if left <= block.count:
                return block.base_offset + left
            left -= block.count
        return self.end_offset


class Rejected(NamedTuple):
    """Records of a batch that the destination has refused for good, while it took the others (OTLP's partial success)."""

    records: int
    reason: str
    offsets: tuple[int, ...] = ()
    """Which ones, where that is known: those go to the dead letters. Else they are counted and logged."""


class Health(NamedTuple):
    """How a destination does, as far as is known without asking it now."""

    ok: bool
    reason: str = ""
    """Why not, in a line, without secrets."""


@dataclass(frozen=True, slots=True)
class Context:
    """What an exporter is given of its surroundings."""

    name: str
    """Its name in the configuration, `otlp/eu`: for logs, and the label `exporter` of metrics."""
    clock: Clock
    logger: Any
    """Bound to the name."""
    registry: CollectorRegistry
    threads: Executor
    """For work that takes a millisecond or more, and for files. Few, and shared: not for waiting on a network."""
    directory: str | None
    """Where it may keep files of its own: `exporters/NAME` in the data directory, which may not exist yet; None where
    nothing is kept on disk (`wal.enabled: false`)."""


class Exporter(ABC):
    """A destination of batches. Made by its `Kind`; `start` comes first, then exports, `stop` last.

    An exporter serves all signals that are configured for it, and all tenants; batches name theirs.
    """

    parallel: ClassVar[int] = 1
    """Exports of one source that it takes at once, at most. Those of other sources come beside them in any case."""
    steady: ClassVar[bool] = False
    """Whether a batch that is repeated must have the same bounds, also after a crash: for destinations that know repeated
    batches by their key. It costs a synced write of the cursor before each batch."""

    async def start(self) -> None:  # noqa: B027 - many have nothing to do
        """Get ready: connect, make tables. Raises Retryable or Unwelcome; then it is called again later, and no batch comes
        before it has returned. The daemon does not wait for it."""

    @abstractmethod
    async def export(self, batch: Batch) -> Rejected | None:
        """Hand over a batch; return when the destination has it as durably as it is ever going to.

        Returns what of it was refused for good, if anything. Raises Retryable (perhaps nothing, perhaps some of it is
        there), Permanent (nothing of it is there, and never will be as it is), Unwelcome (nothing is there; no batch would
        be). Anything else that it raises is a defect, and taken for Retryable. It is cancelled when it takes longer than
        `timeout`; that counts as Retryable, too. Calls for one source come in order of offset; with `parallel` above 1
        the next one may come before this one has ended.
        """

    async def position(self, source: Source) -> int | None:
        """Return the offset behind the last record of a source that the destination has, if it keeps that in the same
        transaction as the records; None otherwise. Delivery goes on from there, if that is later than its own cursor.

        Asked once, before the first batch. Raises as `start`.
        """
        return None

    def health(self) -> Health:
        """Tell what it knows beyond the outcome of exports, at once."""
        return Health(ok=True)

    def stats(self) -> dict[str, Any]:
        """Return its own figures for `/api/stats` (JSON), as it knows them; at once."""
        return {}

    async def stop(self) -> None:  # noqa: B027 - many have nothing to do
        """Let go of everything. No export is under way. Called also after a `start` that failed, or was cancelled."""


class Equal(NamedTuple):
    """An attribute with one of some values, or with an array that has one of them."""

    where: str
    """`resource`, `record`, or `either`."""
    key: str
    values: tuple[str | int | float | bool, ...]


class Held(NamedTuple):
    """What who asks has at hand: the records of a source from an offset on."""

    source: Source
    first_offset: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records of a backend are wanted: those that fit all of it.

    Only `signal`, `tenant` and `held` must be kept to exactly. All else narrows the search: a backend may return more,
    never less, and who asked looks at every record again.
    """

    signal: Signal
    tenant: str = ""
    start_ns: int = 0
    end_ns: int = END_OF_TIME
    """The main times wanted (column `time` of otlp/block.py), both inclusive."""
    trace_ids: tuple[bytes, ...] = ()
    """Of any of these traces, 16 bytes each; none: of any trace. The same holds for the next ones."""
    services: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Of spans or metrics."""
    severities: tuple[int, ...] = ()
    """Severity numbers of log records."""
    texts: tuple[tuple[bytes, ...], ...] = ()
    """For each element, one of its texts (UTF-8) is a substring of a log record's text: of a string or a key in its body, or
    of its string attributes' values."""
    attributes: tuple[Equal, ...] = ()
    newest_first: bool = True
    held: tuple[Held, ...] = ()
    """Records that must be left out, because who asks has them."""


class Backend(Exporter):
    """An exporter that can also read what it was given. Reading may begin once `start` has returned, and goes on while
    batches are exported."""

    @property
    def keyed(self) -> bool:
        """Whether it keeps each record's source and offset, known once it has started: then it can leave out what is `held`, and
        shows a record that it was given twice once. If not, who reads must know repeated records by what is in them."""
        return True

    @abstractmethod
    def read(self, wanted: Wanted) -> AsyncIterator[Block]:
        """Yield blocks with all records that are wanted, and perhaps others of the signal and tenant.

        Blocks follow each other in time: with `newest_first` no record is newer than any of the block before, else none is
        older. Within a block any order will do. Each has at most `PIECE_RECORDS` records; base offsets mean nothing. A
        record's bytes decode to what was exported: the same fields and values, attributes in their order, with its
        resource and scope. Who reads may stop at any time (`aclose`), and does not hold more than one block. Memory is
        bounded by a block, not by the answer. Raises Retryable or Unwelcome.
        """

    async def names(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> Collection[str] | None:
        """Return the names of all metrics that it has points of within a time, both ends inclusive, perhaps with others; None
        where that costs about as much as to read those points, and for more than `NAMES_KNOWN_MAX`.

        Queries know metrics by Prometheus' names, which several of OTLP's may become: with this they ask for those alone,
        else for all metrics of their time range. Raises as `read`.
        """
        return None

    @abstractmethod
    async def delete(self, wanted: Wanted) -> int:
        """Delete exactly the records of these `trace_ids` within the time range, and return how many; repeating it changes
        nothing. Other fields of `wanted` but signal and tenant are not set. Raises Retryable or Unwelcome."""

    async def delete_offsets(self, source: Source, ranges: Sequence[tuple[int, int]]) -> int | None:
        """Delete the records of a source that have these offsets, ranges [first, end), and return how many there were;
        repeating it changes nothing. None: it does not keep the keys of records, and cannot. Raises Retryable or Unwelcome.
        """
        return None

    def identities(self, block: Block, rows: NDArray[np.intp]) -> list[bytes] | None:
        """Return what these records of a block are known by to `delete_identified`, long after they are gone from here; None where
        that is not wanted, because it keeps keys, or cannot be. Asked in any thread, also before it has started."""
        return None

    async def delete_identified(self, source: Source, identities: Sequence[bytes]) -> int | None:
        """Delete the records of a source's tenant that have these identities and no key, and return how many there were; none
        that was not asked for, and repeating it changes nothing. None: it cannot. Raises Retryable or Unwelcome."""
        return None

    @abstractmethod
    async def retain(self, signal: Signal, before_ns: int) -> None:
        """Forget records whose main time is before that, as far as it is cheap: whole partitions will do. Never a newer
        one. Raises Retryable or Unwelcome."""

    @abstractmethod
    async def count(self, signal: Signal, tenant: str, start_ns: int, end_ns: int) -> int:
        """Count the records with start_ns <= time < end_ns, which is `END_OF_TIME + 1` at most: what moving data is verified by,
        beside reading it. Raises Retryable or Unwelcome."""

    async def size(self) -> int | None:
        """Return how many bytes it occupies there, indexes included; None where that cannot be told, or counts for nothing.
        Asked every minute. Raises as `read`."""
        return None
