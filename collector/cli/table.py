"""Text tables and figures for people."""

from __future__ import annotations

from collections.abc import Sequence

import click

from collector.cli.terminal import escaped


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under heads; a head that begins with `>` aligns its column to the right."""
    names = [head.removeprefix(">") for head in heads]
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(names, *rows, strict=True)]
    for row in (names, *rows):
        cells = (
            cell.rjust(width) if head.startswith(">") else cell.ljust(width)
            for head, cell, width in zip(heads, row, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def size(count: float) -> str:
    """Write a number of bytes to one decimal."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
