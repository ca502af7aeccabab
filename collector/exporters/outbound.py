"""Where connections may go that Ringtail opens by itself: row S14 of docs/reliability.md.

An endpoint has one of the schemes that its exporter speaks. Its name is resolved here, and each address that comes out is
looked at before it is connected to, at every new connection: so neither a name that is made to point elsewhere later, nor
an address written in an unusual way, reaches what configuration services of clouds, or neighbours on the link, answer.
Who has a collector there sets `allow_link_local`. Redirects are not followed, and proxies of the environment not used.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from collector.errors import Malformed, Retryable, Unwelcome

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes of an answer that are read."""
CONNECT_S: Final = 5.0
"""How long a connection may take to be made."""
ADDRESSES_MAX: Final = 16
"""Addresses of one name that are tried."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(one)
    for one in (
        "169.254.169.254",  # nearly all of them
        "169.254.170.2",  # Amazon ECS
        "fd00:ec2::254",  # Amazon, by IPv6
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure's fabric
        "192.0.0.192",  # Oracle
    )
)
_TRANSLATED: Final = ipaddress.ip_network("64:ff9b::/96")


class Endpoint(NamedTuple):
    """A URL, or `host:port`, taken apart."""

    scheme: str
    """Empty where none was written."""
    host: str
    """Without brackets, in lower case."""
    port: int
    path: str
    """Empty, or beginning with a slash and not ending with one."""

    @property
    def authority(self) -> str:
        """`host:port`, an IPv6 address in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_endpoint(text: str, schemes: Collection[str], ports: dict[str, int]) -> Endpoint:
    """Take an endpoint apart. `schemes` are those that are allowed, "" for none; `ports` those that schemes imply.

    Raises Malformed, which says what is wrong. Credentials in a URL are refused: they end up in logs.
    """
    allowed = ", ".join(f"{one}://" for one in sorted(schemes) if one)
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        port = parts.port or ports.get(parts.scheme, 0)
    except ValueError as error:
        raise Malformed(f"{text!r} is no endpoint: {error}") from error
    if parts.username is not None or parts.password is not None:
        raise Malformed("an endpoint has no credentials; headers have")
    if parts.scheme not in schemes:
        raise Malformed(
            f"{text!r} is no endpoint: it begins with {allowed}{' or with the host' if '' in schemes else ''}"
        )
    if not parts.hostname or not port or parts.query or parts.fragment:
        raise Malformed(f"{text!r} is no endpoint: it has a host and a port, and neither query nor fragment")
    return Endpoint(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))


def refused(address: str, *, allow_link_local: bool) -> str:
    """Say why an address is not connected to; empty when it may be."""
    try:
        found = _inner(ipaddress.ip_address(address.partition("%")[0]))
    except ValueError:
        return f"{address} is no address"
    if found.is_multicast or found.is_unspecified or (found.is_reserved and not found.is_loopback):
        return f"{address} is no host's address"
    if not allow_link_local and (found.is_link_local or found in _METADATA):
        return f"{address} is link-local, or answers cloud machines about themselves; allow_link_local would allow it"
    return ""


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        for inner in (address.ipv4_mapped, address.sixtofour):
            if inner is not None:
                return inner
        if address in _TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def literal(host: str) -> bool:
    """Tell whether a host is an address already."""
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def resolve(host: str, port: int, *, allow_link_local: bool) -> Sequence[tuple[int, str]]:
    """Return the (family, address) pairs that a name has, and that may be connected to, in the system's order.

    Raises Retryable when there are none now, and Unwelcome when none of them is allowed.
    """
    try:
        async with asyncio.timeout(CONNECT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Retryable(f"{host} cannot be resolved: {error.strerror or error}") from error
    pairs = list(dict.fromkeys((int(family), str(address[0])) for family, _, _, _, address in found))
    reasons = [refused(address, allow_link_local=allow_link_local) for _, address in pairs]
    kept = [pair for pair, reason in zip(pairs, reasons, strict=True) if not reason]
    if pairs and not kept:
        raise Unwelcome(f"{host}: {reasons[0]}")
    if not kept:
        raise Retryable(f"{host} has no address")
    return kept[:ADDRESSES_MAX]
