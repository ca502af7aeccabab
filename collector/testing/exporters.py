"""What every exporter and every backend owes, as tests: subclass, say how one is made, and pytest runs them.

    from collector.testing.exporters import BackendContract

    class TestRedis(BackendContract):
        kind = KIND

        @pytest.fixture
        def settings(self, tmp_path):
            return RedisSettings(endpoint=...)

`settings` makes settings of a destination that is empty at first and survives `stop`: each test gets its own. The tests
are asynchronous (pytest-asyncio, `asyncio_mode = "auto"`). docs/backends.md says more.

Not here: what deliveries do (retries, crashes), which is the same for all exporters.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec
import numpy as np
import pytest
import structlog
from prometheus_client import CollectorRegistry

from collector.clock import SystemClock
from collector.exporters.base import (
    END_OF_TIME,
    PIECE_RECORDS,
    Backend,
    Batch,
    Context,
    Equal,
    Exporter,
    Held,
    Source,
    Wanted,
)
from collector.exporters.kinds import Kind
from collector.exporters.settings import ExporterSettings
from collector.otlp.records import record
from collector.otlp.scan import scan
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing.corpus import HOSTILE, SECOND_NS, TIME_NS, Whole, corpus, trace_id, wholes

INSTANCE: Final = "00112233445566778899aabbccddeeff"
OTHER: Final = "ffeeddccbbaa99887766554433221100"
RECORDS: Final = 120
"""Records of the usual corpus."""

Make = Callable[[], Awaitable[Any]]


def batch_of(
    signal: Signal,
    payloads: Sequence[bytes],
    *,
    offset: int = 0,
    tenant: str = "",
    instance: str = INSTANCE,
) -> Batch:
    """Return a batch of requests, whose records have the offsets from `offset` on."""
    blocks = []
    end = offset
    for payload in payloads:
        blocks.append(scan(signal, payload, end))
        end = blocks[-1].end_offset
    return Batch(Source(instance, tenant, signal), tuple(blocks), offset, end)


class ExporterContract:
    """See the module."""

    kind: ClassVar[Kind]
    """What makes the exporter."""

    @pytest.fixture
    def settings(self, tmp_path: Path) -> ExporterSettings:
        """Settings of an empty destination; override."""
        raise NotImplementedError

    @pytest.fixture
    async def make(self, settings: ExporterSettings, tmp_path: Path) -> AsyncIterator[Make]:
        """What makes an exporter and starts it; what it has made is stopped at the end."""
        made: list[Exporter] = []
        with ThreadPoolExecutor(2) as threads:

            async def one() -> Exporter:
                context = Context(
                    "tested/one",
                    SystemClock(),
                    structlog.get_logger(),
                    CollectorRegistry(),
                    threads,
                    str(tmp_path / "exporters" / "tested+one"),
                )
                exporter = self.kind.make(settings, context)
                made.append(exporter)
                await exporter.start()
                return exporter

            yield one
            for exporter in made:
                await exporter.stop()

    def test_settings_are_as_they_should_be(self, settings: ExporterSettings) -> None:
        """Every key has a default, and these settings no problem."""
        assert isinstance(settings, self.kind.settings)
        assert list(self.kind.problems(settings)) == []
        assert list(self.kind.obstacles(settings)) == []
        self.kind.settings()

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_it_takes_batches_of_several_blocks(self, make: Make, signal: Signal) -> None:
        """And says nothing about them."""
        exporter = await make()
        payloads = [corpus(signal, 30, seed=seed) for seed in range(3)]
        assert await exporter.export(batch_of(signal, payloads, offset=7)) is None
        assert await exporter.export(batch_of(signal, payloads, offset=97)) is None

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_it_takes_one_record(self, make: Make, signal: Signal) -> None:
        """The smallest batch."""
        exporter = await make()
        assert await exporter.export(batch_of(signal, [corpus(signal, 1)])) is None

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_it_takes_texts_that_mean_something_elsewhere(self, make: Make, signal: Signal) -> None:
        """Quotes, NUL, SQL, control characters: in names, keys and values."""
        exporter = await make()
        assert await exporter.export(batch_of(signal, [corpus(signal, 60, texts=HOSTILE)])) is None

    async def test_what_was_taken_may_be_handed_over_again(self, make: Make) -> None:
        """Which happens after a crash."""
        exporter = await make()
        batch = batch_of(TRACES, [corpus(TRACES, 20)])
        for _ in range(2):
            assert await exporter.export(batch) is None

    async def test_signals_come_side_by_side(self, make: Make) -> None:
        """And several batches of one, as far as it says so."""
        exporter = await make()
        batches = [batch_of(signal, [corpus(signal, 20)]) for signal in SIGNALS]
        assert await asyncio.gather(*(exporter.export(one) for one in batches)) == [None, None, None]
        if exporter.parallel > 1:
            more = [batch_of(LOGS, [corpus(LOGS, 20, seed=i)], offset=100 * i) for i in range(1, 4)]
            assert await asyncio.gather(*(exporter.export(one) for one in more)) == [None, None, None]

    async def test_an_export_that_is_cancelled_leaves_it_usable(self, make: Make) -> None:
        """Which is what a timeout does."""
        exporter = await make()
        batch = batch_of(TRACES, [corpus(TRACES, 50)])
        for turns in range(4):
            task = asyncio.ensure_future(exporter.export(batch))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        assert await exporter.export(batch) is None

    async def test_positions_are_never_ahead(self, make: Make) -> None:
        """A position is None, or behind the last record that was taken."""
        exporter = await make()
        source = Source(INSTANCE, "", TRACES)
        assert await exporter.position(source) in (None, 0)
        await exporter.export(batch_of(TRACES, [corpus(TRACES, 20)], offset=5))
        assert await exporter.position(source) in (None, 25)
        assert await exporter.position(source._replace(instance=OTHER)) in (None, 0)
        assert await exporter.position(source._replace(signal=LOGS)) in (None, 0)

    async def test_it_tells_how_it_does(self, make: Make) -> None:
        """Health and figures are plain values, told at once."""
        exporter = await make()
        await exporter.export(batch_of(TRACES, [corpus(TRACES, 20)]))
        assert exporter.health().ok, exporter.health().reason
        assert isinstance(msgspec.json.decode(msgspec.json.encode(exporter.stats())), dict)

    async def test_stopping_twice_is_well(self, make: Make) -> None:
        """As is stopping one that was never used."""
        exporter = await make()
        await exporter.stop()
        await exporter.stop()


class BackendContract(ExporterContract):
    """See the module; for what can also be read."""

    def comparable(self, signal: Signal, whole: Whole) -> Hashable:
        """Return what of a record must come back: all of it. A backend whose schema keeps less overrides this, and says so
        in its documentation."""
        return whole.key()

    async def read(self, backend: Backend, wanted: Wanted) -> list[Whole]:
        """Read everything, and check how it comes: pieces in order, none too large, of the signal."""
        found: list[Whole] = []
        edge: int | None = None
        async for block in backend.read(wanted):
            assert 0 < block.count <= PIECE_RECORDS
            assert block.signal is wanted.signal
            record(block, 0)
            first, last = (block.max_time, block.min_time) if wanted.newest_first else (block.min_time, block.max_time)
            if edge is not None:
                assert first <= edge if wanted.newest_first else first >= edge, "pieces out of order"
            edge = last
            found += wholes(wanted.signal, bytes(block.payload))
        return found

    def counted(self, signal: Signal, found: Iterable[Whole]) -> Counter[Hashable]:
        """Return how often each record is there."""
        return Counter(self.comparable(signal, one) for one in found)

    async def filled(self, make: Make, signal: Signal, texts: tuple[str, ...] = ("plain",)) -> tuple[Any, list[Whole]]:
        """Return a backend with a corpus, in three batches, and the corpus."""
        backend = await make()
        payload = corpus(signal, RECORDS, texts=texts)
        batch = batch_of(signal, [payload])
        for first in range(0, RECORDS, 40):
            part = batch.part(first, first + 40)
            assert part is not None
            await backend.export(part)
        return backend, list(wholes(signal, payload))

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_everything_comes_back(self, make: Make, signal: Signal) -> None:
        """Once, either way round, and after a restart."""
        backend, sent = await self.filled(make, signal)
        for newest_first in (True, False):
            found = await self.read(backend, Wanted(signal, newest_first=newest_first))
            assert self.counted(signal, found) == self.counted(signal, sent)
        await backend.stop()
        again = await make()
        assert self.counted(signal, await self.read(again, Wanted(signal))) == self.counted(signal, sent)
        for other in SIGNALS:
            if other is not signal:
                assert await self.read(again, Wanted(other)) == []

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_texts_come_back_as_they_were(self, make: Make, signal: Signal) -> None:
        """Whatever they would mean to a database, and the schema is as it was."""
        backend, sent = await self.filled(make, signal, HOSTILE)
        assert self.counted(signal, await self.read(backend, Wanted(signal))) == self.counted(signal, sent)
        await self.only(backend, Wanted(signal, services=HOSTILE), sent, lambda one: one.service in HOSTILE)
        for text in HOSTILE:
            await self.only(backend, Wanted(signal, names=(text,), services=(text,)), sent, lambda one: False)

    async def only(
        self, backend: Backend, wanted: Wanted, sent: Sequence[Whole], fits: Callable[[Whole], bool]
    ) -> list[Whole]:
        """Check that all that fit come, and others of the corpus at most; return what came."""
        found = await self.read(backend, wanted)
        came = self.counted(wanted.signal, found)
        owed = self.counted(wanted.signal, [one for one in sent if fits(one)])
        assert not owed - came, f"{(owed - came).total()} of {owed.total()} are missing: {wanted}"
        assert not came - self.counted(wanted.signal, sent), "records that were never sent, or more than once"
        return found

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_times_are_inclusive(self, make: Make, signal: Signal) -> None:
        """At both ends, to the nanosecond."""
        backend, sent = await self.filled(make, signal)
        times = sorted(one.time_ns for one in sent)
        for start, end in ((times[10], times[20]), (times[5], times[5]), (0, times[0]), (times[-1], 2**64 - 1)):
            wanted = Wanted(signal, start_ns=start, end_ns=end)
            await self.only(backend, wanted, sent, lambda one, a=start, b=end: a <= one.time_ns <= b)  # type: ignore[misc]
        await self.only(backend, Wanted(signal, end_ns=times[0] - 1), sent, lambda one: False)

    @pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
    async def test_a_trace_is_found(self, make: Make, signal: Signal) -> None:
        """Also several, and one that is not there."""
        backend, sent = await self.filled(make, signal)
        ids = (trace_id(3), trace_id(17), trace_id(999))
        found = await self.only(backend, Wanted(signal, trace_ids=ids), sent, lambda one: one.record.trace_id in ids)
        assert len(found) < len(sent), "a trace id is worth an index"

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_services_and_names_are_found(self, make: Make, signal: Signal) -> None:
        """As are records without a service."""
        backend, sent = await self.filled(make, signal)
        for services in (("cart",), ("Zahlung", "checkout"), ("",), ("nobody",)):
            await self.only(
                backend,
                Wanted(signal, services=services),
                sent,
                lambda one, s=services: one.service in s,  # type: ignore[misc]
            )
        if signal is not LOGS:
            names = ("plain 1", "plain.gauge.0", "plain.histogram.2")

            def named(one: Whole) -> bool:
                return (one.metric.name if one.metric is not None else one.record.name) in names

            await self.only(backend, Wanted(signal, names=names), sent, named)

    async def test_log_records_are_found_by_severity_and_text(self, make: Make) -> None:
        """Texts are substrings, each of one of several."""
        backend, sent = await self.filled(make, LOGS)
        await self.only(
            backend, Wanted(LOGS, severities=(9, 17)), sent, lambda one: one.record.severity_number in (9, 17)
        )
        texts = ((b"rder 1", b"rder 2"), (b"accepted",))
        await self.only(
            backend,
            Wanted(LOGS, texts=texts),
            sent,
            lambda one: (
                one.record.body.string_value.startswith(("order 1", "order 2"))
                and "accepted" in one.record.body.string_value
            ),
        )

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_attributes_are_found(self, make: Make, signal: Signal) -> None:
        """Of the record, the resource, or either."""
        backend, sent = await self.filled(make, signal)
        for where, key, values in (
            ("record", "color", ("red", "blue")),
            ("resource", "host.id", (3,)),
            ("either", "number", (1, 2)),
            ("either", "color", ("mauve",)),
        ):

            def fits(one: Whole, where: str = where, key: str = key, values: tuple[Any, ...] = values) -> bool:
                places = {"record": [one.record], "resource": [one.resource], "either": [one.record, one.resource]}
                held = [pair.value for place in places[where] for pair in place.attributes if pair.key == key]
                return any(value.string_value in values or value.int_value in values for value in held)

            await self.only(backend, Wanted(signal, attributes=(Equal(where, key, values),)), sent, fits)

    async def test_what_lies_deeper_is_found(self, make: Make) -> None:
        """Elements of arrays as values of attributes; texts in keys of bodies, and in what these hold."""
        backend = await make()
        request = LOGS.request_type()
        scope = request.resource_logs.add().scope_logs.add()
        for number in range(4):
            log = scope.log_records.add(time_unix_nano=TIME_NS + number)
            if number % 2:
                elements = log.attributes.add(key="tags").value.array_value.values
                elements.add(string_value="red")
                elements.add(int_value=1)
            elif number:
                held = log.body.kvlist_value.values.add(key="some key").value.array_value
                held.values.add(string_value="some text")
        payload = request.SerializeToString()
        await backend.export(batch_of(LOGS, [payload]))
        sent = list(wholes(LOGS, payload))
        for where in ("record", "either"):
            wanted = Wanted(LOGS, attributes=(Equal(where, "tags", ("red",)),))
            await self.only(backend, wanted, sent, lambda one: bool(one.record.attributes))
        for text in (b"me key", b"me text"):
            await self.only(backend, Wanted(LOGS, texts=((text,),)), sent, lambda one: one.record.HasField("body"))

    async def test_names_are_known_or_not_told(self, make: Make) -> None:
        """All that metrics have within a time, with others perhaps; or None."""
        backend, sent = await self.filled(make, METRICS)
        times = sorted(one.time_ns for one in sent)
        for start, end in ((0, END_OF_TIME), (times[10], times[20]), (times[5], times[5]), (times[-1], END_OF_TIME)):
            known = await backend.names(METRICS, "", start, end)
            owed = {one.metric.name for one in sent if one.metric is not None and start <= one.time_ns <= end}
            assert known is None or owed <= set(known)

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_what_is_repeated_is_there_once(self, make: Make, signal: Signal) -> None:
        """Also when the batch has other bounds the second time, unless it is promised to have the same."""
        backend, sent = await self.filled(make, signal)
        if not backend.keyed:
            pytest.skip("it does not know what it has")
        batch = batch_of(signal, [corpus(signal, RECORDS)])
        bounds = [(0, 40), (40, 80)] if backend.steady else [(0, 40), (20, 100), (0, RECORDS)]
        for first, end in bounds:
            part = batch.part(first, end)
            assert part is not None
            await backend.export(part)
        assert self.counted(signal, await self.read(backend, Wanted(signal))) == self.counted(signal, sent)
        assert await backend.count(signal, "", 0, 2**63 - 1) == RECORDS

    async def test_what_is_held_is_left_out(self, make: Make) -> None:
        """Exactly: of that source, from that offset on."""
        backend, sent = await self.filled(make, TRACES)
        if not backend.keyed:
            pytest.skip("it does not know what it has")
        payload = corpus(TRACES, 10, seed=5)
        await backend.export(batch_of(TRACES, [payload], instance=OTHER))
        others = list(wholes(TRACES, payload))
        for first in (0, 50, RECORDS):
            held = (Held(Source(INSTANCE, "", TRACES), first),)
            found = await self.read(backend, Wanted(TRACES, held=held))
            assert self.counted(TRACES, found) == self.counted(TRACES, [*sent[:first], *others])
        both = (Held(Source(INSTANCE, "", TRACES), 0), Held(Source(OTHER, "", TRACES), 4))
        found = await self.read(backend, Wanted(TRACES, held=both))
        assert self.counted(TRACES, found) == self.counted(TRACES, others[:4])

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_tenants_are_kept_apart(self, make: Make, signal: Signal) -> None:
        """Whatever they are called."""
        backend = await make()
        sent = {}
        for seed, tenant in enumerate(("", "a", "A", "a'; --")):
            payload = corpus(signal, 10, seed=seed)
            sent[tenant] = list(wholes(signal, payload))
            await backend.export(batch_of(signal, [payload], tenant=tenant))
        for tenant, owed in sent.items():
            found = await self.read(backend, Wanted(signal, tenant=tenant))
            assert self.counted(signal, found) == self.counted(signal, owed), tenant
            assert await backend.count(signal, tenant, 0, 2**63 - 1) == 10
        assert await self.read(backend, Wanted(signal, tenant="nobody")) == []

    @pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
    async def test_traces_are_deleted(self, make: Make, signal: Signal) -> None:
        """Exactly those, within the time, and of that tenant."""
        backend, sent = await self.filled(make, signal)
        await backend.export(batch_of(signal, [corpus(signal, 30)], tenant="other"))
        ids = (trace_id(2), trace_id(8), trace_id(777))
        gone = [one for one in sent if one.record.trace_id in ids]
        assert await backend.delete(Wanted(signal, trace_ids=ids[:1], end_ns=TIME_NS - 1)) == 0
        assert await backend.delete(Wanted(signal, trace_ids=ids)) == len(gone)
        assert await backend.delete(Wanted(signal, trace_ids=ids)) == 0
        left = [one for one in sent if one.record.trace_id not in ids]
        assert self.counted(signal, await self.read(backend, Wanted(signal))) == self.counted(signal, left)
        assert await backend.count(signal, "other", 0, 2**63 - 1) == 30

    @pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
    async def test_single_records_are_deleted(self, make: Make, signal: Signal) -> None:
        """By their keys, or by what it knows them by, unless it says that it can do neither."""
        backend, sent = await self.filled(make, signal)
        batch = batch_of(signal, [corpus(signal, RECORDS)])
        if await backend.delete_offsets(batch.source, [(10**6, 10**6 + 1)]) is None:
            block = scan(signal, corpus(signal, RECORDS), 0)
            known = backend.identities(block, np.array([3, 4, 39, 40, 41], np.intp))
            if known is not None:
                assert await backend.delete_identified(batch.source, known) == 5
                assert await backend.delete_identified(batch.source, known) == 0
                left = [one for number, one in enumerate(sent) if number not in (3, 4, 39, 40, 41)]
                assert self.counted(signal, await self.read(backend, Wanted(signal))) == self.counted(signal, left)
            return
        await backend.export(batch_of(signal, [corpus(signal, 30)], tenant="other"))
        ranges = [(3, 5), (39, 42), (10**6, 10**6 + 1)]
        assert await backend.delete_offsets(batch.source, ranges) == 5
        assert await backend.delete_offsets(batch.source, ranges) == 0
        assert await backend.delete_offsets(batch_of(signal, [corpus(signal, 1)], tenant="nobody").source, ranges) == 0
        left = [one for number, one in enumerate(sent) if number not in (3, 4, 39, 40, 41)]
        assert self.counted(signal, await self.read(backend, Wanted(signal))) == self.counted(signal, left)
        assert await backend.count(signal, "other", 0, 2**63 - 1) == 30

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_records_are_counted(self, make: Make, signal: Signal) -> None:
        """From a time on, to before another."""
        backend, sent = await self.filled(make, signal)
        times = sorted(one.time_ns for one in sent)
        for start, end in ((0, 2**63 - 1), (0, 2**64), (times[10], times[30]), (times[3], times[3])):
            assert await backend.count(signal, "", start, end) == sum(start <= time < end for time in times)

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_only_what_is_old_is_forgotten(self, make: Make, signal: Signal) -> None:
        """How much of that is the backend's choice."""
        backend, sent = await self.filled(make, signal)
        before = TIME_NS + 60 * SECOND_NS
        await backend.retain(signal, before)
        await self.only(backend, Wanted(signal), sent, lambda one: one.time_ns >= before)
        await backend.retain(signal, TIME_NS + 400 * 86_400 * SECOND_NS)
        assert await self.read(backend, Wanted(signal)) == []
        await backend.export(batch_of(signal, [corpus(signal, 10)], offset=1000))
        assert len(await self.read(backend, Wanted(signal))) == 10

    async def test_it_tells_its_size_if_it_can(self, make: Make) -> None:
        """In bytes; more of them when there is more in it, sooner or later."""
        backend, _ = await self.filled(make, TRACES)
        size = await backend.size()
        assert size is None or size > 0

    async def test_who_reads_may_stop_at_any_time(self, make: Make) -> None:
        """And reading and exporting go on beside each other."""
        backend, sent = await self.filled(make, LOGS)
        for _ in range(3):
            pieces = backend.read(Wanted(LOGS))
            async for _ in pieces:
                break
            await pieces.aclose()
        more = corpus(LOGS, 50, seed=9)
        found, _ = await asyncio.gather(
            self.read(backend, Wanted(LOGS)), backend.export(batch_of(LOGS, [more], offset=RECORDS))
        )
        assert not self.counted(LOGS, sent) - self.counted(LOGS, found)
        assert len(await self.read(backend, Wanted(LOGS))) == RECORDS + 50

    async def test_large_answers_come_in_pieces(self, make: Make) -> None:
        """And all of one batch comes back, however large."""
        backend = await make()
        count = PIECE_RECORDS * 2 + 10
        await backend.export(batch_of(METRICS, [corpus(METRICS, count)]))
        assert len(await self.read(backend, Wanted(METRICS))) == count
        assert await backend.count(METRICS, "", 0, 2**63 - 1) == count
