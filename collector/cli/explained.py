"""`ringtail query --explain`: how a query was answered, as text, from `/api/explain`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlencode

import click

from collector.cli.connection import Client, asked, decoded, understood
from collector.cli.partial import tell
from collector.cli.table import print_table, size
from collector.cli.terminal import duration, escaped, escaped_json

explain_option = click.option("--explain", is_flag=True, help="Run the query, and tell how it was answered instead.")
"""Give a command the option that `wanted` reads."""


def wanted(explain: bool) -> bool:
    """Tell whether an explanation is asked for, at the command or at the group that it is in."""
    return explain or bool(click.get_current_context().obj)


def show(client: Client, endpoint: str, language: str, parameters: Mapping[str, str], *, as_json: bool) -> None:
    """Ask for an explanation and print it."""
    path = f"/api/explain?{urlencode({'language': language, **parameters})}"
    body = asked(client, endpoint, path)
    with understood(endpoint, path):
        found = decoded(endpoint, path, body)
        missing = list(found.get("missing", ()))
        if as_json:
            click.echo(escaped_json(body.decode("utf-8", "replace")))
        else:
            _print(found)
        tell(missing)


def _print(found: dict[str, Any]) -> None:
    _plan(found["plan"])
    for one in found["passes"]:
        _pass(one)
    what = ", ".join(f"{count} {noun}" for noun, count in found["answer"].items() if noun != "bytes")
    took = duration(round(float(found["seconds"]) * 1e9))
    click.echo(escaped(f"answer: {what}, {size(int(found['answer']['bytes']))}, in {took}"))


def _plan(parts: list[dict[str, Any]]) -> None:
    rows = []
    for one in parts:
        index = f"{one['index']} {one.get('key', '')}".rstrip() if "index" in one else ""
        rows.append((one["part"], index, str(one.get("recordsInMemory", "")), one["how"]))
        for word in one.get("words", ()):
            known = word["recordsInMemory"]
            rows.append((f"  {word['word']}", f"  {word['stands']}", "any" if known is None else str(known), ""))
    if rows:
        print_table(("part", "index", ">records in memory", "how"), rows)
        click.echo()


def _pass(one: dict[str, Any]) -> None:
    memory, log = one["memory"], one["log"]
    backend = one.get("backend", {})
    if not (memory["blocks"] or log["lookedAt"] or one["stages"] or backend):
        return
    times = f", {one['times']} times" if one["times"] > 1 else ""
    click.echo(click.style(escaped(f"{one['pass']}: {_seconds(one)}{times}"), bold=True))
    for name, figures in (("memory", memory), ("log", log)):
        text = ", ".join(_figures(figures))
        if text:
            click.echo(escaped(f"  {name.ljust(6)}  {text}"))
    if backend:
        text = ", ".join(_figures(backend)) or "nothing"
        click.echo(escaped(f"  backend {text}, after {_seconds(backend)} of waiting"))
    keywords = one.get("keywords")
    if keywords:
        text = f"{keywords['candidates']} of {keywords['records']} records can have the words"
        click.echo(escaped(f"  keyword index: {text}"))
    remembered = one.get("remembered")
    if remembered:
        text = f"{remembered['mayMatch']} of {remembered['records']} records may match"
        click.echo(escaped(f"  remembered columns stand for {remembered['blocks']} blocks: {text}"))
    if one["stages"]:
        rows = [
            (
                f"  {stage['stage']}",
                str(stage["recordsIn"]),
                str(stage["recordsOut"]),
                _seconds(stage),
                stage.get("how", ""),
            )
            for stage in one["stages"]
        ]
        print_table(("  stage", ">records in", ">out", ">time", ""), rows)
    click.echo()


_WORDS: Final = {
    "segments": ("segment", ""),
    "blocks": ("block", ""),
    "leftOutByIndex": ("", "left out by the index"),
    "leftOutByKeywords": ("", "left out by keywords"),
    "leftOutByTime": ("", "left out by time"),
    "notWanted": ("", "not wanted any more"),
    "readByIndex": ("", "read by the index"),
    "readWhole": ("", "read whole"),
    "stretches": ("stretch", "named by the index"),
    "framesPassed": ("frame", "passed"),
    "framesRead": ("frame", "read"),
    "framesCached": ("frame", "cached"),
    "lookedAt": ("block", "looked at"),
    "records": ("record", ""),
}
"""Of each figure, what it counts, and what became of it."""


def _figures(figures: dict[str, Any]) -> Iterator[str]:
    """Yield what is not 0, in words."""
    for name, (noun, fate) in _WORDS.items():
        count = int(figures.get(name, 0))
        if count:
            plural = "" if count == 1 or not noun else "es" if noun.endswith("ch") else "s"
            yield " ".join(filter(None, (f"{count:,}", noun + plural, fate)))
    if figures.get("bytes"):
        yield f"{size(int(figures['bytes']))} of payloads"


def _seconds(of: dict[str, Any]) -> str:
    return duration(round(float(of["seconds"]) * 1e9))
