"""`ringtail backup` and `ringtail restore`: what collector/moving/ does for them, and how far it is."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from collector.cli.running import load, with_settings
from collector.cli.table import size
from collector.cli.terminal import escaped

if TYPE_CHECKING:
    from collections.abc import Callable

DAMAGED = 1
"""Exit status of `verify` when anything is damaged."""
WIDTH = 20
"""Of a bar, in characters."""
PACE_S = 0.2
"""Between two lines of progress."""

_DIRECTORY = click.Path(file_okay=False)


class _MakeByDefault(click.Group):
    """`ringtail backup DIR` is `ringtail backup make DIR`; a directory of a command's name is written ./NAME."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See click."""
        if args and args[0] not in self.commands and args[0] not in ("-h", "--help"):
            args = ["make", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_MakeByDefault, short_help="Back up the data directory, also of a running daemon.")
def backup() -> None:
    """Back up the data directory: ringtail backup DIR, also beside a running daemon.

    DIR is new. `ringtail backup make --help` tells the options.
    """


@backup.command(short_help="Make a backup in a new directory.")
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@click.option(
    "--earlier",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="An earlier backup: segments that it has are linked from there.",
)
@click.option("--copy", is_flag=True, help="Share no file with the data directory, although they could be hard links.")
@with_settings
def make(directory: str, earlier: str | None, copy: bool, files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Make a backup of wal.directory in DIR, which is new; one that was not finished is made again."""
    from collector import telemetry
    from collector.clock import SystemClock
    from collector.moving.backup import back_up
    from collector.wal.files import OperatingSystemFiles

    config = load(files, options)
    logger = telemetry.logger(telemetry.Level("warning"), "console")
    progress = Progress("backed up")
    done = back_up(
        config.wal.directory,
        directory,
        OperatingSystemFiles(),
        now_ns=SystemClock().now_ns(),
        logger=logger,
        earlier=earlier,
        link=not copy,
        tell=progress.add,
    )
    progress.end()
    for one in done.manifest.logs:
        name = f"{one.place}/{one.signal}" if one.place else one.signal
        damaged = f", {one.damaged} damaged ranges" if one.damaged else ""
        offsets = f"offsets {one.first_offset} to {one.end_offset}"
        click.echo(f"{escaped(name)}: {offsets}, {one.records} records{damaged}")
    parts = f"{size(done.kept)} of it in {earlier} already, " if earlier is not None else ""
    click.echo(
        f"{len(done.manifest.files)} files, {size(done.manifest.bytes)}: {parts}{size(done.linked)} linked, "
        f"{size(done.copied)} copied"
    )


@backup.command(short_help="Read all of a backup and check it.")
@click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))
def verify(directory: str) -> None:
    """Read all of a backup and check it; exit with 1 if anything is damaged or missing."""
    from collector.moving.restore import verify as verified
    from collector.wal.files import OperatingSystemFiles

    progress = Progress("read")
    made, problems = verified(directory, OperatingSystemFiles(), progress.add)
    progress.end()
    for problem in problems:
        click.echo(escaped(problem), err=True)
    summary = f"{len(made.files)} files, {made.records} records, {size(made.bytes)}"
    click.echo(f"{summary}: {len(problems)} damaged" if problems else f"{summary}: all is well")
    if problems:
        sys.exit(DAMAGED)


@click.command()
@click.argument("directory", metavar="BACKUP", type=click.Path(exists=True, file_okay=False))
@click.option("--no-cursors", is_flag=True, help="Let exporters begin anew, not where they were.")
@with_settings
def restore(directory: str, no_cursors: bool, files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Make wal.directory of a backup; it is missing or empty. The backup is verified first."""
    from collector.moving.restore import restore as restored
    from collector.wal.files import OperatingSystemFiles

    config = load(files, options)
    progress = Progress("verified")
    made = restored(directory, config.wal.directory, OperatingSystemFiles(), cursors=not no_cursors, tell=progress.add)
    progress.end()
    click.echo(f"{made.records} records, {size(made.bytes)} restored to {escaped(config.wal.directory)}")


class Progress:
    """A line on standard error that says how far a command is, where that is a terminal."""

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._what = what
        self._clock = clock
        self._shown = sys.stderr.isatty()
        self._next = 0.0
        # When, and where, the bar began: what an earlier run has done took no time.
        self._began: tuple[float, float] | None = None
        self._files = self._bytes = 0

    def add(self, _: Any, size_: int) -> None:
        """Another file is done."""
        self._files += 1
        self._bytes += size_
        self.tell(f"{self._what} {self._files} files, {size(self._bytes)}")

    def tell(self, text: str) -> None:
        """Show this instead of what is shown, if it is time to."""
        if self._shown and self._clock() >= self._next:
            self._next = self._clock() + PACE_S
            click.echo(f"\r\033[K{text}", nl=False, err=True)

    def bar(self, done: int, whole: int, text: str) -> None:
        """Show how much of it is done, how long the rest may take, and a text."""
        share = min(1.0, done / whole) if whole > 0 else 1.0
        now = self._clock()
        if self._began is None or share <= 0:
            self._began = now, share
        began, first = self._began
        left = (now - began) / (share - first) * (1 - share) if share > first else None
        rest = f", {duration(left)} left" if left is not None and share < 1 else ""
        self.tell(f"[{'#' * round(WIDTH * share):<{WIDTH}}] {share:4.0%} {text}{rest}")

    def end(self) -> None:
        """Make room for what comes next."""
        if self._shown:
            click.echo("\r\033[K", nl=False, err=True)


def duration(seconds: float) -> str:
    """Write a duration for people: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
