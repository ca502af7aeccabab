"""`ringtail stats` and `healthcheck`: questions to a running daemon."""

from __future__ import annotations

import sys
from typing import Any

import click

from collector.cli.connection import Client, as_client, at_endpoint, decoded, refusal, request, understood
from collector.cli.table import print_table, size
from collector.cli.terminal import escaped, escaped_json

READY, NOT_READY = 0, 1


@click.command()
@at_endpoint
@click.option("--json", "as_json", is_flag=True, help="Print /api/stats as it is.")
@as_client
def stats(client: Client, endpoint: str, as_json: bool) -> None:
    """Show what a running daemon holds."""
    status, body = request(client, "GET", endpoint, "/api/stats")
    if refusal(status):
        raise click.ClickException(f"{endpoint} answers {status}: {refusal(status)}")
    if status != 200:
        raise click.ClickException(f"{endpoint} is no Ringtail: it answers /api/stats with {status}")
    with understood(endpoint, "/api/stats"):
        signals = dict(decoded(endpoint, "/api/stats", body)["signals"])
        if as_json:
            click.echo("\n".join(map(escaped_json, body.decode("utf-8", "replace").split("\n"))))
        else:
            _print_stats(signals)


def _print_stats(signals: dict[str, Any]) -> None:
    print_table(
        (
            "signal",
            ">records",
            ">capacity",
            ">evicted",
            ">memory",
            ">log",
            ">segments",
            ">first offset",
            ">next offset",
        ),
        [_ring_row(name, one) for name, one in signals.items()],
    )
    click.echo()
    print_table(
        ("signal", "index", ">keys", ">postings", ">memory"),
        [
            (name, index, str(figures["keys"]), str(figures["postings"]), size(figures["bytes"]))
            for name, one in signals.items()
            for index, figures in one["indexes"].items()
        ],
    )


def _ring_row(name: str, one: dict[str, Any]) -> tuple[str, ...]:
    log = one["log"]
    ring = (str(one["records"]), str(one["capacity"]), str(one["evicted"]), size(one["total_bytes"]))
    return (name, *ring, size(log["bytes"]), str(log["segments"]), str(log["first_offset"]), str(log["next_offset"]))


@click.command(short_help="Exit with 0 when the daemon is ready.")
@at_endpoint
@as_client
def healthcheck(client: Client, endpoint: str) -> None:
    """Exit with 0 when the daemon is ready, with 1 when not; for containers."""
    status, body = request(client, "GET", endpoint, "/readyz")
    for line in body.decode("utf-8", "replace").rstrip().split("\n"):
        click.echo(escaped(line))
    sys.exit(READY if status == 200 else NOT_READY)
