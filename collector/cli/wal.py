"""`ringtail wal`: a write-ahead log as text. Reads only, takes no lock, and works beside a running daemon."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path

import click

from collector.cli.table import print_table, size
from collector.cli.terminal import escaped, escaped_json

DAMAGED = 1
"""Exit status of `verify` when anything is damaged."""

_directory = click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False))


@click.group()
def wal() -> None:
    """Look into a write-ahead log, also beside a running daemon. DIR is wal.directory."""


@wal.command(short_help="List the segments of every signal.")
@_directory
def inspect(directory: str) -> None:
    """List the segments of every signal, the compacted ones with their size before."""
    from collector.wal.files import OperatingSystemFiles
    from collector.wal.inspect import inspect as facts

    rows = []
    for one in facts(directory, OperatingSystemFiles()):
        name = Path(one.path).name + (" (active)" if one.active else "")
        offsets = (str(one.base_offset), str(one.next_offset))
        before = "" if one.original_size is None else size(one.original_size)
        rows.append((one.signal, name, *offsets, str(one.records), size(one.size), before, one.index, one.keys))
    titles = ("signal", "segment", ">first offset", ">next offset", ">records", ">size", ">before", "index", "keys")
    print_table(titles, rows)


@wal.command(short_help="Read every frame and check it.")
@_directory
def verify(directory: str) -> None:
    """Read every frame and check it; exit with 1 if anything is damaged."""
    from collector.wal.files import OperatingSystemFiles
    from collector.wal.inspect import verify as report

    found = report(directory, OperatingSystemFiles())
    for note in found.notes:
        click.echo(f"note: {escaped(note)}")
    for problem in found.problems:
        click.echo(escaped(f"{problem.path}: {problem.text}"), err=True)
    summary = f"{found.segments} segments, {found.records} records, {size(found.bytes)} read"
    click.echo(f"{summary}: {len(found.problems)} damaged" if found.problems else f"{summary}: all is well")
    if found.problems:
        sys.exit(DAMAGED)


@wal.command()
@_directory
@click.option(
    "--signal", type=click.Choice(["traces", "logs", "metrics"]), default="traces", show_default=True, help="Whose log."
)
@click.option(
    "--from-offset", type=click.IntRange(0), default=0, show_default=True, help="Begin with the frame that holds it."
)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Frames to print at most.")
def cat(directory: str, signal: str, from_offset: int, limit: int) -> None:
    """Print frames as OTLP/JSON, one export request a line."""
    from collector.otlp.json.write import to_json
    from collector.otlp.signals import BY_NAME
    from collector.wal.files import OperatingSystemFiles
    from collector.wal.inspect import cat as frames

    for frame in frames(directory, BY_NAME[signal], from_offset, limit, OperatingSystemFiles()):
        click.echo(escaped_json(to_json(BY_NAME[signal], frame.payload).decode()))


@wal.command(short_help="List dead letters: what exporters were refused.")
@_directory
@click.option("--exporter", metavar="NAME", help="Of this exporter only, as the configuration names it.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="Letters to print at most.")
def letters(directory: str, exporter: str | None, limit: int) -> None:
    """List dead letters: records that exporters were refused for good, and why.

    They are logs themselves: `ringtail wal cat DIR/dead-letters/NAME` prints the records.
    """
    from collector.exporters.dead_letters import found
    from collector.wal.files import OperatingSystemFiles

    rows = []
    for name, signal, letter in found(directory, exporter, limit, OperatingSystemFiles()):
        note = letter.note
        where = (name, signal.name, str(letter.offset), str(letter.records))
        if note is None:
            rows.append((*where, "", "", "cannot be read"))
        else:
            offsets = f"{note.first_offset}..{note.end_offset}"
            when = f"{datetime.fromtimestamp(note.time_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
            rows.append((*where, offsets, when, escaped(note.reason)))
    print_table(("exporter", "signal", ">letter", ">records", ">offsets", "refused (UTC)", "reason"), rows)
