"""What stands behind the escapes of a JSON string, and of a quoted value of logfmt, as Loki reads them.

Bytes that are no character become a space. A JSON string with an escape that is none is read as empty.
"""

from __future__ import annotations

import re

_ESCAPE = re.compile(rb"""\\(?:u([0-9A-Fa-f]{4})|(["\\/'bfnrt])|)""")
_LETTERS = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_REPLACEMENT = "\ufffd"


def plain_text(raw: bytes) -> str:
    """Return the text of bytes without escapes."""
    return raw.decode("utf-8", "replace").replace(_REPLACEMENT, " ")


def json_text(raw: bytes) -> str:
    """Return the text of a JSON string; empty if an escape in it is none."""
    return _unescaped(raw, in_json=True)


def logfmt_text(raw: bytes) -> str:
    """Return the text of a quoted value of logfmt whose escapes are right."""
    return _unescaped(raw, in_json=False)


def _unescaped(raw: bytes, *, in_json: bool) -> str:
    pieces: list[bytes] = []
    at = 0
    for found in _ESCAPE.finditer(raw):
        if found.start() < at:
            continue  # the second half of a pair
        pieces.append(raw[at : found.start()])
        at = found.end()
        code, letter = found.groups()
        if letter is not None and not (in_json and letter == b"'"):
            pieces.append(_LETTERS.get(letter, letter))
        elif code is not None:
            number = int(code, 16)
            if 0xD800 <= number <= 0xDFFF:
                low = _second(raw[at : at + 6], in_json=in_json)
                paired = 0x10000 + ((number - 0xD800) << 10) + (low - 0xDC00)
                if in_json:  # as lenient, and as strict, as Loki's parser
                    if low < 0xDC00:
                        return ""
                    at += 6
                    number = paired
                elif number < 0xDC00 <= low <= 0xDFFF:
                    at += 6
                    number = paired
            pieces.append(_encoded(number))
        else:
            return ""
    pieces.append(raw[at:])
    return plain_text(b"".join(pieces))


def _second(raw: bytes, *, in_json: bool) -> int:
    """Return the number of the escape that should be the second half of a pair; -1 if it is none."""
    if len(raw) < 6 or (not in_json and raw[:2] != b"\\u"):
        return -1
    return int(raw[2:6], 16) if re.fullmatch(rb"[0-9A-Fa-f]{4}", raw[2:6]) else -1


def _encoded(number: int) -> bytes:
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
        return _REPLACEMENT.encode()
    return chr(number).encode()
