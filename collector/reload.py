"""Which settings change while the daemon runs, and the configuration that is in force after a reload."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final

from collector.memory import RingSize
from collector.otlp.signals import SIGNALS

if TYPE_CHECKING:
    from collector.config import Config

LIVE: Final = (
    "receivers.otlp.max_in_flight_bytes",
    "receivers.otlp.protocols.grpc.max_recv_msg_size_mib",
    "receivers.otlp.protocols.http.max_request_body_size",
    "receivers.otlp.protocols.http.read_header_timeout",
    "receivers.otlp.protocols.http.idle_timeout",
    "stores.*.capacity",
    "stores.*.max_bytes",
    "wal.retention.*",
    "memory.limit",
    "api.max_response_size",
    "query.timeout",
    "telemetry.logs.level",
    "exporters",
    "exporters.*",
)
"""Keys that a reload applies; every other one waits for a restart."""


def is_live(key: str) -> bool:
    """Tell whether a reload applies this key."""
    return any(fnmatchcase(key, pattern) for pattern in LIVE)


def merged(running: Config, wanted: Config) -> Config:
    """Return the configuration that is in force once the live keys of `wanted` are applied."""
    made: Config = _merged(running, wanted, "")
    return made


def _merged(running: Any, wanted: Any, path: str) -> Any:
    changes: dict[str, Any] = {}
    for one in fields(running):
        full = f"{path}.{one.name}" if path else one.name
        before, after = getattr(running, one.name), getattr(wanted, one.name)
        if is_dataclass(before) and is_dataclass(after):
            changes[one.name] = _merged(before, after, full)
        elif is_live(full):
            changes[one.name] = after
    return replace(running, **changes)


def ring_sizes(config: Config) -> dict[str, RingSize]:
    """Return how large rings are to be, by the signal's name."""
    sizes = {one.name: getattr(config.stores, one.name) for one in SIGNALS}
    return {name: RingSize(size.capacity, size.max_bytes) for name, size in sizes.items()}
