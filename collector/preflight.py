"""What a start would fail on, found before one: the files, addresses and directories that settings name, as they are now.

`ringtail run` asks this before it builds anything, and `ringtail validate` asks nothing else, so that both say the same.
Nothing here judges by itself: certificates are loaded as listeners load them, credentials read as the gates read them,
memory divided as the guard divides it. Nothing is created, written or kept: an address is bound and let go of,
the data directory's lock is looked at.

    mistakes    of the configuration: somebody has to change it, or what it names. Exit status 2
    obstacles   of the moment: a port or a directory that is taken, or may not be written. Exit status 1
    warnings    what starts, and is not what anybody wants: open to the network, an expired certificate

Left out: what only opening the logs shows, which repairs them on the way.
"""

from __future__ import annotations

import errno
import os
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from collector.errors import InvalidConfig, RingtailError
from collector.exporters.kinds import find, kind_of
from collector.exposure import known_credentials, openings
from collector.heap import resident_bytes
from collector.memory import available_bytes, divided, limit_bytes
from collector.otlp.signals import SIGNALS
from collector.quantities import split_address
from collector.receivers.address import cannot_listen, family_of, try_address
from collector.ring.ring import bytes_min
from collector.security.gate import read as read_credentials
from collector.security.tls import load_context, outdated_files
from collector.tenants import place_of, stored_names
from collector.wal.files import OperatingSystemFiles
from collector.wal.lock import DirectoryLock, require_writable
from collector.wal.recovery import require_known_formats
from collector.wal.restored import require_restored

if TYPE_CHECKING:
    from collector.clock import Clock
    from collector.config import Config
    from collector.exposure import Opening

_PASSING = frozenset({errno.EADDRINUSE, socket.EAI_AGAIN})
"""Why an address cannot be listened on now, and perhaps later."""


@dataclass(slots=True)
class Findings:
    """What was found, a line each."""

    mistakes: list[str] = field(default_factory=list)
    obstacles: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def examine(config: Config, clock: Clock) -> Findings:
    """Find what a start on this configuration, here and now, would fail on."""
    found = Findings()
    _addresses(config, found)
    for opening in openings(config):
        found.warnings += [f"{opening.key}.endpoint: {opening.endpoint}: {one}" for one in opening.warnings()]
        if opening.files is not None:
            try:
                load_context(opening.files)
            except InvalidConfig as error:
                found.mistakes += error.problems
            else:
                found.warnings += outdated_files(opening.files, clock)
    try:
        read_credentials(known_credentials(config))
    except InvalidConfig as error:
        found.mistakes += error.problems
    for name, exporter in config.exporters.items():
        kind = find(kind_of(name))
        for key, problem in kind.obstacles(exporter) if kind is not None else ():
            found.mistakes.append(f"exporters.{name}.{key}: {problem}")
    tenants = _directory(config, found)
    _memory(config, tenants, found)
    return found


def _addresses(config: Config, found: Findings) -> None:
    taken: dict[tuple[str, int], Opening] = {}
    for opening in openings(config):
        host, port = split_address(opening.endpoint)
        key = f"{opening.key}.endpoint"
        try:
            addresses = try_address(host, port, family_of(host) if opening.name == "api" else socket.AF_UNSPEC)
        except OSError as error:
            text = f"{key}: {cannot_listen(host, port, opening.purpose, error)}"
            (found.obstacles if error.errno in _PASSING else found.mistakes).append(text)
            continue
        others = sorted({taken[one].key for one in addresses if one in taken})
        found.mistakes += [f"{key}: {opening.endpoint} is taken already, by {other}.endpoint" for other in others]
        taken |= {one: opening for one in addresses if one[1] != 0}


def _directory(config: Config, found: Findings) -> int:
    """Look at the data directory, and return how many tenants a start would open."""
    directory = config.wal.directory
    if not config.wal.enabled:
        return 0 if config.tenants.enabled else 1
    files = OperatingSystemFiles()
    names = [""]
    try:
        DirectoryLock(directory, files).check()
        require_restored(directory)
        if config.tenants.enabled:
            names = stored_names(directory, files, config.tenants.max)
        for name in names:
            place = place_of(directory, name)
            for signal in SIGNALS:
                require_writable(os.path.join(place, signal.name))
            require_known_formats(files, place)
    except InvalidConfig as error:
        found.mistakes += error.problems
    except RingtailError as error:
        found.obstacles.append(str(error))
    return len(names)


def _memory(config: Config, tenants: int, found: Findings) -> None:
    least = tenants * sum(bytes_min(one, getattr(config.stores, one.name).capacity) for one in SIGNALS)
    limit = limit_bytes(config.memory.limit, available_bytes())
    try:
        divided(limit, resident_bytes(), config.receivers.otlp.max_in_flight_bytes, least)
    except InvalidConfig as error:
        found.mistakes += error.problems
