"""A goal, what was measured, and whether that meets it: the rows that the reports of growth, log and soak end with."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks.machine import ROOT
from tests.benchmarks.report import update

PAGE = ROOT / "docs" / "benchmarks.md"
"""Where `--update-docs` writes, between the markers of each report."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One thing that was promised, and what came of it. `met` is None when nothing was promised of it."""

    what: str
    goal: str
    measured: str
    met: bool | None

    @classmethod
    def at_most(cls, what: str, measured: float, goal: float | None, unit: str, beside: str = "") -> Verdict:
        """Judge a figure that is to be at most so much; `beside` is told behind it."""
        told = f"{number(measured)} {unit}{f' ({beside})' if beside else ''}"
        if goal is None:
            return cls(what, "–", told, None)
        return cls(what, f"at most {number(goal)} {unit}", told, measured <= goal)

    @property
    def word(self) -> str:
        """The verdict for a table."""
        return {True: "met", False: "**missed**", None: "–"}[self.met]


def number(value: float) -> str:
    """Return a figure with three digits that say something."""
    for digits, low in ((0, 100), (1, 10), (2, 1)):
        if abs(value) >= low:
            return f"{value:,.{digits}f}"
    return f"{value:.3f}".rstrip("0").rstrip(".") or "0"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table whose first column is text and whose others are figures."""
    lines = [list(heads), ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def verdicts(found: Sequence[Verdict]) -> str:
    """Return the verdicts as a Markdown table."""
    return table(
        ("what", "goal", "measured", "verdict"), [[one.what, one.goal, one.measured, one.word] for one in found]
    )


def parser(module: str, text: str) -> argparse.ArgumentParser:
    """Return the options that every report has: `--short`, `--output` and `--update-docs`."""
    made = argparse.ArgumentParser(prog=f"python -m tests.benchmarks.{module}", description=text)
    made.add_argument("--short", action="store_true", help="a minute or two: shows that it works, and little more")
    made.add_argument(
        "--output", type=Path, default=ROOT / "build" / "benchmarks", help="directory for results and scratch files"
    )
    made.add_argument("--update-docs", action="store_true", help="put the tables into docs/benchmarks.md")
    return made


def publish(name: str, text: str, found: Sequence[Verdict], options: argparse.Namespace) -> int:
    """Print a report, write it with its verdicts as JSON, update the docs if asked; return how many goals are missed."""
    sys.stdout.write(text)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}.md").write_text(text)
    (options.output / f"{name}.json").write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    if options.update_docs:
        update([PAGE], text, (f"<!-- {name}:begin -->", f"<!-- {name}:end -->"))
    return sum(one.met is False for one in found)


def say(text: str) -> None:
    """Tell how far it is, beside the report."""
    print(text, file=sys.stderr, flush=True)
