"""Listening addresses: what they resolve to, whether they can be bound, and why not, in the operating system's words."""

from __future__ import annotations

import os
import socket

from collector.errors import Unavailable


def reason(error: OSError) -> str:
    """Return the cause of a failed bind. (Event loops and resolvers wrap it in texts of their own.)"""
    number = error.errno or 0
    return (os.strerror(number) if number > 0 else str(error.strerror)).lower()


def cannot_listen(host: str, port: int, purpose: str, error: OSError) -> Unavailable:
    """Return the cause for an address that cannot be listened on. `purpose` is what for, in people's words."""
    shown = f"[{host}]" if ":" in host else host
    return Unavailable(f"cannot listen on {shown}:{port} for {purpose}: {reason(error)}")


def family_of(host: str) -> socket.AddressFamily:
    """Return the family of the one address that the query API listens on: IPv4 for names."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def try_address(host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC) -> frozenset[tuple[str, int]]:
    """Resolve an address, bind it and let go of it again; nobody can connect meanwhile.

    Returns the numeric addresses and ports. Raises OSError for what a listener there would fail on.
    """
    found = set()
    for kind, _, _, _, address in socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_PASSIVE):
        with socket.socket(kind, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if kind == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
        found.add((str(address[0]), int(address[1])))
    return frozenset(found)
