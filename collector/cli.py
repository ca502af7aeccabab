"""The command line. Each command imports what it needs when it runs, so that `--version` and completion are quick."""

from __future__ import annotations

import http.client
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from collector import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.config import Config

BAD_CONFIG, FAILED = 2, 1

_files = click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(dir_okay=False),
    help="A YAML file; several merge in their order. Without one, built-in defaults.",
)
_options = click.option("--set", "options", multiple=True, metavar="a.b.c=VALUE", help="Set one key, after all files.")
_endpoint = click.option(
    "--endpoint", default="http://127.0.0.1:8888", show_default=True, help="Where the daemon answers queries."
)


def _load(files: tuple[str, ...], options: tuple[str, ...]) -> Config:
    """Load settings, or tell every mistake and exit."""
    from collector.errors import InvalidConfig
    from collector.settings import load

    try:
        return load([(name, Path(name).read_text(encoding="utf-8")) for name in files], options, os.environ)
    except (OSError, UnicodeDecodeError) as error:
        click.echo(f"cannot read the configuration: {error}", err=True)
    except InvalidConfig as error:
        for problem in error.problems:
            click.echo(problem, err=True)
    sys.exit(BAD_CONFIG)


def _get(endpoint: str, path: str) -> tuple[int, bytes]:
    """GET from the daemon; exit with one line when it does not answer."""
    url = urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
    connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port or 8888, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    except OSError as error:
        click.echo(f"no daemon answers at {endpoint}: {error}", err=True)
        sys.exit(FAILED)
    finally:
        connection.close()


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ringtail")
def main() -> None:
    """Ringtail: an OpenTelemetry collector daemon that remembers."""


@main.command()
@_files
@_options
def run(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Run the daemon in the foreground, until Ctrl-C or SIGTERM."""
    config = _load(files, options)
    from collector.daemon import run as run_daemon

    sys.exit(run_daemon(config))


@main.command()
@_files
@_options
def validate(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Check a configuration; tell every mistake in it."""
    _load(files, options)
    click.echo("the configuration is valid")


@main.command("print-config")
@_files
@_options
def print_config(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Print the settings in effect, defaults included, as YAML."""
    from collector.settings import dump

    click.echo(dump(_load(files, options)), nl=False)


@main.command()
@_endpoint
@click.option("--json", "as_json", is_flag=True, help="Print /api/stats as it is.")
def stats(endpoint: str, as_json: bool) -> None:
    """Show what a running daemon holds."""
    _, body = _get(endpoint, "/api/stats")
    if as_json:
        click.echo(body)
        return
    rows: list[tuple[str, ...]] = [
        ("signal", "records", "capacity", "evicted", "memory", "offsets in the log", "on disk")
    ]
    for name, one in json.loads(body)["signals"].items():
        log = one["log"]
        offsets = f"{log['first_offset']} to {log['next_offset']}"
        figures = (one["records"], one["capacity"], one["evicted"], _bytes(one["total_bytes"]))
        rows.append((name, *map(str, figures), offsets, _bytes(log["bytes"])))
    _table(rows)


def _table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.1f} {unit}" if unit != "B" else f"{count} B"
        count /= 1024
    raise AssertionError


@main.command()
@_endpoint
def healthcheck(endpoint: str) -> None:
    """Exit with 0 when the daemon is ready, with 1 when not; for containers."""
    code, body = _get(endpoint, "/readyz")
    click.echo(body.decode("utf-8", "replace"), nl=False)
    sys.exit(0 if code == 200 else FAILED)


@main.group()
def wal() -> None:
    """Look into a write-ahead log, also beside a running daemon."""


_directory = click.argument("directory", type=click.Path(exists=True, file_okay=False))


def _with_log(work: Callable[[], None]) -> None:
    from collector.errors import RingtailError

    try:
        work()
    except RingtailError as error:
        click.echo(str(error), err=True)
        sys.exit(FAILED)


@wal.command()
@_directory
def inspect(directory: str) -> None:
    """List the segments of every signal."""
    from collector.wal.files import OperatingSystemFiles
    from collector.wal.inspect import inspect as facts

    def work() -> None:
        rows: list[tuple[str, ...]] = [("signal", "segment", "offsets", "records", "size", "index")]
        for one in facts(directory, OperatingSystemFiles()):
            offsets = f"{one.base_offset} to {one.next_offset}"
            name = Path(one.path).name + (" (active)" if one.active else "")
            rows.append((one.signal, name, offsets, str(one.records), _bytes(one.size), one.index))
        _table(rows)

    _with_log(work)


@wal.command()
@_directory
def verify(directory: str) -> None:
    """Read every frame and check it; exit with 1 if anything is damaged."""
    from collector.wal.files import OperatingSystemFiles
    from collector.wal.inspect import verify as report

    def work() -> None:
        found = report(directory, OperatingSystemFiles())
        for note in found.notes:
            click.echo(note)
        for problem in found.problems:
            lost = f" (offsets {problem.offsets[0]} to {problem.offsets[1]})" if problem.offsets else ""
            click.echo(f"{problem.path}: {problem.text}{lost}", err=True)
        click.echo(f"{found.segments} segments, {found.records} records, {_bytes(found.bytes)} read")
        if found.problems:
            sys.exit(FAILED)

    _with_log(work)


@wal.command()
@_directory
@click.option("--signal", type=click.Choice(["traces", "logs", "metrics"]), default="traces", show_default=True)
@click.option("--from-offset", default=0, show_default=True, help="The first offset to print.")
@click.option("--limit", default=100, show_default=True, help="Frames to print at most.")
def cat(directory: str, signal: str, from_offset: int, limit: int) -> None:
    """Print frames as OTLP/JSON, one request a line."""
    from google.protobuf.json_format import MessageToJson

    from collector.otlp.signals import BY_NAME
    from collector.wal.files import OperatingSystemFiles
    from collector.wal.inspect import cat as frames

    def work() -> None:
        for frame in frames(directory, BY_NAME[signal], from_offset, limit, OperatingSystemFiles()):
            click.echo(MessageToJson(BY_NAME[signal].request_type.FromString(frame.payload), indent=None))

    _with_log(work)


@main.command()
@click.option("--endpoint", default="http://127.0.0.1:4318", show_default=True, help="Where OTLP/HTTP is received.")
def send(endpoint: str) -> None:
    """Send a few realistic traces, logs and metrics, to see something at once."""
    import time

    from collector.otlp.signals import SIGNALS
    from collector.testing import otlp

    url = urlsplit(endpoint)
    now = time.time_ns()
    make = {"traces": otlp.traces, "logs": otlp.logs, "metrics": otlp.metrics}
    try:
        connection = http.client.HTTPConnection(url.hostname or "127.0.0.1", url.port or 4318, timeout=10)
        for signal in SIGNALS:
            payload = make[signal.name](20, seed=now, time_ns=now)
            connection.request("POST", signal.http_path, payload, {"Content-Type": "application/x-protobuf"})
            response = connection.getresponse()
            body = response.read()
            if response.status != 200:
                click.echo(f"{signal.name}: {response.status} {body!r}", err=True)
                sys.exit(FAILED)
            click.echo(f"sent 20 {signal.noun}")
    except OSError as error:
        click.echo(f"no daemon receives at {endpoint}: {error}", err=True)
        sys.exit(FAILED)


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a completion script: eval "$(ringtail completion bash)"."""
    from click.shell_completion import get_completion_class

    kind: Any = get_completion_class(shell)
    click.echo(kind(main, {}, "ringtail", "_RINGTAIL_COMPLETE").source())


if __name__ == "__main__":
    main()
