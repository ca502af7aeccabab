"""What a check is: a line of OTLP's rules, its level, and a function that returns what it saw.

A function passes by returning, and fails by raising `Failed`, each with what was seen; `Skipped` says why there is
nothing to see. An option (MAY) that a server does not take is no fault: it is told as `no`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collector.conformance.target import Target


class Level(StrEnum):
    """How much a rule demands, in the words of RFC 2119."""

    MUST = "MUST"
    SHOULD = "SHOULD"
    MAY = "MAY"


class Verdict(StrEnum):
    """What became of a check."""

    PASS = "pass"  # noqa: S105 - a verdict
    FAIL = "fail"
    SKIP = "skip"


class Failed(Exception):
    """The server does not do what the check expects; the text is what was seen."""


class Skipped(Exception):
    """The check cannot be made here; the text is why."""


class NoAnswer(Failed):
    """The connection ended, or time ran out, before there was a whole answer."""


Run = Callable[["Target"], str]


@dataclass(frozen=True, slots=True)
class Check:
    """One black-box check."""

    number: str
    """The line of the list, and a letter: `24b`. Facts about exporters have letters only in front: `C3`."""
    level: Level
    title: str
    """The rule, as a sentence about the server."""
    sent: str
    expected: str
    needs: tuple[str, ...]
    """Of `grpc`, `http`, `query` (a query API) and `server` (one that the kit has started)."""
    run: Run

    @property
    def line(self) -> str:
        """The line of the list: `24` of `24b`."""
        return self.number.rstrip("abcdefghijklmnopqrstuvwxyz")


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one check."""

    check: Check
    verdict: Verdict
    seen: str

    def plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        check = self.check
        return {
            "number": check.number,
            "level": check.level.value,
            "title": check.title,
            "verdict": self.verdict.value,
            "sent": check.sent,
            "expected": check.expected,
            "seen": self.seen,
        }


class Section:
    """A part of the list, with its checks in their order."""

    def __init__(self, title: str, *parts: Section) -> None:
        """Begin with the checks of `parts`, if the section stands in several files."""
        self.title = title
        self.checks: list[Check] = [one for part in parts for one in part.checks]

    def check(
        self, number: str, level: Level, title: str, *, sent: str, expected: str, needs: tuple[str, ...]
    ) -> Callable[[Run], Run]:
        """Add a function as a check."""

        def add(run: Run) -> Run:
            self.checks.append(Check(number, level, title, sent, expected, needs, run))
            return run

        return add


def require(holds: object, seen: str) -> None:
    """Fail with what was seen unless the condition holds."""
    if not holds:
        raise Failed(seen)
