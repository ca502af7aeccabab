"""Names of keys, and what stands in the indexes.

Of each signal and tenant, under `PREFIX:{SIGNAL:TENANT}:` (the braces keep them in one slot of a cluster):

    stream:INSTANCE   the records of an instance: entry (offset + 1)-0, with fields
                      d  the record as an OTLP request    p  its place    t  its trace id, if it has one
    times             a sorted set of places, all with score 0: time, instance, offset
    traces            a sorted set of trace id + place
    sources           the set of instances

Times and offsets are big endian, 8 bytes, so that the order of bytes is that of times, to the nanosecond, where scores are
doubles and would round. `PREFIX:tenants:SIGNAL` is the set of tenants.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collector.exporters.base import Source
    from collector.otlp.signals import Signal

TIME_BYTES, TRACE_BYTES = 8, 16
PLACE_BYTES = 32
TIME_MAX = 2**64 - 1
BEHIND = b"\xff" * PLACE_BYTES
"""Behind every place of a time."""


class Keys(NamedTuple):
    """The keys of a signal and a tenant."""

    root: str

    @classmethod
    def of(cls, prefix: str, signal: Signal, tenant: str) -> Keys:
        """Tenants may be called anything, so their names are written in hex."""
        return cls(f"{prefix}:{{{signal.name}:{tenant.encode().hex()}}}")

    @property
    def times(self) -> str:
        """The index by time."""
        return f"{self.root}:times"

    @property
    def traces(self) -> str:
        """The index by trace."""
        return f"{self.root}:traces"

    @property
    def sources(self) -> str:
        """The set of instances."""
        return f"{self.root}:sources"

    def stream(self, instance: str) -> str:
        """The stream of an instance."""
        return f"{self.root}:stream:{instance}"


def tenants(prefix: str, signal: Signal) -> str:
    """The set of tenants."""
    return f"{prefix}:tenants:{signal.name}"


def place(time_ns: int, source: Source, offset: int) -> bytes:
    """A record's place: its key, behind its time."""
    return time_ns.to_bytes(TIME_BYTES, "big") + bytes.fromhex(source.instance) + offset.to_bytes(8, "big")


def instance_of(at: bytes) -> str:
    """The instance that a place names."""
    return at[TIME_BYTES:-8].hex()


def offset_of(at: bytes) -> int:
    """The offset that a place names."""
    return int.from_bytes(at[-8:], "big")


def bounds(start_ns: int, end_ns: int, before: bytes = b"") -> tuple[bytes, bytes]:
    """The range of places with start_ns <= time <= end_ns, behind some bytes, as ZRANGEBYLEX takes it."""
    first = before + max(0, start_ns).to_bytes(TIME_BYTES, "big")
    last = before + min(end_ns, TIME_MAX).to_bytes(TIME_BYTES, "big") + BEHIND
    return b"[" + first, b"[" + last
