"""`ip("…")`: is there an address of a range in a text? As Loki finds and reads them.

A range is one address (`192.168.0.1`, `::1`), two with a dash between (`10.0.0.1-10.0.0.20`), or a CIDR block
(`10.0.0.0/8`). In a text, an address begins where a digit is followed by a dot, or up to four hexadecimal digits by
a colon, and goes on as long as its characters do; if those together are no address, the search goes on behind
them. IPv4 addresses are only in IPv4 ranges, and IPv6 in IPv6. Time is linear in the text.
"""

from __future__ import annotations

import re
import socket

from collector.errors import InvalidQuery

_BEGINNING = re.compile(
    rb"(?P<four>[0-9](?=\.|.\.|..\.)(?=...))|::[0-9A-Fa-f]|[0-9A-Fa-f]{1,4}:",
    re.DOTALL,
)
_HAS_FOUR = re.compile(rb"[0-9]\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]")
_HAS_SIX = re.compile(rb":[0-9A-Fa-f]{0,4}:")
_FOUR = re.compile(rb"[0-9.]+")
_SIX = re.compile(rb"[0-9A-Fa-f:.]+")
ADDRESS_LENGTH_MAX = 45
"""Characters of the longest address."""


class AddressRange:
    """Addresses from one to another, both included."""

    def __init__(self, text: str, at: int | None = None) -> None:
        """Read `ip()`'s argument. Raises InvalidQuery, at the position given."""
        bits, low, high = _range(text) or (0, 1, 0)
        if not bits or low > high:
            raise InvalidQuery(f"ip: invalid pattern: {text[:100]!r}", at)
        self._bits, self._low, self._high = bits, low, high
        self._may_occur = (_HAS_FOUR if bits == 32 else _HAS_SIX).search

    def occurs(self, text: bytes) -> bool:
        """Tell whether an address of the range stands in a text."""
        if self._may_occur(text) is None:
            return False
        at = 0
        while (found := _BEGINNING.search(text, at)) is not None:
            start = found.start()
            span = (_FOUR if found.group("four") is not None else _SIX).match(text, start)
            assert span is not None  # what begins like one has at least one character of it
            end = span.end()
            if end - start <= ADDRESS_LENGTH_MAX:
                address = _address(text[start:end].decode("ascii"))
                if address is not None and address[0] == self._bits and self._low <= address[1] <= self._high:
                    return True
            at = end + 1
        return False


def _address(text: str) -> tuple[int, int] | None:
    """Return an address's bits, 32 or 128, and the address as a number; None if the text is none."""
    try:
        if ":" in text:
            return 128, int.from_bytes(socket.inet_pton(socket.AF_INET6, text))
        return 32, int.from_bytes(socket.inet_pton(socket.AF_INET, text))
    except (OSError, ValueError):
        return None


def _range(text: str) -> tuple[int, int, int] | None:
    """Return a range's bits, first and last address."""
    if "/" in text:
        base, _, length = text.partition("/")
        address = _address(base)
        if address is None or re.fullmatch(r"0|[1-9][0-9]{0,2}", length) is None or int(length) > address[0]:
            return None
        free = address[0] - int(length)
        low = address[1] >> free << free
        return address[0], low, low | ((1 << free) - 1)
    first, dash, last = text.partition("-")
    low_end, high_end = _address(first), _address(last if dash else first)
    if low_end is None or high_end is None or low_end[0] != high_end[0]:
        return None
    return low_end[0], low_end[1], high_end[1]
