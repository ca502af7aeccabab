"""Golden text scripts: commands, what they print, and one switch that writes the second part anew.

A script is a text file of blocks. A block is command lines, a line `---`, and the output of the commands up to an
empty line. Lines that begin with `#` are comments and stay where they are; so do empty lines between blocks:

```
# Records are numbered from 0.
append 3
append 2
---
0..3
3..5
```

A command is a name, arguments, and options as `key=value`, quoted as in a shell. The test gives a function from
Command to output. A cause from `collector.errors` becomes a line `error: Name: message`; no output becomes `ok`;
output with empty lines in it is written with `> ` before each line.

`RINGTAIL_GOLDEN=1 pytest` (`make golden`) rewrites the outputs of all scripts that run; `git diff` is the review.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from collector.errors import RingtailError

SCRIPTS = Path(__file__).parent / "scripts"
SEPARATOR = "---"


@dataclass(frozen=True, slots=True)
class Command:
    """One line of a script. `argument`, `number` and `option` raise AssertionError that names the line."""

    line: int
    name: str
    arguments: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    def argument(self, at: int) -> str:
        """The argument at this place, from 0."""
        assert at < len(self.arguments), f"line {self.line}: {self.name} wants at least {at + 1} arguments"
        return self.arguments[at]

    def number(self, at: int) -> int:
        """The argument at this place as an integer."""
        return int(self.argument(at))

    def option(self, key: str, default: int) -> int:
        """The option as an integer."""
        return int(self.options.get(key, default))


Run = Callable[[Command], str | Iterable[str] | None]


def scripts(room: str) -> list[Path]:
    """The scripts under tests/scripts/<room>, for `pytest.mark.parametrize("path", ..., ids=script_id)`."""
    found = sorted((SCRIPTS / room).glob("*.txt"))
    assert found, f"no scripts for {room}"
    return found


def script_id(path: Path) -> str:
    """A script's name in test reports."""
    return path.stem


def check(path: Path, run: Run) -> None:
    """Run a script and compare, or rewrite it under RINGTAIL_GOLDEN."""
    expected = path.read_text()
    actual = execute(expected, run)
    if os.environ.get("RINGTAIL_GOLDEN"):
        path.write_text(actual)
    else:
        assert actual.splitlines() == expected.splitlines(), f"{path.name}: see the module docstring of goldenscript"


def execute(text: str, run: Run) -> str:
    """The script with the outputs that `run` gives now."""
    written: list[str] = []
    commands: list[Command] = []
    in_output = False
    for number, line in enumerate(text.splitlines(), 1):
        if in_output:
            in_output = bool(line.strip())
            if in_output:
                continue
        if line == SEPARATOR:
            assert commands, f"line {number}: no command before {SEPARATOR}"
            written += [line, *_output(commands, run)]
            commands = []
            in_output = True
            continue
        written.append(line)
        if line.strip() and not line.startswith("#"):
            commands.append(parse(line, number))
    assert not commands, f"line {commands[0].line}: no {SEPARATOR} after {commands[0].name}"
    return "\n".join(written) + "\n"


def parse(line: str, number: int = 0) -> Command:
    """One command line."""
    name, *words = shlex.split(line)
    options = dict(word.split("=", 1) for word in words if "=" in word)
    return Command(number, name, [word for word in words if "=" not in word], options)


def _output(commands: list[Command], run: Run) -> list[str]:
    lines: list[str] = []
    for command in commands:
        try:
            result = run(command)
        except RingtailError as error:
            result = f"error: {type(error).__name__}: {error}"
        lines += result.splitlines() if isinstance(result, str) else (result or ())
    if any(not line.strip() for line in lines):
        lines = [f"> {line}" for line in lines]
    return lines or ["ok"]
