"""Texts for the targets that read texts: bytes to text, and the words of sample queries as a dictionary."""

from __future__ import annotations

import re
from collections.abc import Iterable


def text_of(data: bytes) -> str:
    """Return bytes as text: lone surrogates are let through, other bytes that are no UTF-8 are replaced."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")


def pieces(queries: Iterable[str]) -> tuple[bytes, ...]:
    """Return the words and operators of these texts, each once."""
    found = {piece for query in queries for piece in re.findall(r"\w+|[^\w\s]+", query)}
    return tuple(sorted(piece.encode() for piece in found if 1 < len(piece) < 30))
