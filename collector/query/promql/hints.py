"""Which metrics a selector can be about, by their names in OTLP, for backends (otlp/asked.py).

Prometheus' names are made of words (translate.py): those of the metric's name, then its unit's, then `total` or `ratio`,
which are left out where they stood before, then what a histogram's series add. So the words of the name, without those
two, begin the words that are asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from collector.otlp.asked import NOTHING, Hints

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from collector.query.promql.ast import Matcher

_WORDS: Final = re.compile(r"[A-Za-z0-9:]+")
_MOVED: Final = frozenset(("total", "ratio"))


def hints_of(selectors: Iterable[Sequence[Matcher]], since_ns: int = 0) -> Hints:
    """Return what is certain of every point that one of the selectors is about, from a time on."""
    asked: list[list[str]] = []
    for matchers in selectors:
        texts = [one.value for one in matchers if one.name == "__name__" and one.op == "=" and one.value]
        if not texts or "target_info" in texts:
            return Hints(since_ns=since_ns) if since_ns else NOTHING
        asked.append(words_of(texts[0]))
    if not asked:
        return Hints(since_ns=since_ns) if since_ns else NOTHING

    def named(name: str) -> bool:
        words = words_of(name)
        return any(words == one[: len(words)] for one in asked)

    return Hints(named=named, since_ns=since_ns)


def words_of(name: str) -> list[str]:
    """Return the words of a name, without those that are moved to its end."""
    return [word for word in _WORDS.findall(name) if word not in _MOVED]
