"""The kinds of exporters by their names: Ringtail's own, and those of other packages.

`exporters: {NAME/ID: …}` of the configuration names one. A package declares its kinds as entry points of the group
`ringtail.exporters`, or `ringtail.backends` for those that can also read; the entry point's name is the kind's:

    [project.entry-points."ringtail.backends"]
    redis = "ringtail_redis:KIND"

A kind is looked for when a configuration names it, and its module imported then: so that module should import its driver
in `make` only. Ringtail's own names cannot be taken by others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Final

from collector.declaration import Naming
from collector.errors import InvalidConfig
from collector.exporters.base import Context, Exporter
from collector.exporters.settings import ExporterSettings

GROUPS: Final = ("ringtail.exporters", "ringtail.backends")

BUILT_IN: Final[dict[str, str]] = {
    "clickhouse": "collector.exporters.clickhouse.kind:KIND",
    "otlp": "collector.exporters.otlp.kind:GRPC",
    "otlphttp": "collector.exporters.otlp.kind:HTTP",
    "postgres": "collector.exporters.postgres.kind:KIND",
    "sqlite": "collector.exporters.sqlite.kind:KIND",
}
"""Where Ringtail's own kinds lie, by name."""


def _none(_: Any) -> Iterable[tuple[str, str]]:
    return ()


def _nowhere(_: Any) -> Iterable[tuple[str, str, int]]:
    return ()


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of exporter."""

    doc: str
    """What it is, in a sentence."""
    settings: type[ExporterSettings]
    """Its keys; every one has a default."""
    make: Callable[[Any, Context], Exporter]
    """Make one, of its settings; quick, and connects to nothing. Raises InvalidConfig when the package that it needs
    is not installed."""
    problems: Callable[[Any], Iterable[tuple[str, str]]] = _none
    """Tell what is wrong with settings that are well one by one: (key, what). Looks at no file and no network."""
    obstacles: Callable[[Any], Iterable[tuple[str, str]]] = _none
    """The same for what settings name, as it is now: files that cannot be read. Waits for no network."""
    reads: bool = False
    """Whether what it makes are Backends."""
    otlp_servers: Callable[[Any], Iterable[tuple[str, str, int]]] = _nowhere
    """Tell where settings that are well have OTLP sent: (key, host, port)."""


def known() -> list[str]:
    """Return the names of all kinds that are installed."""
    return sorted({*BUILT_IN, *(one.name for group in GROUPS for one in entry_points(group=group))})


def find(name: str) -> Kind | None:
    """Return the kind of that name, None if there is none. Raises InvalidConfig for one that cannot be imported."""
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found = getattr(import_module(module), attribute)
    else:
        points = [one for group in GROUPS for one in entry_points(group=group, name=name)]
        if not points:
            return None
        try:
            found = points[0].load()
        except Exception as error:
            problem = f"exporters.{name}: the package {points[0].value} cannot be imported: {error!r}"
            raise InvalidConfig([problem]) from error
    if not isinstance(found, Kind):
        raise InvalidConfig([f"exporters.{name}: {found!r} is no Kind of collector.exporters.kinds"])
    return found


def kind_of(exporter: str) -> str:
    """Return the name of the kind of an exporter's name: `otlp` of `otlp/eu`."""
    return exporter.partition("/")[0]


def _settings_of(exporter: str) -> type[ExporterSettings] | None:
    kind = find(kind_of(exporter))
    return kind.settings if kind is not None else None


NAMING: Final = Naming(ExporterSettings, _settings_of, known, tuple(BUILT_IN))
"""How the configuration finds an exporter's keys."""
