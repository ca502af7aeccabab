"""`ringtail tail`: spans or log records as they arrive, from server-sent events; it resumes where it was cut.

`EventReader` is the parser (the HTML standard, 9.2.6), without I/O: lines in, events out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import click

from collector.cli.connection import Client, Unreached, answer, as_client, at_endpoint, decoded, told, understood
from collector.cli.partial import tell
from collector.cli.severity import coloured, level_column, level_of
from collector.cli.terminal import duration, escaped, escaped_json, moment

SILENCE_S: Final = 45.0
"""How long nothing may come: three of the daemon's heartbeats."""
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
EVENT_CHARACTERS_MAX: Final = 64 * 1024 * 1024
"""Of the lines of one event together; what is longer is no daemon's."""
AGAIN_S: Final = 1.0
"""How long to wait before coming again, unless the daemon says how long."""
AGAIN_MAX_S: Final = 60.0
PATH: Final = "/api/tail"
SIGNALS: Final = ("traces", "logs")


@dataclass(frozen=True, slots=True)
class Event:
    """One event."""

    name: str
    data: str


class EventReader:
    """A stream of events. `last_id` and `again_s` are what a client comes again with, and after."""

    def __init__(self) -> None:
        self.last_id = ""
        self.again_s = AGAIN_S
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._id = ""

    def begin(self) -> None:
        """A new connection: forget an event that was cut."""
        self._name, self._data, self._size, self._id = "", [], 0, self.last_id

    def line(self, text: str) -> Event | None:
        """Take a line without its end; return the event that it ends, if it ends one.

        Raises ValueError for an event longer than `EVENT_CHARACTERS_MAX`.
        """
        if not text:
            self.last_id = self._id
            made = Event(self._name or "message", "\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = "", [], 0
            return made
        field, _, value = text.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._size += len(value) + 1
            if self._size > EVENT_CHARACTERS_MAX:
                raise ValueError(f"an event of more than {EVENT_CHARACTERS_MAX} characters")
            self._data.append(value)
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and value.isascii() and value.isdecimal():
            self.again_s = min(AGAIN_MAX_S, int(value[:9]) / 1000)
        return None


@click.command(short_help="Show spans or log records as they arrive.")
@click.argument("words", metavar="[traces|logs] [QUERY]", nargs=-1)
@click.option("--signal", type=click.Choice(SIGNALS), help="The same as the word before QUERY: what QUERY is about.")
@click.option(
    "--past",
    metavar="N",
    type=click.IntRange(0, 1000),
    default=10,
    show_default=True,
    help="Begin with so many of the past.",
)
@at_endpoint
@click.option("--json", "as_json", is_flag=True, help="Print each event's OTLP/JSON on a line.")
@as_client
def tail(client: Client, endpoint: str, words: tuple[str, ...], signal: str | None, past: int, as_json: bool) -> None:
    """Show what arrives and matches: '{ status = error }', or logs '{service_name="shop"} |= "x"'."""
    signal, query = _asked(words, signal)
    path = f"{PATH}?" + urlencode({"q": query, "signal": signal, "limit": past})
    reader = EventReader()
    connected = said = False
    try:
        while True:
            try:
                for event in _events(client, endpoint, path, reader):
                    connected, said = True, False
                    _show(endpoint, event, as_json)
            except Unreached:
                if not connected:
                    raise
            if not said:
                click.echo(click.style("the daemon has gone; coming again", dim=True), err=True)
                said = True
            time.sleep(reader.again_s)
    except KeyboardInterrupt:
        click.echo()


def _asked(words: tuple[str, ...], signal: str | None) -> tuple[str, str]:
    """Return signal and query. The name of a signal is no query in any language, so it needs no option."""
    if words and words[0] in SIGNALS:
        if signal not in (None, words[0]):
            raise click.UsageError(f"is it {words[0]}, or --signal {signal}?")
        signal, words = words[0], words[1:]
    if words and words[0] == "metrics":
        raise click.UsageError("metrics cannot be tailed: traces or logs can")
    if len(words) > 1:
        raise click.UsageError(f"a query is one argument, in quotes: {words[1]!r} is too much")
    return signal or SIGNALS[0], words[0] if words else ""


def _events(client: Client, endpoint: str, path: str, reader: EventReader) -> Iterator[Event]:
    """Yield the events of one connection, from where the last one ended."""
    headers = {"Accept": "text/event-stream"}
    if reader.last_id:
        headers["Last-Event-ID"] = reader.last_id
    reader.begin()
    with answer(client, "GET", endpoint, path, headers=headers, timeout_s=SILENCE_S) as response:
        if response.status != 200:
            kind = Unreached if response.status == 503 else click.ClickException
            raise kind(told(endpoint, response.status, response.read(1000)))
        while line := response.readline(LINE_BYTES_MAX):
            with understood(endpoint, path):
                event = reader.line(line.decode("utf-8", "replace").rstrip("\r\n"))
            if event is not None:
                yield event


def _show(endpoint: str, event: Event, as_json: bool) -> None:
    if event.name == "message" and as_json:
        click.echo(escaped_json(event.data))
        return
    with understood(endpoint, PATH):
        data = decoded(endpoint, PATH, event.data)
        if event.name == "message":
            for line in [*_span_lines(data), *_log_lines(data)]:
                click.echo(line)
        elif event.name == "missed":
            known = "" if data["matches"] is None else f", {data['matches']} of them matching"
            text = f"{data['records']} records were missed ({data['reason']}){known}: from offset {data['firstOffset']}"
            tell([text])
        elif event.name == "end":
            tell([data["error"]])


def _span_lines(data: dict[str, Any]) -> Iterator[str]:
    for envelope in data.get("resourceSpans", ()):
        service = _service(envelope)
        for scope in envelope.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                start, end = int(span.get("startTimeUnixNano", 0)), int(span.get("endTimeUnixNano", 0))
                status = span.get("status", {})
                is_error = status.get("code") == 2
                name = escaped(span.get("name", ""))
                if is_error:
                    message = escaped(status.get("message", ""))
                    name = click.style(f"{name}  ! {message}" if message else name, fg="red")
                yield "  ".join(
                    (
                        click.style(moment(start), dim=True),
                        escaped(span.get("traceId", "")),
                        duration(max(0, end - start)).rjust(8),
                        click.style(service, fg="cyan"),
                        name,
                    )
                )


def _log_lines(data: dict[str, Any]) -> Iterator[str]:
    for envelope in data.get("resourceLogs", ()):
        service = _service(envelope)
        for scope in envelope.get("scopeLogs", ()):
            for record in scope.get("logRecords", ()):
                at = int(record.get("timeUnixNano", 0)) or int(record.get("observedTimeUnixNano", 0))
                number = int(record.get("severityNumber", 0))
                level = escaped(level_of(number, record.get("severityText", "")))
                body = record.get("body", {})
                text = body.get("stringValue")
                shown = text if text is not None else json.dumps(body, ensure_ascii=False)
                yield "  ".join(
                    (
                        click.style(moment(at), dim=True),
                        level_column(level, number),
                        click.style(service, fg="cyan"),
                        coloured(escaped(shown), number),
                    )
                )


def _service(envelope: dict[str, Any]) -> str:
    for one in envelope.get("resource", {}).get("attributes", ()):
        if one.get("key") == "service.name":
            return escaped(one.get("value", {}).get("stringValue", ""))
    return "-"
