"""What an answer lacks is told beside it: on standard error, in yellow, each reason once, whatever the output is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import click

from collector.cli.connection import Client, asked, decoded, understood
from collector.cli.terminal import escaped


def tell(reasons: Iterable[object]) -> None:
    """Tell why an answer may lack something; nothing when there are no reasons."""
    for reason in dict.fromkeys(map(str, reasons)):
        click.echo(click.style(escaped(reason), fg="yellow"), err=True)


def tell_of_more(text: str) -> None:
    """Tell that a limit has ended an answer: nothing is wrong, so without a colour."""
    click.echo(click.style(escaped(text), dim=True), err=True)


def enveloped(client: Client, endpoint: str, path: str, headers: Mapping[str, str] | None = None) -> Any:
    """Return an answer in the envelope that Prometheus and Loki share, after telling what it warns of.

    Raises ClickException for any answer but 200, and for one that is in no such envelope.
    """
    body = asked(client, endpoint, path, headers)
    with understood(endpoint, path):
        answer = decoded(endpoint, path, body)
        warnings = answer.get("warnings") or []
        if not isinstance(warnings, list):
            raise TypeError("warnings are a list")
        tell(warnings)
    return answer


def lacking(coverage: Mapping[str, Any], what: str) -> list[str]:
    """Return why an answer may lack `what` ("spans"), by what it says of its coverage; empty when it may not.

    To be called where it is `understood`: it raises what reading something else raises.
    """
    if message := coverage.get("message"):
        return [str(message)]
    return [f"{what} may be missing here"] if coverage.get("partial") else []
