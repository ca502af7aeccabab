"""From when to when certificates are valid, read out of their files.

Neither OpenSSL's context nor Python's `ssl` tell this of a server's own certificate, so the few fields on the way there are
walked here (RFC 5280, 4.1; DER): Certificate, TBSCertificate, then past version, serial number, algorithm and
issuer. Files come here after OpenSSL has read them; what this walk does not understand it leaves out.
"""

from __future__ import annotations

import calendar
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from collector.errors import Malformed
from collector.security.watched import read_bytes

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_VERSION, _UTC_TIME, _GENERALIZED_TIME = 0xA0, 0x17, 0x18


class Validity(NamedTuple):
    """The dates of one certificate, in Unix seconds."""

    begins: int
    ends: int


def outdated(path: str, now_s: float) -> str:
    """Say which certificate of a PEM file is not valid at a time, the first of them; empty when all are, or for a file
    that cannot be read."""
    try:
        found = list(dates(read_bytes(path).decode("ascii", "replace")))
    except Malformed:
        return ""
    for i, one in enumerate(found, 1):
        which = f"certificate {i} of {len(found)} " if len(found) > 1 else "the certificate "
        if one.ends < now_s:
            return f"{path}: {which}has expired, on {_date(one.ends)}"
        if one.begins > now_s:
            return f"{path}: {which}is not valid before {_date(one.begins)}"
    return ""


def expiry(path: str) -> int:
    """Return when the first certificate of a PEM file expires, in Unix seconds; 0 for a file that has none."""
    try:
        return min((one.ends for one in dates(read_bytes(path).decode("ascii", "replace"))), default=0)
    except Malformed:
        return 0


def dates(text: str) -> Iterator[Validity]:
    """Yield the dates of each certificate in PEM, in their order; what is none is left out."""
    for part in text.split(_BEGIN)[1:]:
        body, end, _ = part.partition(_END)
        try:
            if end:
                yield _dates_of(ssl.PEM_cert_to_DER_cert(f"{_BEGIN}{body}{_END}"))
        except (ValueError, IndexError):
            continue


def _dates_of(data: bytes) -> Validity:
    _, at, _ = _element(data, 0)
    _, at, _ = _element(data, at)
    tag, _, end = _element(data, at)
    if tag == _VERSION:
        _, _, end = _element(data, end)
    for _ in ("algorithm", "issuer"):
        _, _, end = _element(data, end)
    _, at, _ = _element(data, end)
    begins, at = _time(data, at)
    ends, _ = _time(data, at)
    return Validity(begins, ends)


def _element(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag of the element at a place, and where its contents begin and end."""
    length = data[at + 1]
    begin = at + 2
    if length & 0x80:
        count = length & 0x7F
        length = int.from_bytes(data[begin : begin + count])
        begin += count
    if begin + length > len(data):
        raise ValueError("cut short")
    return data[at], begin, begin + length


def _time(data: bytes, at: int) -> tuple[int, int]:
    tag, begin, end = _element(data, at)
    text = data[begin:end].decode("ascii")
    if tag == _UTC_TIME:
        text = ("20" if text < "50" else "19") + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return calendar.timegm(datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timetuple()), end


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
