"""`ringtail conformance`: the kit, pointed at any OTLP server."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collector.conformance.check import Check, Result, Section
    from collector.conformance.target import Target

MIB = 1024 * 1024


def _header(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    """Read `NAME=VALUE` options."""
    found = {}
    for one in values:
        name, sign, text = one.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"{name!r} is not NAME=VALUE")
        found[name.strip()] = text.strip()
    return found


@click.command(short_help="Check an OTLP server against the specification.")
@click.option("--grpc", metavar="HOST:PORT", default="", help="Where OTLP/gRPC is received.")
@click.option("--http", metavar="URL", default="", help="Where OTLP/HTTP is received, like http://127.0.0.1:4318.")
@click.option("--query", metavar="URL", default="", help="Where Tempo's, Loki's and Prometheus' APIs are answered.")
@click.option(
    "--header", "headers", metavar="NAME=VALUE", multiple=True, callback=_header, help="Send this with every request."
)
@click.option(
    "--limit",
    metavar="MIB",
    type=click.IntRange(1, 4096),
    default=64,
    show_default=True,
    help="The size limit of the server under test.",
)
@click.option("--timeout", metavar="SECONDS", type=click.FloatRange(0.1, 600), default=10.0, show_default=True)
@click.option("--only", metavar="N,…", default="", help="Make only these checks: 24 is all of line 24, 24b one.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of lines.")
@click.option("--list", "is_list", is_flag=True, help="List the checks, and make none.")
def conformance(
    grpc: str,
    http: str,
    query: str,
    headers: dict[str, str],
    limit: int,
    timeout: float,
    only: str,
    as_json: bool,
    is_list: bool,
) -> None:
    """Check an OTLP server against the specification, over the wire only.

    Without an endpoint, the server is a Ringtail that is started for it. Exit status 1 when a MUST is failed.
    """
    from collector.clock import SystemClock
    from collector.conformance import kit, report
    from collector.conformance.target import Target

    sections = kit.chosen({one.strip() for one in only.split(",") if one.strip()})
    if not sections:
        raise click.BadParameter(f"there is no check {only!r}; --list tells which there are", param_hint="--only")
    if is_list:
        for section, checks in sections:
            click.echo(f"\n{section.title}")
            for one in checks:
                click.echo(f"{one.number:>4}  {one.level.value:<6}  {one.title}")
        return
    if grpc or http:
        made = Target(
            clock=SystemClock(),
            grpc=grpc,
            http=http,
            query=query,
            headers=headers,
            limit_bytes=limit * MIB,
            timeout_s=timeout,
        )
    else:
        made = Target.start(SystemClock(), timeout_s=timeout)
    results = _run(made, sections, quiet=as_json)
    if as_json:
        click.echo(json.dumps(report.plain(results), indent=2))
    else:
        click.echo()
        for level, counts in report.score(results).items():
            click.echo(report.score_line(level, counts))
    sys.exit(1 if report.failed(results) else 0)


def _run(target: Target, sections: list[tuple[Section, list[Check]]], *, quiet: bool) -> list[Result]:
    """Make the checks, telling each as it is made."""
    from collector.conformance import kit, report

    results = []
    with target:
        for section, checks in sections:
            if not quiet:
                click.echo(f"\n{section.title}")
            for result in kit.run(target, checks):
                results.append(result)
                if not quiet:
                    click.echo(report.line(result))
    return results
