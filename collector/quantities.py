"""How the values of settings are written: sizes, durations, counts, addresses, paths, routes, names,
switches and choices.

Each kind has a reader from text, and sizes and durations a writer that says the same value in its largest units:
`read(write(value)) == value` for every value that a reader can return. A reader raises ValueError, whose message
(which may be empty) adds to what `accepted` says.

A bare number is no duration: the Collector takes it for nanoseconds and people for seconds.
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from collector.security.secret import REDACTED, Secret

DIGITS_MAX: Final = 19
"""Digits of one number: what 64 bits hold."""
SECRET_CHARACTERS_MIN: Final = 16
"""A shorter secret can be guessed."""
SECRET_CHARACTERS_MAX: Final = 4096

_SIZES: Final = {"": 1, "B": 1} | {
    f"{prefix}{suffix}": base**power
    for suffix, base in (("iB", 1024), ("B", 1000))
    for power, prefix in enumerate("KMGTP", 1)
}
_SIZES_LOWER: Final = {unit.lower(): factor for unit, factor in _SIZES.items()}
_BINARY: Final = ("PiB", "TiB", "GiB", "MiB", "KiB")
_MICROSECONDS: Final = {
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1_000,
    "us": 1,
    "µs": 1,
}
"""Microseconds are the resolution: a float of seconds holds a decade of them exactly."""

_NUMBER: Final = rf"[0-9]{{1,{DIGITS_MAX}}}(?:\.[0-9]{{1,{DIGITS_MAX}}})?"
_SIZE: Final = re.compile(rf"({_NUMBER}) ?([A-Za-z]*)")
_DURATION_PART: Final = re.compile(rf"({_NUMBER})(ms|us|µs|d|h|m|s)")
_DURATION: Final = re.compile(rf"(?:{_DURATION_PART.pattern})+")
_COUNT: Final = re.compile(rf"[0-9](?:_?[0-9]){{0,{DIGITS_MAX - 1}}}")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,252})")
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")
_ROUTE: Final = re.compile(r"/[A-Za-z0-9._~!$&'()*+,;=:@%/-]{0,255}")
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]{0,19}://[A-Za-z0-9.*\[\]:_-]{1,255}")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]*")
"""What needs no quotes in a list of YAML."""


def read_size(text: str) -> int:
    """Read `64MiB`, `1.5GB` or a number of bytes; returns bytes."""
    match = _SIZE.fullmatch(text)
    factor = _SIZES_LOWER.get(match[2].lower()) if match else None
    if match is None or factor is None:
        raise ValueError("units are B, KiB, MiB, GiB, TiB, KB, MB, GB and TB" if match else "")
    return _whole(Decimal(match[1]) * factor, "a fraction of a byte")


def read_duration(text: str) -> float:
    """Read `1m30s`, `1.5h`, `500ms` or `0`; returns seconds."""
    if text == "0":
        return 0.0
    if not _DURATION.fullmatch(text):
        raise ValueError("write a unit: us, ms, s, m, h or d" if re.fullmatch(_NUMBER, text) else "")
    parts = (Decimal(number) * _MICROSECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    return _whole(sum(parts, Decimal(0)), "finer than a microsecond") / 1_000_000


def _whole(value: Decimal, otherwise: str) -> int:
    if value != value.to_integral_value():
        raise ValueError(otherwise)
    return int(value)


def read_count(text: str) -> int:
    """Read a whole number; `_` may separate digits."""
    if not _COUNT.fullmatch(text):
        raise ValueError
    return int(text)


def read_number(text: str) -> float:
    """Read a number that may have decimals."""
    if not re.fullmatch(_NUMBER, text):
        raise ValueError
    return float(text)


def read_address(text: str) -> str:
    """Read `host:port`, `[::1]:port` or `:port` (all interfaces); returns it unchanged."""
    if "://" in text:
        raise ValueError("an address has no scheme")
    host, colon, port = text.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port):
        raise ValueError("the port is missing")
    if int(port) > 65535:
        raise ValueError
    if host.startswith("[") and host.endswith("]"):
        ipaddress.IPv6Address(host[1:-1])
    elif ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    elif re.fullmatch(r"[0-9.]+", host):
        ipaddress.IPv4Address(host)
    elif host and not _HOST.fullmatch(host):
        raise ValueError("that is no host name")
    return text


def split_address(endpoint: str) -> tuple[str, int]:
    """Split `host:port`, `[::1]:port` or `:port` (all interfaces)."""
    host, _, port = endpoint.rpartition(":")
    return host.strip("[]") or "0.0.0.0", int(port)


def read_path(text: str) -> str:
    """Read a path; returns it unchanged."""
    if "\0" in text:
        raise ValueError("a path has no NUL character")
    return text


def read_switch(text: str) -> bool:
    """Read `true` or `false`."""
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def read_memory(text: str) -> str:
    """Read a size, a share like `50%` of the memory that there is, or `auto`; returns it unchanged."""
    if text == "auto":
        return text
    if text.endswith("%"):
        if not re.fullmatch(_NUMBER, text[:-1]) or not 0 < float(text[:-1]) <= 100:
            raise ValueError("a share is more than 0% and at most 100%")
        return text
    read_size(text)
    return text


def read_name(text: str) -> str:
    """Read a name of letters, digits and `_.@-`; returns it unchanged."""
    if not _NAME.fullmatch(text):
        raise ValueError("letters, digits and _ . @ - make a name, at most 64 of them")
    return text


def read_host(text: str) -> str:
    """Read a host name, an IP address (IPv6 in brackets) or `*`; returns it in lower case."""
    if text == "*":
        return text
    if text.startswith("[") and text.endswith("]"):
        return f"[{ipaddress.IPv6Address(text[1:-1])}]"
    if not _HOST.fullmatch(text):
        raise ValueError("a host has neither scheme nor port; an IPv6 address stands in brackets")
    return text.lower()


def read_text(text: str) -> str:
    """Read any text of one line; returns it unchanged."""
    if not text.isprintable():
        raise ValueError("it holds a control character")
    return text


def read_secret(text: str) -> Secret:
    """Read a secret: printable ASCII without spaces, as in a bearer token. No message repeats it."""
    if text == REDACTED:
        raise ValueError(f"{REDACTED} is what print-config shows in place of a secret")
    if len(text) < SECRET_CHARACTERS_MIN:
        raise ValueError("it is too short")
    if len(text) > SECRET_CHARACTERS_MAX or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("it is too long, or holds a space or a character beyond printable ASCII")
    return Secret(text)


def read_password(text: str) -> Secret:
    """Read a password that somebody else has chosen: any text without control characters. No message repeats it."""
    if text == REDACTED:
        raise ValueError(f"{REDACTED} is what print-config shows in place of a secret")
    if not text or len(text) > SECRET_CHARACTERS_MAX or not text.isprintable():
        raise ValueError("it is empty, too long, or holds a control character")
    return Secret(text)


def read_header_value(text: str) -> Secret:
    """Read the value of a header, which may be a secret: printable ASCII. No message repeats it."""
    if text == REDACTED:
        raise ValueError(f"{REDACTED} is what print-config shows in place of a secret")
    if len(text) > SECRET_CHARACTERS_MAX or not text.isascii() or not text.isprintable():
        raise ValueError("it is too long, or holds a character beyond printable ASCII")
    return Secret(text)


def read_route(text: str) -> str:
    """Read the path of a URL, `/v1/traces`; returns it unchanged."""
    if not _ROUTE.fullmatch(text):
        raise ValueError("it begins with / and has neither query nor fragment")
    return text


def read_origin(text: str) -> str:
    """Read an origin, `https://app.example:8443`, in which `*` stands for any part, or `*` alone; returns it unchanged."""
    if not _ORIGIN.fullmatch(text):
        raise ValueError("an origin has a scheme and no path")
    return text


def read_header(text: str) -> str:
    """Read the name of an HTTP header, or `*`; returns it in lower case."""
    if not _HEADER.fullmatch(text):
        raise ValueError
    return text.lower()


def write_size(value: float) -> str:
    """Write bytes in the largest binary unit that divides them."""
    amount = int(value)
    for unit in _BINARY:
        if amount and amount % _SIZES[unit] == 0:
            return f"{amount // _SIZES[unit]}{unit}"
    return str(amount)


def write_duration(seconds: float) -> str:
    """Write seconds in days, hours, minutes, seconds and fractions of them, largest first."""
    rest = round(seconds * 1_000_000)
    parts = []
    for unit in ("d", "h", "m", "s", "ms", "us"):
        amount, rest = divmod(rest, _MICROSECONDS[unit])
        if amount:
            parts.append(f"{amount}{unit}")
    return "".join(parts) or "0"


def write_number(value: float) -> str:
    """Write a number, a whole one without decimals."""
    return str(int(value)) if value == int(value) else repr(value)


def read(metadata: Mapping[str, Any], text: str) -> Any:
    """Read one value as its declaration (`config.setting`) says; ValueError when it is not accepted.

    Of a list this is one element.
    """
    kind, low, high = metadata["kind"], metadata["low"], metadata["high"]
    text = text if kind in ("path", "secret") else text.strip()
    if kind == "choice":
        if text not in metadata["choices"]:
            raise ValueError
        return text
    value = _READERS[kind](text)
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError("too small" if low is not None and value < low else "too large")
    return value


def write(metadata: Mapping[str, Any], value: Any) -> str:
    """Write one setting's value as YAML that is read back to it, but for a secret."""
    if value is None:
        return "null"
    if isinstance(value, tuple):
        written = (write(metadata, one) for one in value)
        return f"[{', '.join(one if _PLAIN.fullmatch(one) else json.dumps(one) for one in written)}]"
    if isinstance(value, bool):
        return str(value).lower()
    return {"size": write_size, "duration": write_duration, "number": write_number}.get(metadata["kind"], str)(value)


def accepted(metadata: Mapping[str, Any]) -> str:
    """Say in words what a setting takes; of a list, what an element is."""
    kind, low, high = metadata["kind"], metadata["low"], metadata["high"]
    words = {
        "size": "a size like 64MiB",
        "duration": "a duration like 30s or 1m30s",
        "count": "a whole number",
        "number": "a number",
        "address": "an address like 127.0.0.1:4317, with a port from 0 to 65535",
        "path": "a path",
        "route": "a path like /v1/traces",
        "origin": "an origin like https://app.example, or *",
        "header": "a header's name, or *",
        "switch": "true or false",
        "memory": "a size like 512MiB, a share like 50%, or auto",
        "choice": f"one of {', '.join(metadata['choices'])}",
        "name": "a name",
        "host": "a host like grafana.example.com, or *",
        "text": "a text",
        "header value": "a header's value, a secret best as ${env:NAME} or Bearer ${env:NAME}",
        "password": "a password, best as ${env:NAME}",
        "secret": f"a secret of at least {SECRET_CHARACTERS_MIN} characters, best as ${{env:NAME}}",
    }[kind]
    return words if low is None else f"{words} from {write(metadata, low)} to {write(metadata, high)}"


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "size": read_size,
    "duration": read_duration,
    "count": read_count,
    "number": read_number,
    "address": read_address,
    "memory": read_memory,
    "path": read_path,
    "route": read_route,
    "origin": read_origin,
    "header": read_header,
    "switch": read_switch,
    "name": read_name,
    "host": read_host,
    "text": read_text,
    "secret": read_secret,
    "header value": read_header_value,
    "password": read_password,
}
