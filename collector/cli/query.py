"""`ringtail query`: questions in the query languages, answered as tables."""

from __future__ import annotations

from urllib.parse import urlencode

import click

from collector.cli.connection import Client, as_client, asked, at_endpoint, decoded, understood
from collector.cli.explained import explain_option, show, wanted
from collector.cli.partial import lacking, tell, tell_of_more
from collector.cli.query_logs import logs
from collector.cli.query_metrics import metrics
from collector.cli.table import print_table
from collector.cli.terminal import duration, escaped_json, moment
from collector.cli.times import seconds
from collector.clock import SystemClock


class _Languages(click.Group):
    """Its commands are signals: tells who names none of them what is missing."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command."""
        if args and self.get_command(ctx, args[0]) is None:
            quoted = "'{ status = error }'"
            raise click.UsageError(
                f"say first what is asked about: ringtail query traces {quoted}, or query logs …, or query metrics …",
                ctx,
            )
        return super().resolve_command(ctx, args)


@click.group(cls=_Languages)
@click.option("--explain", is_flag=True, help="Run the query, and tell how it was answered instead.")
@click.pass_context
def query(ctx: click.Context, explain: bool) -> None:
    """Ask a running daemon, in the language of the signal."""
    ctx.obj = explain


query.add_command(logs)
query.add_command(metrics)


@query.command(short_help="Show the newest traces that a TraceQL query matches.")
@click.argument("traceql", metavar="[QUERY]", default="{}")
@click.option("--limit", metavar="N", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Traces.")
@click.option("--since", metavar="DURATION", type=seconds, help="Only spans that began so long ago at most, like 15m.")
@at_endpoint
@explain_option
@click.option("--json", "as_json", is_flag=True, help="Print /api/search, or /api/explain, as it is.")
@as_client
def traces(
    client: Client, endpoint: str, traceql: str, limit: int, since: float | None, explain: bool, as_json: bool
) -> None:
    """Show the newest traces with a span that a TraceQL query matches: '{ status = error }'."""
    parameters = {"q": traceql, "limit": str(limit)}
    if since is not None:
        parameters["start"] = f"{SystemClock().now_ns() / 1e9 - since:.3f}"
    if wanted(explain):
        show(client, endpoint, "traceql", parameters, as_json=as_json)
        return
    path = f"/api/search?{urlencode(parameters)}"
    body = asked(client, endpoint, path)
    with understood(endpoint, path):
        answer = decoded(endpoint, path, body)
        tell(lacking(answer.get("metrics", {}), "spans"))
        if as_json:
            click.echo(escaped_json(body.decode("utf-8", "replace")))
        else:
            _print([_row(one) for one in answer["traces"]])
        if answer.get("nextCursor"):
            tell_of_more("there may be more traces: see --limit")


def _print(rows: list[tuple[str, ...]]) -> None:
    if not rows:
        click.echo("no trace matches", err=True)
        return
    print_table(("started (UTC)", "trace", "service", "root", ">duration", ">spans", ">errors", ">matching"), rows)


def _row(one: dict[str, object]) -> tuple[str, ...]:
    stats = one.get("serviceStats")
    services = stats.values() if isinstance(stats, dict) else ()
    matching = one["spanSet"]["matched"]  # type: ignore[index]  # TypeError means that it is something else
    return (
        moment(int(str(one["startTimeUnixNano"]))),
        str(one["traceID"]),
        str(one["rootServiceName"]),
        str(one["rootTraceName"]),
        duration(int(str(one["durationMs"])) * 1_000_000),
        str(sum(service["spanCount"] for service in services)),
        str(sum(service.get("errorCount", 0) for service in services)),
        str(matching),
    )
