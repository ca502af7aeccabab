"""The statements that make tables: kept as text, and run where there is an engine for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from collector.errors import Unwelcome
from collector.exporters.clickhouse.columns import LAYOUTS, LOG_RECORDS, OWN, SPANS
from collector.exporters.clickhouse.schema import adapted, create_database, create_table
from collector.exporters.clickhouse.settings import ClickHouseSettings

GOLDEN = Path(__file__).parent / "schema.sql"
VARIANTS = {
    "one server, 26.2": (ClickHouseSettings(ttl=86_400.0), (26, 2)),
    "one server, 24.8, as the Collector": (ClickHouseSettings(keep_records=False), (24, 8)),
    "a cluster": (
        ClickHouseSettings(cluster_name="all", table_engine="ReplicatedMergeTree", distributed=True, database="otel"),
        (25, 3),
    ),
}


def test_statements() -> None:
    """UPDATE_GOLDENFILES=1 writes them anew."""
    parts = []
    for name, (settings, version) in VARIANTS.items():
        parts += [f"-- {name}", create_database(settings)]
        for layouts in LAYOUTS.values():
            for layout in layouts:
                parts += create_table(settings, layout, version)
    text = ";\n".join(part.replace(", `", ",\n  `").replace(", INDEX", ",\n  INDEX") for part in parts) + ";\n"
    if os.environ.get("UPDATE_GOLDENFILES"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_what_is_there_decides() -> None:
    """Columns that are missing are left out, computed ones not written; what cannot be written is said."""
    columns = [(one.name, one.type, "") for one in LOG_RECORDS.columns]
    table = adapted(LOG_RECORDS, "otel_logs", columns)
    assert [one.name for one in table.sent] == [one.name for one in LOG_RECORDS.columns]
    assert not table.keyed
    assert not table.keeps
    older = [one for one in columns if one[0] != "EventName"]
    assert "EventName" not in [one.name for one in adapted(LOG_RECORDS, "otel_logs", older).sent]
    computed = [(name, of, "ALIAS" if name == "Body" else "") for name, of, _ in columns]
    assert "Body" not in [one.name for one in adapted(LOG_RECORDS, "otel_logs", computed).sent]
    for wrong, told in (
        ([], "no table"),
        ([(name, "JSON" if "Map" in of else of, "") for name, of, _ in columns], "Map only"),
        ([one for one in columns if one[0] != "Timestamp"], "Timestamp"),
        ([*columns, (OWN[0].name, OWN[0].type, "")], "not all"),
    ):
        with pytest.raises(Unwelcome, match=told):
            adapted(LOG_RECORDS, "otel_logs", wrong)


def test_columns_are_sent_without_dictionaries() -> None:
    assert {one.name: one.native for one in SPANS.columns}["Events.Attributes"] == "Array(Map(String, String))"
