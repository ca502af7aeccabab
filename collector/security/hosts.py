"""Which hosts a request may name, so that web pages cannot reach a local port.

A page of attacker.example may let its own name lead to 127.0.0.1 (DNS rebinding): the browser then takes answers of a
local daemon for the page's own, and lets it read them. Such requests name attacker.example in Host. A port that is
bound to loopback therefore answers only those that name loopback, and hosts that were allowed.

`Origin` is what a browser says of the page that asks. A foreign page is refused as well: it could not read the answer,
but with a password or certificate that the browser adds by itself it could change something.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from collector.errors import ForeignHost

if TYPE_CHECKING:
    from collections.abc import Collection

HOSTS_KEPT: Final = 64
"""Values of Host that are remembered as allowed."""
ANY: Final = "*"


class HostGuard:
    """The rule of one listener."""

    def __init__(self, allowed: Collection[str], key: str, *, is_local: bool) -> None:
        """Allow hosts (in lower case, without port) and loopback; any, if none is given and the port is not local.

        `key` is the setting that allows more, for the message.
        """
        self._allowed = frozenset(allowed)
        self._key = key
        self.is_open = ANY in self._allowed or not (is_local or self._allowed)
        """Whether any host will do."""
        self._known: set[bytes] = set()

    def require(self, host: bytes) -> None:
        """Raise ForeignHost unless the value of a request's Host header is allowed, or there is none."""
        if host in self._known or self.is_open or not host:
            return
        if not self._allows(_without_port(host.decode("latin-1"))):
            shown = ascii(host[:100].decode("latin-1"))
            raise ForeignHost(f"this is not the host {shown}; {self._key} can allow it")
        if len(self._known) >= HOSTS_KEPT:
            self._known.clear()
        self._known.add(host)

    def require_origin(self, origin: bytes, host: bytes) -> None:
        """Raise ForeignHost for a request of a page that comes from elsewhere, by its Origin header, if it has one."""
        if not origin or ANY in self._allowed:
            return
        page = origin.decode("latin-1").lower().partition("://")[2]
        if page and (page == host.decode("latin-1").lower() or _without_port(page) in self._allowed):
            return
        shown = ascii(origin[:100].decode("latin-1"))
        raise ForeignHost(f"pages of {shown} may not ask here; {self._key} can allow their host")

    def _allows(self, name: str) -> bool:
        return name in self._allowed or is_loopback(name)


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host.partition("]")[0].lower() + "]"
    return host.partition(":")[0].rstrip(".").lower()


def is_loopback(host: str) -> bool:
    """Tell whether a host, as addresses and Host headers have it, is this machine and no other."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
