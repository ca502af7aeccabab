"""How a key of the configuration is declared: as a field of a frozen dataclass, with its kind, default, range and meaning.

`config.py` declares the daemon's own keys with these, and every exporter its own, also one of another package. The loader
(`settings.py`) accepts exactly what is declared, and docs/configuration.md is made from it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


def setting(
    default: Any,
    kind: str,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    many: bool = False,
) -> Any:
    """Declare a key. `kind` is size, duration, count, number, address, memory, path, route, switch, choice,
    name, host, origin, header, text, password or secret.

    The first four have a range: `low` and `high` are inclusive. With `many` it is a list (a tuple) of that kind. A
    default of None may be null in a file, too; MISSING is for a key of a list's group that must be given.
    """
    metadata = {
        "kind": kind,
        "doc": doc,
        "low": low,
        "high": high,
        "choices": choices,
        "many": many,
        "optional": default is None,
    }
    return field(default=default, metadata=metadata)


def section(kind: type, doc: str, *, optional: bool = False) -> Any:
    """Declare a group of keys; an optional one may be null, which switches it off."""
    return field(default_factory=kind, metadata={"kind": "section", "type": kind, "doc": doc, "optional": optional})


def sections(kind: type, doc: str) -> Any:
    """Declare a list of groups of keys; none by default."""
    return field(default=(), metadata={"kind": "sections", "type": kind, "doc": doc, "many": False, "optional": False})


def headers(doc: str) -> Any:
    """Declare a mapping from names of headers, in lower case, to their values, which are secrets; none by default."""
    kind = {"kind": "headers", "low": None, "high": None, "choices": (), "many": False, "optional": False}
    return field(default_factory=dict, metadata={**kind, "doc": doc})


@dataclass(frozen=True, slots=True)
class Naming:
    """How groups are named whose keys depend on their names."""

    shared: type
    """What all of them inherit."""
    find: Callable[[str], type | None]
    """Returns a name's group; None when there is none. Raises InvalidConfig for one that cannot be had."""
    known: Callable[[], list[str]]
    """Returns names that would be accepted, or begin one that is."""
    documented: tuple[str, ...]
    """Names for docs/configuration.md."""


def named(naming: Naming, doc: str) -> Any:
    """Declare groups of keys by names that the user chooses, NAME or NAME/ID; none by default. It is a mapping."""
    return field(
        default_factory=dict, metadata={"kind": "named", "type": naming, "doc": doc, "many": False, "optional": False}
    )
