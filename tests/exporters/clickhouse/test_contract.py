"""The contract of backends, on the real engine: in our own tables, and in those that others have made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from dataclasses import replace
from typing import Any

import pytest

from collector.errors import Unwelcome
from collector.exporters.base import Wanted
from collector.exporters.clickhouse.columns import LAYOUTS
from collector.exporters.clickhouse.kind import KIND
from collector.exporters.clickhouse.schema import base_name
from collector.exporters.clickhouse.settings import ClickHouseSettings
from collector.otlp.signals import LOGS, METRICS, SIGNALS, TRACES, Signal
from collector.testing.corpus import Whole, corpus, trace_id
from collector.testing.exporters import RECORDS, BackendContract, Make, batch_of
from tests.exporters.clickhouse.kept import kept
from tests.exporters.clickhouse.server import CLUSTER, Server, database, done, emptied, need_engine, serving


@pytest.fixture(scope="class")
def tables() -> str:
    """The database of all tests of a class."""
    need_engine()
    return database()


class TestClickHouse(BackendContract):
    kind = KIND

    @pytest.fixture
    async def settings(self, tables: str) -> AsyncIterator[ClickHouseSettings]:
        async with serving(Server().answer) as url:
            yield ClickHouseSettings(endpoint=(url,), database=emptied(tables))

    @pytest.mark.parametrize("signal", [TRACES, METRICS], ids=lambda one: one.name)
    async def test_an_insert_that_is_known_but_not_there_is_mended(
        self, make: Make, settings: ClickHouseSettings, signal: Signal
    ) -> None:
        """As it is when a server without replicas dies at the wrong moment."""
        backend, sent = await self.filled(make, signal)
        for layout in LAYOUTS[signal]:
            name = f"{settings.database}.{base_name(settings, signal)}{layout.suffix}"
            done(f"DELETE FROM {name} WHERE RingtailOffset % 3 = 0")
        assert len(await self.read(backend, Wanted(signal))) < len(sent)
        again = await make()
        part = batch_of(signal, [corpus(signal, RECORDS)]).part(0, 40)
        for _ in range(2):
            await again.export(part)
        found = await self.read(again, Wanted(signal))
        lost = sum(offset % 3 == 0 for offset in range(40, RECORDS))
        assert len(found) == RECORDS - lost
        assert not self.counted(signal, found) - self.counted(signal, sent)


def only(name: str, signal: Signal) -> Any:
    """A test of the contract for one signal: the others go the same way."""
    inherited = getattr(BackendContract, name)

    @pytest.mark.parametrize("signal", [signal], ids=lambda one: one.name)
    async def test(self: BackendContract, make: Make, signal: Signal) -> None:
        await inherited(self, make, signal)

    return test


class TestCluster(BackendContract):
    """Distributed tables: what is other there."""

    kind = KIND

    @pytest.fixture
    async def settings(self, tables: str) -> AsyncIterator[ClickHouseSettings]:
        async with serving(Server().answer) as url:
            yield ClickHouseSettings(
                endpoint=(url,), database=emptied(tables), cluster_name=CLUSTER, distributed=True, compress="none"
            )


for _name in dir(BackendContract):
    if _name.startswith("test_") and _name != "test_it_tells_its_size_if_it_can":
        setattr(TestCluster, _name, None)
for _name, _signal in (
    ("test_everything_comes_back", LOGS),
    ("test_what_is_repeated_is_there_once", METRICS),
    ("test_traces_are_deleted", TRACES),
    ("test_only_what_is_old_is_forgotten", TRACES),
):
    setattr(TestCluster, _name, only(_name, _signal))


def foreign_tables(settings: ClickHouseSettings) -> list[str]:
    """Tables as another version of the Collector's exporter makes them: no columns of ours, one less, and one more."""
    made = [f"CREATE DATABASE {settings.database}"]
    for signal, layouts in LAYOUTS.items():
        for layout in layouts:
            columns = [f"`{one.name}` {one.type}" for one in layout.columns if one.name != "StatusMessage"]
            columns.append(f"TimestampTime DateTime DEFAULT toDateTime({layout.time})")
            columns.append("`Body.lower` String ALIAS lower(ServiceName)")
            name = base_name(settings, signal) + layout.suffix
            made.append(
                f"CREATE TABLE {settings.database}.{name} ({', '.join(columns)}) ENGINE = MergeTree"
                f" PARTITION BY toDate({layout.time}) ORDER BY (ServiceName, TimestampTime)"
                " SETTINGS non_replicated_deduplication_window = 100"
            )
    return made


@pytest.fixture(scope="class")
def foreign(tables: str) -> ClickHouseSettings:
    made = ClickHouseSettings(database=tables, create_schema=False, compress="zstd")
    for statement in foreign_tables(made):
        done(statement)
    return made


class TestForeignTables(BackendContract):
    """Every attribute and body comes back as a text, and what has no column does not."""

    kind = KIND
    test_large_answers_come_in_pieces = None  # type: ignore[assignment] # these are the same as above
    test_it_takes_one_record = None  # type: ignore[assignment]
    test_it_takes_batches_of_several_blocks = None  # type: ignore[assignment]
    test_it_takes_texts_that_mean_something_elsewhere = None  # type: ignore[assignment]
    test_what_was_taken_may_be_handed_over_again = None  # type: ignore[assignment]
    test_signals_come_side_by_side = None  # type: ignore[assignment]
    test_an_export_that_is_cancelled_leaves_it_usable = None  # type: ignore[assignment]
    test_who_reads_may_stop_at_any_time = None  # type: ignore[assignment]
    test_stopping_twice_is_well = None  # type: ignore[assignment]
    test_positions_are_never_ahead = None  # type: ignore[assignment]
    test_texts_come_back_as_they_were = only("test_texts_come_back_as_they_were", LOGS)
    test_times_are_inclusive = only("test_times_are_inclusive", METRICS)
    test_services_and_names_are_found = only("test_services_and_names_are_found", TRACES)
    test_attributes_are_found = only("test_attributes_are_found", LOGS)
    test_records_are_counted = only("test_records_are_counted", METRICS)
    test_only_what_is_old_is_forgotten = only("test_only_what_is_old_is_forgotten", TRACES)
    test_what_is_repeated_is_there_once = None  # type: ignore[assignment] # it does not know
    test_what_is_held_is_left_out = None  # type: ignore[assignment]

    @pytest.fixture
    async def settings(self, foreign: ClickHouseSettings) -> AsyncIterator[ClickHouseSettings]:
        emptied(foreign.database)
        async with serving(Server().answer) as url:
            yield replace(foreign, endpoint=(url,))

    def comparable(self, signal: Signal, whole: Whole) -> Hashable:
        if signal is TRACES:
            whole.record.status.message = ""  # the column that is missing
        return kept(signal, whole)

    @pytest.mark.parametrize("signal", SIGNALS, ids=lambda one: one.name)
    async def test_tenants_are_kept_apart(self, make: Make, signal: Signal) -> None:
        """There is no column for them."""
        backend = await make()
        with pytest.raises(Unwelcome, match="tenants"):
            await backend.export(batch_of(signal, [corpus(signal, 10)], tenant="a"))
        assert await self.read(backend, Wanted(signal, tenant="a")) == []
        assert await backend.count(signal, "a", 0, 2**63 - 1) == 0

    @pytest.mark.parametrize("signal", [TRACES, LOGS], ids=lambda one: one.name)
    async def test_traces_are_deleted(self, make: Make, signal: Signal) -> None:
        backend: Any
        backend, sent = await self.filled(make, signal)
        ids = (trace_id(2), trace_id(8))
        gone = [one for one in sent if one.record.trace_id in ids]
        assert await backend.delete(Wanted(signal, tenant="a", trace_ids=ids)) == 0
        assert await backend.delete(Wanted(signal, trace_ids=ids)) == len(gone) > 0
        left = [one for one in sent if one.record.trace_id not in ids]
        assert self.counted(signal, await self.read(backend, Wanted(signal))) == self.counted(signal, left)
