"""Why an address cannot be listened on, in the operating system's words and nothing around them."""

from __future__ import annotations

import os


def reason(error: OSError) -> str:
    """Return the cause of a failed bind. (Event loops and resolvers wrap it in texts of their own.)"""
    number = error.errno or 0
    return (os.strerror(number) if number > 0 else str(error.strerror)).lower()
