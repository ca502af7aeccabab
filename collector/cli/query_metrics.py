"""`ringtail query metrics`: what a PromQL query makes, at a time as a table, over a range as sparklines.

A program that reads the output gets lines of a range instead: time, labels and value, with tabs between. Times are asked for
in Unix ms, for Prometheus' API does not read ns.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import click

from collector.cli.connection import Client, as_client, at_endpoint, understood
from collector.cli.explained import explain_option, show, wanted
from collector.cli.partial import enveloped
from collector.cli.sparkline import ASCII, UNICODE, cells, scale, short, sparkline
from collector.cli.table import print_table
from collector.cli.terminal import can_show, columns, escaped, escaped_json, fitted, moment, width
from collector.cli.times import milliseconds, seconds
from collector.clock import SystemClock

LIMIT_PICTURE: Final = 20
"""Series of a picture, when nothing else is said."""
LIMIT_MAX: Final = 100_000
PICTURE_SHARE: Final = 0.4
"""Of a line: the part for the sparkline. The rest is for labels and three numbers."""
LABELS_WIDTH_MIN: Final = 10
STEP_MIN_MS: Final = 1000
"""The shortest step that is not asked for."""

Values = list[tuple[int, str]]


class Series(NamedTuple):
    """One series: its labels, and its values with their times in Unix ms."""

    labels: dict[str, str]
    values: Values


class Range(NamedTuple):
    """When values are asked for, in Unix ms: at `end`, and back from there step by step to `start`."""

    start: int
    end: int
    step: int

    @property
    def points(self) -> int:
        """How many times there are."""
        return (self.end - self.start) // self.step + 1


@click.command(short_help="Show the values that a PromQL query makes.")
@click.argument("promql", metavar="[QUERY]", default="")
@click.option(
    "--at", metavar="TIME", type=milliseconds, help="The time: RFC 3339, Unix time, or now-15m; now by default."
)
@click.option(
    "--since", metavar="DURATION", type=seconds, help="Instead, a range of time that began so long ago, like 15m."
)
@click.option(
    "--until", metavar="TIME", type=milliseconds, help="The end of that range, which began --since before it."
)
@click.option(
    "--step", metavar="DURATION", type=seconds, help="Between its values; by default what makes a good picture."
)
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, LIMIT_MAX),
    help=f"Series to show; {LIMIT_PICTURE} of a picture by default, and all of anything else.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "lines", "json"]),
    help="For people; time, labels and value with tabs between; or an object a series. "
    "By default a table, but lines of a range if no terminal shows it.",
)
@at_endpoint
@explain_option
@click.option("--json", "output", flag_value="json", help="The same as -o json.")
@as_client
def metrics(
    client: Client,
    endpoint: str,
    promql: str,
    at: int | None,
    since: float | None,
    until: int | None,
    step: float | None,
    limit: int | None,
    output: str | None,
    explain: bool,
) -> None:
    """Show the values that a PromQL query makes: 'sum by (job) (rate(shop_orders_total[5m]))'. Without one, list metrics."""
    if since is None and (until is not None or step is not None):
        raise click.UsageError("--until and --step are of a range: say with --since how long it is")
    if since is not None and at is not None:
        raise click.UsageError("is it one time (--at), or a range (--since, --until)?")
    over = None if since is None else _range(since, until, step)
    if not promql:
        if over or at is not None or wanted(explain):
            raise click.UsageError("the query is missing; without one, only metrics are listed")
        _list(client, endpoint, limit, output)
        return
    path, parameters = "/api/v1/query", {"query": promql}
    if over:
        path = "/api/v1/query_range"
        parameters |= {"start": _decimal(over.start), "end": _decimal(over.end), "step": _decimal(over.step)}
    elif at is not None:
        parameters["time"] = _decimal(at)
    if wanted(explain):
        show(client, endpoint, "promql", parameters, as_json=output == "json")
        return
    answer = enveloped(client, endpoint, f"{path}?{urlencode(parameters)}")
    with understood(endpoint, path):
        kind, result = answer["data"]["resultType"], answer["data"]["result"]
        if kind in ("scalar", "string"):
            result = [{"metric": {}, "value": result}]
        if not result:
            click.echo("no series", err=True)
        elif output == "json":
            _print_objects(result, limit)
        else:
            _print(kind, [_series(one) for one in result], over, limit, output)


def _range(since: float, until: int | None, step: float | None) -> Range:
    """Return the range that is asked about. Its last time is the end, so that the newest value is shown."""
    end = SystemClock().now_ns() // 1_000_000 if until is None else until
    length = min(round(since * 1000), end)  # there is nothing before 1970
    if step is None:
        gaps = _picture_width() - 1
        step_ms = max(STEP_MIN_MS, math.ceil(length / gaps / 1000) * 1000)
    else:
        step_ms = round(step * 1000)
        if not step_ms:
            raise click.BadParameter("a step is a millisecond or longer", param_hint="--step")
    return Range(end - length // step_ms * step_ms, end, step_ms)


def _picture_width() -> int:
    return int(width() * PICTURE_SHARE)


def _decimal(thousandths: int) -> str:
    """Write ms in seconds."""
    return f"{thousandths // 1000}.{thousandths % 1000:03d}"


def _series(one: dict[str, Any]) -> Series:
    values = one["values"] if "values" in one else [one["value"]]
    labels = {str(name): str(text) for name, text in one["metric"].items()}
    return Series(labels, [(round(at * 1000), str(value)) for at, value in values])


# --- what is printed --------------------------------------------------------------------------------------------


def _print(kind: str, found: list[Series], over: Range | None, limit: int | None, output: str | None) -> None:
    """Print an answer for people, or for programs."""
    if output == "lines" or (output is None and over and not sys.stdout.isatty()):
        for one in found[:limit]:
            series = _written(one.labels)
            for at, value in one.values:
                click.echo(f"{_rfc3339(at)}\t{series}\t{escaped(value)}")
        _print_rest(len(found), limit, err=True)
    elif over:
        limit = limit or LIMIT_PICTURE
        for line in _picture(found[:limit], over):
            click.echo(line)
        _print_rest(len(found), limit)
    elif kind in ("scalar", "string"):
        click.echo(escaped(found[0].values[0][1]))
    elif kind == "matrix":
        for one in found[:limit]:
            click.echo(_written(one.labels))
            for at, value in one.values:
                click.echo(f"  {click.style(moment(at * 1_000_000), dim=True)}  {escaped(value)}")
        _print_rest(len(found), limit)
    else:
        print_table(("series", ">value"), [(_written(one.labels), one.values[0][1]) for one in found[:limit]])
        _print_rest(len(found), limit)


def _print_objects(objects: list[dict[str, Any]], limit: int | None) -> None:
    for one in objects[:limit]:
        click.echo(escaped_json(json.dumps(one, ensure_ascii=False)))
    _print_rest(len(objects), limit, err=True)


def _print_rest(count: int, limit: int | None, *, what: str = "series", err: bool = False) -> None:
    """Say how many are not shown."""
    if limit is not None and count > limit:
        click.echo(click.style(f"… and {count - limit} more {what}", dim=True), err=err)


def _picture(found: list[Series], over: Range) -> list[str]:
    """Return the lines of a picture: a head, and each series with its sparkline, lowest, last and highest value."""
    shared = _shared(found)
    each = -(-over.points // _picture_width())
    numbers = [[float(value) for _, value in one.values] for one in found]
    within = scale(value for values in numbers for value in values)
    signs = UNICODE if can_show(UNICODE) else ASCII
    drawn = []
    for one, values in zip(found, numbers, strict=True):
        places = (round((at - over.start) / over.step) for at, _ in one.values)
        points = zip(places, values, strict=True)
        drawn.append(sparkline(cells(points, -(-over.points // each), each), within, signs))
    figures = [("min", "last", "max"), *map(_figures, numbers)]
    widths = [max(map(len, column)) for column in zip(*figures, strict=True)]
    written = [_written({name: text for name, text in one.labels.items() if name not in shared}) for one in found]
    room = max(LABELS_WIDTH_MIN, width() - len(drawn[0]) - sum(widths) - 2 * (1 + len(widths)))
    labels = [fitted(text, room).rstrip() for text in written]
    above = len(set(labels)) < len(labels)  # what tells some of them apart would be cut off
    if above:
        labels = [""] * len(written)
    room = max(map(columns, ("series", *labels)))  # no more than the widest of them needs
    rows = [
        "  ".join((fitted(text, room), line, *(cell.rjust(size) for cell, size in zip(row, widths, strict=True))))
        for text, line, row in zip(("series", *labels), (" " * len(drawn[0]), *drawn), figures, strict=True)
    ]
    if above:
        rows[1:] = [line for pair in zip(written, rows[1:], strict=True) for line in pair]
    return [*_head(over, each, shared), *rows]


def _head(over: Range, each: int, shared: dict[str, str]) -> Iterator[str]:
    """Yield what is told once."""
    from collector.quantities import write_duration

    start, end = (moment(time * 1_000_000)[:19] for time in (over.start, over.end))
    head = f"{start} to {end} (UTC), step {write_duration(over.step / 1000)}"
    yield click.style(head + (f", a sign is the highest of {each} values" if each > 1 else ""), dim=True)
    if shared:
        yield click.style(f"in all series: {_written(shared)}", dim=True)


def _shared(found: list[Series]) -> dict[str, str]:
    """Return what all of several series have alike, told once: where lines are narrow, it is in the way of what they have not."""
    if len(found) < 2:
        return {}
    first, *others = (one.labels for one in found)
    return {name: text for name, text in first.items() if all(other.get(name) == text for other in others)}


def _figures(values: list[float]) -> tuple[str, str, str]:
    known = [value for value in values if not math.isnan(value)]
    return short(min(known, default=math.nan)), short(values[-1]), short(max(known, default=math.nan))


def _written(labels: dict[str, str]) -> str:
    """Write a series as PromQL does, escaped: `up{job="shop"}`."""
    from collector.query.promql.ast import Matcher, VectorSelector

    return escaped(VectorSelector(tuple(Matcher(name, "=", labels[name]) for name in sorted(labels))).selector_text())


def _rfc3339(at: int) -> str:
    return f"{moment(at * 1_000_000).replace(' ', 'T')}Z"


# --- metrics ----------------------------------------------------------------------------------------------------


def _list(client: Client, endpoint: str, limit: int | None, output: str | None) -> None:
    """List the metrics that memory holds, with type, unit and help."""
    path = "/api/v1/metadata"
    answer = enveloped(client, endpoint, path)
    with understood(endpoint, path):
        rows = [
            (str(name), *(str(one.get(part, "")) for part in ("type", "unit", "help")))
            for name, meanings in answer["data"].items()
            for one in meanings
        ]
    if not rows:
        click.echo("no metric is held in memory", err=True)
        return
    heads = ("metric", "type", "unit", "help")
    if output == "json":
        for row in rows[:limit]:
            click.echo(escaped_json(json.dumps(dict(zip(heads, row, strict=True)), ensure_ascii=False)))
    elif output == "lines":
        for row in rows[:limit]:
            click.echo("\t".join(map(escaped, row)))
    else:
        print_table(heads, rows[:limit])
    _print_rest(len(rows), limit, what="metrics", err=output in ("json", "lines"))
