"""`ringtail trace`: one trace as a waterfall, or as OTLP/JSON."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from collector.cli.connection import Client, as_client, asked, at_endpoint
from collector.cli.terminal import escaped_json

if TYPE_CHECKING:
    from collector.cli.waterfall import Bar, Signs

WIDTH_MIN, WIDTH_MAX = 60, 200


@click.command()
@click.argument("trace_id", metavar="ID")
@at_endpoint
@click.option("--json", "as_json", is_flag=True, help="Print the trace as OTLP/JSON.")
@as_client
def trace(client: Client, endpoint: str, trace_id: str, as_json: bool) -> None:
    """Show a trace: its tree, and when each span ran. ID is the trace's, in hex."""
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

    from collector.cli.waterfall import in_grey, in_red, waterfall
    from collector.otlp.json.write import to_json
    from collector.otlp.signals import TRACES

    path = f"/api/traces/{quote(trace_id, safe='')}"
    body = asked(client, endpoint, path, {"Accept": "application/protobuf"})
    try:
        found = TracesData.FromString(body)
    except DecodeError as error:
        raise click.ClickException(f"{endpoint} is no Ringtail: it answers {path} with something else") from error
    if as_json:
        click.echo(escaped_json(to_json(TRACES, body).decode()))
        return
    bars = list(_bars(found))
    if not bars:
        raise click.ClickException(f"{endpoint} answers without a span")
    width = min(WIDTH_MAX, max(WIDTH_MIN, shutil.get_terminal_size((120, 24)).columns))
    for line in waterfall(trace_id, bars, width, _signs(), in_red, in_grey):
        click.echo(line)


def _bars(found: Any) -> list[Bar]:
    from collector.cli.waterfall import Bar

    bars = []
    for envelope in found.resource_spans:
        named = [one.value.string_value for one in envelope.resource.attributes if one.key == "service.name"]
        bars += [
            Bar(
                span.span_id.hex(),
                span.parent_span_id.hex(),
                span.name,
                named[0] if named else "",
                span.start_time_unix_nano,
                span.end_time_unix_nano,
                span.status.code == 2,
                span.status.message,
            )
            for scope in envelope.scope_spans
            for span in scope.spans
        ]
    return bars


def _signs() -> Signs:
    """Return what this output can show."""
    from collector.cli.waterfall import ASCII, UNICODE

    signs = f"{UNICODE.more}{UNICODE.below}{UNICODE.full}{UNICODE.tick}"
    try:
        signs.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return ASCII
    return UNICODE
