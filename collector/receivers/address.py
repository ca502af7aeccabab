"""Why an address cannot be listened on, in the operating system's words and nothing around them."""

from __future__ import annotations

import os
import socket


def reason(error: OSError) -> str:
    """Return the cause of a failed bind. (Event loops and resolvers wrap it in texts of their own.)"""
    number = error.errno or 0
    return (os.strerror(number) if number > 0 else str(error.strerror)).lower()


def probe(address: str) -> str:
    """Return why `host:port` cannot be bound, found by trying: grpcio writes it to standard error only."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_server((host.strip("[]"), int(port))):
            return "gRPC could not bind it"
    except OSError as error:
        return reason(error)
    except (ValueError, OverflowError):
        return "it is not an address"
