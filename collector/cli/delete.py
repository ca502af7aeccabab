"""`ringtail delete`: records of a running daemon, by trace id or query, after they were counted."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlencode

import click

from collector.cli.connection import ANSWER_BYTES_MAX, Client, answer, as_client, at_endpoint, decoded, told, understood
from collector.cli.terminal import escaped
from collector.cli.times import from_now

PATH: Final = "/api/delete"
TIMEOUT_S: Final = 600.0
"""How long a daemon may look for what a query matches."""


@click.command(short_help="Delete traces, or what a query matches, for good.")
@click.argument("trace_ids", metavar="[TRACE_ID]...", nargs=-1)
@click.option(
    "--query",
    metavar="QUERY",
    help="What a TraceQL spanset, a LogQL selector with filters, or a PromQL selector matches.",
)
@click.option(
    "--signal", type=click.Choice(("traces", "logs", "metrics")), help="Of the query (traces); of traces, only that."
)
@click.option(
    "--from", "start", metavar="TIME", type=from_now, help="Of a query: from then on; RFC 3339, Unix time, or now-1h."
)
@click.option("--to", "end", metavar="TIME", type=from_now, help="Of a query: only records up to then.")
@click.option("--whole-traces", is_flag=True, help="Delete all of the traces that the query's matches are of.")
@click.option("--dry-run", is_flag=True, help="Only count.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@at_endpoint
@as_client
def delete(
    client: Client,
    trace_ids: tuple[str, ...],
    query: str | None,
    signal: str | None,
    start: str | None,
    end: str | None,
    whole_traces: bool,
    dry_run: bool,
    yes: bool,
    endpoint: str,
) -> None:
    """Delete traces with their log records, or what a query matches: for good, at once, in backends a little later.

    Wants the right to administer. What was exported elsewhere by OTLP, and what lies in backups, stays there.
    """
    if bool(trace_ids) == bool(query):
        raise click.UsageError("either trace ids or --query say what is deleted")
    asked: list[tuple[str, str]] = [("trace_id", one) for one in trace_ids]
    given = {"query": query, "signal": signal, "start": start, "end": end}
    asked += [(name, value) for name, value in given.items() if value]
    asked += [("whole_traces", "true")] if whole_traces else []
    if dry_run or not yes:
        found = _asked(client, endpoint, [*asked, ("dry_run", "true")])
        with understood(endpoint, PATH):
            click.echo(f"{_counted(found)} match")
        if dry_run:
            return
        click.confirm("Delete them for good?", abort=True)
    done = _asked(client, endpoint, asked)
    with understood(endpoint, PATH):
        backends = f"; being deleted from {', '.join(done['backends'])}, too" if done["backends"] else ""
        click.echo(escaped(f"{_counted(done)} deleted{backends}"))


def _counted(found: dict[str, Any]) -> str:
    nouns = {"traces": "spans", "logs": "log records", "metrics": "data points"}
    return ", ".join(f"{count} {nouns[name]}" for name, count in found["deleted"].items())


def _asked(client: Client, endpoint: str, asked: list[tuple[str, str]]) -> Any:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    body = urlencode(asked).encode()
    with answer(client, "POST", endpoint, PATH, body, kind, timeout_s=TIMEOUT_S) as response:
        said = response.read(ANSWER_BYTES_MAX)
    if response.status != 200:
        raise click.ClickException(told(endpoint, response.status, said))
    return decoded(endpoint, PATH, said)
