"""`ringtail trace`: one trace as a waterfall, with its log lines if asked, or as OTLP/JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

import click

from collector.cli.connection import Client, as_client, asked, asked_if_held, at_endpoint, decoded, understood
from collector.cli.partial import lacking, tell, tell_of_more
from collector.cli.severity import coloured, level_column, level_of, number_of
from collector.cli.terminal import can_show, escaped, escaped_json, moment, width

if TYPE_CHECKING:
    from collections.abc import Iterator

    from collector.cli.waterfall import Bar, Signs

RELATED: Final = "/api/related"
LOGS_DEFAULT, LOGS_MAX = 1000, 100_000
"""Log lines of a trace that are shown."""
PAGE: Final = 1000
"""Log records that are asked for at a time."""
_TRACE, _MESSAGE = 1, 4
"""Fields of Tempo's TraceByIDResponse."""


@click.command()
@click.argument("trace_id", metavar="ID")
@at_endpoint
@click.option("--logs", "with_logs", is_flag=True, help="Write the log lines of the trace under its spans.")
@click.option(
    "--limit",
    metavar="N",
    type=click.IntRange(1, LOGS_MAX),
    default=LOGS_DEFAULT,
    show_default=True,
    help="Log lines at most.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the trace as OTLP/JSON; with --logs /api/related as it is."
)
@as_client
def trace(client: Client, endpoint: str, trace_id: str, with_logs: bool, limit: int, as_json: bool) -> None:
    """Show a trace: its tree, and when each span ran. ID is the trace's, in hex."""
    from collector.cli.waterfall import in_grey, in_red, waterfall
    from collector.otlp.json.write import to_json
    from collector.otlp.signals import TRACES

    if with_logs and as_json:
        _print_related(client, endpoint, trace_id, min(limit, PAGE))
        return
    found, missing = _trace(client, endpoint, trace_id, may_be_missing=with_logs)
    if as_json:
        tell([missing] if missing else [])
        click.echo(escaped_json(to_json(TRACES, found.SerializeToString()).decode()))
        return
    bars = list(_bars(found))
    if not bars and not with_logs:
        raise click.ClickException(f"{endpoint} answers without a span")
    records, reasons = _log_records(client, endpoint, trace_id, limit) if with_logs else ([], [])
    tell(reason for reason in reasons if reason not in missing)  # the picture's head tells what is
    if not bars and not records:
        raise click.ClickException(f"{endpoint} holds neither a span nor a log record of trace {escaped(trace_id)}")
    held = {bar.span_id for bar in bars}
    notes: dict[str, list[str]] = {}
    others = []
    with understood(endpoint, RELATED):
        for span_id, one in records[:limit]:
            if span_id in held:
                notes.setdefault(span_id, []).append(_log_line(one))
            else:
                others.append(_log_line(one, with_service=True))
    if bars:
        for line in waterfall(trace_id, bars, width(), _signs(), in_red, in_grey, missing=missing, notes=notes):
            click.echo(line)
    else:
        click.echo(in_red(f"trace {escaped(trace_id)}: no span of it is held"))
    if others:
        click.echo("\n" + in_grey("logs of no span, or of spans that are not here"))
        for line in others:
            click.echo(f"  {line}")
    if with_logs and not records:
        click.echo("no log record names the trace", err=True)
    if len(records) > limit:
        tell_of_more(f"there are more than {limit} log records: see --limit")


def _trace(client: Client, endpoint: str, trace_id: str, *, may_be_missing: bool) -> tuple[Any, str]:
    """Return the trace as TracesData, and what is known to be missing from it. Without spans if it may be missing, and is."""
    from google.protobuf.empty_pb2 import Empty
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    path = f"/api/v2/traces/{quote(trace_id, safe='')}"
    headers = {"Accept": "application/protobuf"}
    body = (asked_if_held if may_be_missing else asked)(client, endpoint, path, headers)
    if body is None:
        return TracesData(), ""
    with understood(endpoint, path, DecodeError):
        # There is no class for TraceByIDResponse, and none is needed for four fields.
        found = UnknownFieldSet(Empty.FromString(body))
        parts = {found[at].field_number: found[at].data for at in range(len(found))}
        return TracesData.FromString(parts[_TRACE]), parts.get(_MESSAGE, b"").decode()


def _related(trace_id: str, limit: int, cursor: str = "") -> str:
    return f"{RELATED}?{urlencode({'trace_id': trace_id, 'limit': limit, 'cursor': cursor})}"


def _print_related(client: Client, endpoint: str, trace_id: str, limit: int) -> None:
    """Print `/api/related` as it is, and tell what it lacks."""
    path = _related(trace_id, limit)
    body = asked(client, endpoint, path)
    with understood(endpoint, path):
        answer = decoded(endpoint, path, body)
        message = (answer.get("trace") or {}).get("message")
        tell([*([message] if message else []), *_lacking(answer)])
        click.echo(escaped_json(body.decode("utf-8", "replace")))
        if answer.get("nextCursor"):
            tell_of_more(f"there are more than {limit} log records: nextCursor leads to them")


def _lacking(answer: dict[str, Any]) -> list[str]:
    """Return why an answer of `/api/related` may lack something."""
    coverage = answer.get("coverage", {})
    return [*lacking(coverage.get("traces", {}), "spans"), *lacking(coverage.get("logs", {}), "log records")]


def _log_records(
    client: Client, endpoint: str, trace_id: str, limit: int
) -> tuple[list[tuple[str, dict[str, Any]]], list[str]]:
    """Return the trace's log records in their order, each with its span's id: one more than `limit` if there are more.

    And why some may be missing.
    """
    found: list[tuple[str, dict[str, Any]]] = []
    reasons: list[str] = []
    cursor = ""
    while len(found) <= limit:
        path = _related(trace_id, min(PAGE, limit + 1 - len(found)), cursor)
        body = asked_if_held(client, endpoint, path)
        if body is None:
            break
        with understood(endpoint, path):
            answer = decoded(endpoint, path, body)
            page = [(str(span["spanId"]), one) for span in answer["spans"] for one in span["logRecords"]]
            found += sorted(page, key=_place)
            reasons += [one for one in _lacking(answer) if one not in reasons]
            cursor = str(answer.get("nextCursor", ""))
            if cursor and not page:
                raise ValueError("a page without records leads nowhere")
        if not cursor:
            break
    return found, reasons


def _place(item: tuple[str, dict[str, Any]]) -> tuple[int, int]:
    return int(item[1]["timeUnixNano"]), int(item[1]["offset"])


def _log_line(one: dict[str, Any], *, with_service: bool = False) -> str:
    number = int(one.get("severityNumber", 0)) or number_of(str(one.get("level", "")))
    body = one.get("body")
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    parts = [
        click.style(moment(int(one["timeUnixNano"]))[11:], dim=True),
        level_column(escaped(level_of(number, str(one.get("severityText", "")))), number),
        coloured(escaped(text), number),
    ]
    if with_service:
        parts.insert(2, click.style(escaped(str(one.get("service", ""))) or "-", fg="cyan"))
    return "  ".join(parts)


def _bars(found: Any) -> Iterator[Bar]:
    from collector.cli.waterfall import Bar

    for envelope in found.resource_spans:
        named = [one.value.string_value for one in envelope.resource.attributes if one.key == "service.name"]
        for scope in envelope.scope_spans:
            for span in scope.spans:
                yield Bar(
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    named[0] if named else "",
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code == 2,
                    span.status.message,
                )


def _signs() -> Signs:
    """Return what this output can show."""
    from collector.cli.waterfall import ASCII, UNICODE

    return UNICODE if can_show(f"{UNICODE.more}{UNICODE.below}{UNICODE.full}{UNICODE.tick}") else ASCII
