"""The kind `clickhouse`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from collector.exporters.clickhouse.settings import ClickHouseSettings, obstacles, problems
from collector.exporters.kinds import Kind

if TYPE_CHECKING:
    from collector.exporters.base import Context, Exporter


def _make(settings: ClickHouseSettings, context: Context) -> Exporter:
    from collector.exporters.clickhouse.backend import ClickHouse

    return ClickHouse(settings, context)


KIND: Final = Kind(
    "ClickHouse, in the tables of the OpenTelemetry Collector's exporter.",
    ClickHouseSettings,
    _make,
    problems,
    obstacles,
    reads=True,
)
