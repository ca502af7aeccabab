"""Telling systemd how the daemon is: sd_notify(3)'s protocol, a datagram to the socket that the environment names.

Nobody is told where there is no such socket, and nothing fails for it.
"""

from __future__ import annotations

import os
import socket
from typing import Final

ENVIRONMENT: Final = "NOTIFY_SOCKET"
READY: Final = "READY=1\nSTATUS=receiving\n"
STOPPING: Final = "STOPPING=1\nSTATUS=finishing requests in flight\n"


def notify(state: str, address: str | None = None) -> bool:
    """Send a state to the service manager; return whether there is one. `address` is by default the environment's."""
    address = address if address is not None else os.environ.get(ENVIRONMENT, "")
    if address[:1] not in ("/", "@"):
        return False
    # A name that begins with @ is an abstract one, whose first byte is zero.
    name = f"\0{address[1:]}" if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto(state.encode(), name)
        except OSError:
            return False
    return True
