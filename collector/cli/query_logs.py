"""`ringtail query logs`: lines that a LogQL query matches, or a metric query's numbers as a table."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlencode

import click

from collector.cli.connection import Client, as_client, at_endpoint, understood
from collector.cli.explained import explain_option, show, wanted
from collector.cli.partial import enveloped
from collector.cli.severity import coloured, level_column, level_of, number_of
from collector.cli.table import print_table
from collector.cli.terminal import escaped, escaped_json, moment
from collector.cli.times import from_now, seconds

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 5000
_BARE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/@+-")
"""Characters of values that are shown without quotes."""
_SHOWN_OTHERWISE: Final = frozenset(
    (
        *("service_name", "detected_level", "severity_text", "severity_number"),
        *("observed_timestamp", "flags", "dropped_attributes_count", "scope_name", "scope_version"),
    )
)
"""Labels that have a column of their own in lines, or that nobody looks for there."""


class Entry(NamedTuple):
    """One line. Time in Unix ns; `labels` name its stream, `metadata` is the rest."""

    time: int
    text: str
    labels: dict[str, str]
    metadata: dict[str, str]


@click.command(short_help="Show the lines that a LogQL query matches.")
@click.argument("logql", metavar="QUERY")
@click.option(
    "--limit", metavar="N", type=click.IntRange(1, LIMIT_MAX), default=LIMIT_DEFAULT, show_default=True, help="Lines."
)
@click.option("--since", metavar="DURATION", type=seconds, help="From so long ago on, like 15m; an hour by default.")
@click.option(
    "--start", metavar="TIME", type=from_now, default="", help="From then on: RFC 3339, Unix time, or now-15m."
)
@click.option("--end", metavar="TIME", type=from_now, default="", help="To before this time: now by default.")
@click.option("--step", metavar="DURATION", default="", help="Of a metric query: values over the range, so far apart.")
@click.option(
    "--direction",
    type=click.Choice(["backward", "forward"]),
    default="backward",
    show_default=True,
    help="Newest or oldest lines first.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["line", "raw", "json"]),
    default="line",
    show_default=True,
    help="Lines with time, level, service and labels; the text alone; or an object a line.",
)
@at_endpoint
@explain_option
@click.option("--json", "output", flag_value="json", help="The same as -o json.")
@as_client
def logs(
    client: Client,
    endpoint: str,
    logql: str,
    limit: int,
    since: float | None,
    start: str,
    end: str,
    step: str,
    direction: str,
    output: str,
    explain: bool,
) -> None:
    """Show the lines that a LogQL query matches: '{service_name="shop"} |= "refused"'."""
    given = {"query": logql, "since": "" if since is None else f"{since:.9f}", "start": start, "end": end}
    parameters = {name: text for name, text in given.items() if text}
    path = "/loki/api/v1/query_range"
    if not _is_metric(logql):
        parameters |= {"limit": str(limit), "direction": direction}
    elif step:
        parameters["step"] = step
    else:
        path = "/loki/api/v1/query"
        parameters = {"query": logql} | ({"time": end} if end else {})
    if wanted(explain):
        show(client, endpoint, "logql", parameters, as_json=output == "json")
        return
    headers = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
    answer = enveloped(client, endpoint, f"{path}?{urlencode(parameters)}", headers)
    with understood(endpoint, path):
        data = answer["data"]
        if data["resultType"] == "streams":
            _show_lines(_entries(data["result"], newest_first=direction == "backward"), output)
        else:
            _show_numbers(data, output)


def _is_metric(query: str) -> bool:
    """Tell a query of numbers from one of lines; what is neither is for the daemon to refuse."""
    from collector.errors import InvalidQuery
    from collector.query.logql.ast import LogQuery
    from collector.query.logql.parser import parse

    try:
        return not isinstance(parse(query), LogQuery)
    except InvalidQuery:
        return False


# --- lines ------------------------------------------------------------------------------------------------------


def _entries(streams: list[dict[str, Any]], *, newest_first: bool) -> list[Entry]:
    """Return the lines of all streams in one order."""
    found = []
    for stream in streams:
        labels = stream["stream"]
        for time, text, *rest in stream["values"]:
            kinds = rest[0] if rest else {}
            found.append(
                Entry(int(time), text, labels, {**kinds.get("structuredMetadata", {}), **kinds.get("parsed", {})})
            )
    return sorted(found, key=lambda one: one.time, reverse=newest_first)


def _show_lines(entries: list[Entry], output: str) -> None:
    if not entries:
        click.echo("no line matches", err=True)
        return
    if output == "json":
        for one in entries:
            shown = {"timeUnixNano": str(one.time), "line": one.text, "labels": one.labels, "metadata": one.metadata}
            click.echo(escaped_json(json.dumps(shown, ensure_ascii=False)))
        return
    if output == "raw":
        for one in entries:
            click.echo(coloured(escaped(one.text), number_of(_level(one))))
        return
    common = _common(entries) if len(entries) > 1 else {}
    if common:
        click.echo(click.style(f"in all lines: {_pairs(common)}", dim=True), err=True)
    for one in entries:
        click.echo(_line(one, common))


def _line(one: Entry, common: dict[str, str]) -> str:
    number = number_of(_level(one))
    level = escaped(level_of(number, one.metadata.get("severity_text", "")))
    others = {name: text for name, text in _others(one).items() if name not in common}
    parts = [
        click.style(moment(one.time), dim=True),
        level_column(level, number),
        click.style(escaped(one.labels.get("service_name", "")) or "-", fg="cyan"),
        coloured(escaped(one.text), number),
    ]
    if others:
        parts.append(click.style(_pairs(others), dim=True))
    return "  ".join(parts)


def _level(one: Entry) -> str:
    return one.metadata.get("detected_level", "") or one.labels.get("detected_level", "")


def _others(one: Entry) -> dict[str, str]:
    """Return the labels without a column of their own."""
    both = {**one.labels, **one.metadata}
    return {name: both[name] for name in sorted(both) if name not in _SHOWN_OTHERWISE}


def _common(entries: list[Entry]) -> dict[str, str]:
    """Return what all lines have alike: told once."""
    common = _others(entries[0])
    for one in entries[1:]:
        others = _others(one)
        common = {name: text for name, text in common.items() if others.get(name) == text}
    return common


def _pairs(labels: dict[str, str]) -> str:
    """Write labels as `a=b c="d e"`, escaped."""
    return " ".join(f"{escaped(name)}={_quoted(text)}" for name, text in labels.items())


def _quoted(text: str) -> str:
    return text if text and _BARE.issuperset(text) else escaped_json(json.dumps(text, ensure_ascii=False))


# --- numbers ----------------------------------------------------------------------------------------------------


def _show_numbers(data: dict[str, Any], output: str) -> None:
    """Show the series of a metric query: a row for each value."""
    kind, result = data["resultType"], data["result"]
    if kind == "scalar":
        result = [{"metric": {}, "value": result}]
    if output == "json":
        for one in result:
            click.echo(escaped_json(json.dumps(one, ensure_ascii=False)))
        return
    if not result:
        click.echo("no series", err=True)
        return
    names = sorted({name for one in result for name in one["metric"]})
    rows = [
        (*([_time(at)] if kind == "matrix" else []), *(one["metric"].get(name, "") for name in names), str(value))
        for one in result
        for at, value in (one["values"] if kind == "matrix" else [one["value"]])
    ]
    if kind == "matrix":
        rows.sort(key=lambda row: row[0])
    print_table((*(["time (UTC)"] if kind == "matrix" else []), *names, ">value"), rows)


def _time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"
