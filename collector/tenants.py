"""Tenants: several sets of stores in one daemon, none of which sees another's data or takes another's room.

A request names its tenant in `X-Scope-OrgID`, as Loki's, Tempo's and Mimir's clients do. Each has a directory of logs,
rings, and an API of its own; they share the process's memory evenly (memory.py), its query threads (of which one tenant
leaves one to others) and the bytes in flight. A tenant comes to be when its name is written to, up to `tenants.max`; a
name that was never written to reads as empty. Names are short and plain, because they become directories.

Owner: the event loop's thread; opening happens in others, and writers are told to come again meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Any, Final

from collector.errors import InvalidConfig, Malformed, Overloaded, RingtailError, Unauthenticated, Unavailable
from collector.otlp.signals import LOGS, TRACES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from collector.clock import Clock
    from collector.otlp.signals import Signal
    from collector.receivers.export import Destination
    from collector.ring.ring import Ring
    from collector.store import Memo
    from collector.tenant import Tenant
    from collector.wal.files import Files
    from collector.wal.log import Log

HEADER: Final = "X-Scope-OrgID"
DIRECTORY: Final = "tenants"
"""Where the tenants' directories lie, in the data directory."""
NAME_MAX: Final = 64
"""Characters of a name."""
NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")
RETRY_AFTER_S: Final = 1.0
REST_S: Final = 5.0
"""After a tenant could not be opened, how long none is tried."""


def require_name(name: str) -> None:
    """Raise Unauthenticated for a missing name, Malformed for one that is none."""
    if not name:
        raise Unauthenticated(f"no tenant is named; the header {HEADER} does")
    if len(name) > NAME_MAX or NAME.fullmatch(name) is None:
        raise Malformed(
            f"{name[:NAME_MAX]!r} is no tenant's name: letters, digits, '_', '-' and '.', at most {NAME_MAX} of "
            "them, and no '.' first"
        )


def place_of(directory: str, name: str) -> str:
    """Return where a tenant's logs lie in a data directory: in the directory itself for the one without a name."""
    return os.path.join(directory, DIRECTORY, name) if name else directory


def stored_names(directory: str, files: Files, count_max: int) -> list[str]:
    """Return the names of the tenants that have a directory in a data directory.

    Raises InvalidConfig when there are more than `count_max`, and a RingtailError for what cannot be read or is no name.
    """
    try:
        names = sorted(files.listdir(os.path.join(directory, DIRECTORY)))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise Unavailable(f"the tenants in {directory} cannot be read: {error}") from error
    for name in names:
        require_name(name)
    if len(names) > count_max:
        raise InvalidConfig([f"tenants.max: {count_max} are too few: there are {len(names)} tenants"])
    return names


class Tenants:
    """The open tenants, by name. A daemon that keeps none apart has one, without a name."""

    def __init__(
        self,
        count_max: int,
        make: Callable[[str], Tenant],
        changed: Callable[[], None],
        clock: Clock,
        logger: Any,
    ) -> None:
        """Open `count_max` at most; 0 keeps none apart. `make` makes one that is not open; `changed` is called when one
        was opened, and may raise Overloaded: it is closed again then."""
        self.by_name: dict[str, Tenant] = {}
        self.apart = count_max > 0
        self._count_max = count_max
        self._make = make
        self._changed = changed
        self._clock = clock
        self._logger = logger
        self._opening: dict[str, asyncio.Task[None]] = {}
        # After a failure nothing is opened until then, by the monotonic clock.
        self._rests_until = 0.0
        self._stopping = False

    @property
    def rings(self) -> list[Ring]:
        """All rings."""
        return [ring for tenant in self.by_name.values() for ring in tenant.rings]

    @property
    def memos(self) -> list[Memo]:
        """What queries remember of all stores of spans and of log records; of data points they remember nothing."""
        stores = [tenant.stores for tenant in self.by_name.values() if tenant.stores]
        return [each[signal.name].memo for each in stores for signal in (TRACES, LOGS)]

    @property
    def logs(self) -> list[Log]:
        """All logs."""
        return [log for tenant in tuple(self.by_name.values()) for log in tenant.logs]

    def find(self, name: str) -> Tenant | None:
        """Return the tenant of that name to read from, None if there is none. Raises as `require_name`."""
        if not self.apart:
            return self.by_name[""]
        require_name(name)
        return self.by_name.get(name)

    def written(self, name: str) -> Tenant:
        """Return the tenant of that name to write to, or begin to open it.

        Raises as `require_name`, Unavailable while it is being opened, and Overloaded when there are too many.
        """
        found = self.find(name)
        if found is not None:
            return found
        if name not in self._opening:
            if self._stopping:
                raise Unavailable("the daemon is shutting down", RETRY_AFTER_S)
            if len(self.by_name) + len(self._opening) >= self._count_max:
                raise Overloaded(f"there are {self._count_max} tenants, which is the limit (tenants.max)", 5.0)
            rest = self._rests_until - self._clock.monotonic()
            if rest > 0:
                raise Unavailable("a tenant could not be opened; the daemon's log has why", rest)
            self._opening[name] = asyncio.ensure_future(self._open(name))
        raise Unavailable(f"tenant {name} is being opened", RETRY_AFTER_S)

    def finder(self, signal: Signal) -> Callable[[str], Destination]:
        """Return what finds the destination of a signal's requests by their tenant; it raises as `written`."""
        if not self.apart:
            only = self.by_name[""].destinations[signal.name]
            return lambda name: only
        return lambda name: self.written(name).destinations[signal.name]

    async def open(self, names: Iterable[str]) -> None:
        """Open the tenants that were there before: queries may read them. Raises what opening one raises."""
        for name in names:
            tenant = self._make(name)
            self.by_name[name] = tenant
            await tenant.open()

    async def refill(self, stopping: Callable[[], bool]) -> None:
        """Fill the rings of those that `open` has opened."""
        for tenant in self.by_name.values():
            await tenant.refill(stopping)

    def not_ready(self) -> list[str]:
        """Return why no traffic should come; empty when it may."""
        return [
            f"tenant {name}: {reason}" if name else reason
            for name, tenant in self.by_name.items()
            for reason in tenant.not_ready()
        ]

    async def _open(self, name: str) -> None:
        tenant = self._make(name)
        try:
            await tenant.open()
            await tenant.refill(lambda: self._stopping)
            self.by_name[name] = tenant
            self._changed()
        except RingtailError as error:
            self.by_name.pop(name, None)
            tenant.close()
            self._rests_until = self._clock.monotonic() + REST_S
            self._logger.error("tenant not opened", tenant=name, reason=str(error))
        else:
            self._logger.info("tenant opened", tenant=name, tenants=len(self.by_name))
        finally:
            del self._opening[name]

    async def drain(self) -> None:
        """Refuse further appends of all, and wait until everything taken has been answered."""
        self._stopping = True
        await asyncio.gather(*self._opening.values())
        for tenant in self.by_name.values():
            await tenant.drain()

    def close(self) -> None:
        """Sync and close all logs."""
        for tenant in self.by_name.values():
            tenant.close()
