"""`ringtail send`: something to look at, at once."""

from __future__ import annotations

from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from collector.cli.connection import TIMEOUT_S, Client, as_client, base_url, request
from collector.cli.terminal import escaped

if TYPE_CHECKING:
    from collector.cli.shop import Story
    from collector.otlp.signals import Signal

ORDERS_MAX = 1000
WIDTH = 24
ENDPOINTS = {"http/protobuf": "http://127.0.0.1:4318", "grpc": "http://127.0.0.1:4317"}
"""Where each protocol is received by default."""


@click.command(short_help="Send a few realistic traces, logs and metrics.")
@click.option(
    "--protocol",
    type=click.Choice(list(ENDPOINTS)),
    default="http/protobuf",
    show_default=True,
    help="How to send, by OpenTelemetry's names.",
)
@click.option("--endpoint", metavar="URL", help="Where OTLP is received: http://127.0.0.1:4318, or 4317 by gRPC.")
@click.option(
    "--api",
    metavar="URL",
    default="http://127.0.0.1:8888",
    show_default=True,
    help="Where queries are answered, for the links that are printed.",
)
@click.option(
    "--orders", type=click.IntRange(1, ORDERS_MAX), default=12, show_default=True, help="Orders that the shop takes."
)
@as_client
def send(client: Client, protocol: str, endpoint: str | None, api: str, orders: int) -> None:
    """Send a few realistic traces, logs and metrics, to see something at once.

    They tell the last minute of a shop: orders that pass through four services, some of which fail, with the log
    records and the metrics of all that.
    """
    from collector.cli.shop import tell
    from collector.clock import SystemClock
    from collector.otlp.signals import SIGNALS

    story = tell(SystemClock().now_ns(), orders, SystemRandom())
    target = endpoint or ENDPOINTS[protocol]
    export = _export_by_grpc if protocol == "grpc" else _export_by_http
    for signal in SIGNALS:
        response = export(client, target, signal, story.requests[signal].SerializeToString())
        partial = signal.response_type.FromString(response).partial_success
        if partial.error_message:
            click.echo(f"{signal.name}: {partial.error_message}", err=True)
        click.echo(f"sent {story.records[signal]} {signal.noun}")
    failed = f", of which {len(story.failed)} failed" if story.failed else ""
    click.echo(f"{orders} orders through {', '.join(story.services)}{failed}\n\nSee them:")
    for what, path in _links(story):
        click.echo(f"  {what:<{WIDTH}}{base_url(api)}{path}")
    click.echo(f"  {'what is held':<{WIDTH}}ringtail stats")


def _export_by_http(client: Client, endpoint: str, signal: Signal, payload: bytes) -> bytes:
    """Export one request and return the response, or fail with what the receiver says of it."""
    status, body = request(
        client, "POST", endpoint, signal.http_path, payload, {"Content-Type": "application/x-protobuf"}
    )
    if status != 200:
        from google.protobuf.message import DecodeError
        from google.rpc.status_pb2 import Status

        try:
            reason = Status.FromString(body).message
        except DecodeError:
            reason = ""
        reason = reason or escaped(body[:200].decode("utf-8", "replace").strip())
        raise click.ClickException(f"{endpoint} refuses {signal.name} with {status}: {reason or 'no reason given'}")
    return body


def _export_by_grpc(client: Client, endpoint: str, signal: Signal, payload: bytes) -> bytes:
    """Export one request and return the response, or fail with what the receiver says of it."""
    import grpc

    scheme, _, address = base_url(endpoint).partition("://")
    with open_channel(client, scheme, address) as channel:
        method = channel.unary_unary(f"/{signal.service}/Export")
        metadata = [(name.lower(), value) for name, value in client.headers().items()]
        try:
            return bytes(method(payload, timeout=TIMEOUT_S, metadata=metadata))
        except grpc.RpcError as error:
            raise click.ClickException(
                f"{endpoint} refuses {signal.name} with {error.code().name}: {error.details()}"
            ) from error


def open_channel(client: Client, scheme: str, address: str) -> Any:
    """Return a gRPC channel, a context manager; raise ClickException for files that cannot be used."""
    import grpc

    if scheme == "http":
        return grpc.insecure_channel(address)
    client.context()  # which says what is wrong with the files
    cacert, cert, key = (
        Path(path).read_bytes() if path is not None else None for path in (client.cacert, client.cert, client.key)
    )
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(cacert, key, cert))


def _links(story: Story) -> list[tuple[str, str]]:
    """What to look at: a name and a path with its query."""

    def asked(path: str, query: str, parameter: str = "query") -> str:
        return f"{path}?{parameter}={quote(query, safe='')}"

    trace_id = story.failed[0] if story.failed else story.traces[0]
    by_status = "sum by (http_response_status_code) (rate(shop_orders_total[5m]))"
    return [
        ("a failed order" if story.failed else "an order", f"/api/traces/{trace_id}"),
        ("spans with errors", asked("/api/search", "{ status = error }", "q")),
        (
            "log lines of the order",
            asked("/loki/api/v1/query_range", f'{{service_name=~".+"}} | trace_id="{trace_id}"'),
        ),
        ("orders per second", asked("/api/v1/query", by_status)),
        ("every metric", "/metrics/received"),
    ]
