"""Dockerfiles as data: as much of their syntax as ours use, and the rules of .dockerignore files.

There is no Docker engine where the tests run, so what a build would do is read out of the file and, in `test_image.py`,
done.
"""

from __future__ import annotations

import fnmatch
import json
import re
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Instruction:
    """One instruction, with its arguments as written, continuation lines joined."""

    name: str
    text: str

    @property
    def words(self) -> list[str]:
        """The arguments, of an exec form or separated by spaces, without `--options`."""
        if self.text.startswith("["):
            return list(json.loads(self.text))
        return [word for word in self.text.split() if not word.startswith("--")]

    def option(self, name: str) -> str | None:
        """The value of `--name=value`."""
        match = re.search(rf"(?:^|\s)--{name}=(\S+)", self.text)
        return match[1] if match else None


@dataclass
class Stage:
    """One build stage: its base image, its name if it has one, and what it does."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """The instructions of one name."""
        return [one for one in self.instructions if one.name == name]

    def one(self, name: str) -> Instruction:
        """The only instruction of a name."""
        (found,) = self.all(name)
        return found


def stages(path: Path) -> list[Stage]:
    """Read a Dockerfile."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[Stage] = []
    for logical in re.sub(r"\\\n", " ", "\n".join(lines)).splitlines():
        if not logical.strip():
            continue
        name, _, text = logical.strip().partition(" ")
        text = " ".join(text.split())
        if name == "FROM":
            base, _, alias = text.partition(" AS ")
            found.append(Stage(base, alias or None))
        else:
            found[-1].instructions.append(Instruction(name, text))
    return found


def context_files(root: Path, ignore: Path) -> list[str]:
    """The files under `root` that a build sees, as relative paths: the last rule that matches a path decides."""
    rules = [line.strip() for line in ignore.read_text().splitlines() if line.strip() and not line.startswith("#")]

    def excluded(path: str) -> bool:
        parents = path.split("/")
        prefixes = ["/".join(parents[: i + 1]) for i in range(len(parents))]
        decided = False
        for rule in rules:
            pattern = rule.removeprefix("!")
            if any(_matches(prefix, pattern) for prefix in prefixes):
                decided = not rule.startswith("!")
        return decided

    tops = {rule.removeprefix("!").split("/")[0] for rule in rules if rule.startswith("!")}
    files = []
    for top in sorted(tops):
        base = root / top
        files += [base] if base.is_file() else [path for path in base.rglob("*") if path.is_file()]
    return sorted(name for path in files if not excluded(name := path.relative_to(root).as_posix()))


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatchcase(path.split("/")[-1], pattern[3:])
    return path.count("/") == pattern.count("/") and fnmatch.fnmatchcase(path, pattern)
