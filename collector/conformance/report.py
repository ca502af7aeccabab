"""Telling what came of the checks: lines and a score for people, JSON for machines."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from collector.conformance.check import Level, Result, Verdict

_TITLE_WIDTH: Final = 68


def word(result: Result) -> str:
    """Return the verdict in a word: an option that is not taken is no fault."""
    if result.verdict is Verdict.FAIL:
        return "no" if result.check.level is Level.MAY else "FAIL"
    return result.verdict.value


def line(result: Result) -> str:
    """Return one aligned line, and two more when something is wrong."""
    check = result.check
    text = f"{check.number:>4}  {check.level.value:<6}  {word(result):<4}  {check.title:<{_TITLE_WIDTH}}  {result.seen}"
    if word(result) == "FAIL":
        pad = " " * 20
        text += f"\n{pad}sent:     {check.sent}\n{pad}expected: {check.expected}\n{pad}seen:     {result.seen}"
    return text


def score(results: Iterable[Result]) -> dict[Level, dict[Verdict, int]]:
    """Count verdicts by level."""
    counts = {level: dict.fromkeys(Verdict, 0) for level in Level}
    for one in results:
        counts[one.check.level][one.verdict] += 1
    return counts


def score_line(level: Level, counts: Mapping[Verdict, int]) -> str:
    """Return the score of a level in words."""
    made = counts[Verdict.PASS] + counts[Verdict.FAIL]
    what = "options taken" if level is Level.MAY else "passed"
    skipped = f", {counts[Verdict.SKIP]} skipped" if counts[Verdict.SKIP] else ""
    return f"{level.value:<6}  {counts[Verdict.PASS]} of {made} {what}{skipped}"


def failed(results: Iterable[Result]) -> bool:
    """Tell whether a MUST was failed."""
    return any(one.verdict is Verdict.FAIL and one.check.level is Level.MUST for one in results)


def plain(results: Sequence[Result]) -> dict[str, Any]:
    """Return everything as JSON has it."""
    counts = score(results)
    return {
        "checks": [one.plain() for one in results],
        "score": {level.value: {verdict.value: count for verdict, count in counts[level].items()} for level in Level},
        "conformant": not failed(results),
    }
