"""`ringtail export`, `import` and `replay`: what collector/moving/ does for them, and how far it is."""

from __future__ import annotations

import os
import re
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from collector.cli.backup import Progress
from collector.cli.connection import Client, as_client, base_url
from collector.cli.running import load, with_settings
from collector.cli.table import size
from collector.cli.terminal import escaped
from collector.errors import Malformed, RingtailError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from collector.config import Config
    from collector.moving.importing import Counts
    from collector.moving.replay import Position
    from collector.moving.source import Piece, Range
    from collector.moving.target import ExporterTarget, OtlpTarget, Target
    from collector.otlp.signals import Signal

INCOMPLETE: Final = 1
"""Exit status when something of a file was not taken."""
TOLD_MAX: Final = 20
"""Bad lines that are told one by one."""
STATE_EVERY_S: Final = 1.0
SIGNALS: Final = ("traces", "logs", "metrics")
_SHIFT: Final = re.compile(r"([+-]?)([0-9]+)(s|m|h|d)")
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_WHERE: Final = (
    click.option(
        "--endpoint",
        metavar="URL",
        default="http://127.0.0.1:9095",
        show_default=True,
        help="Where the daemon serves queries by gRPC (api.grpc.endpoint).",
    ),
    click.option(
        "--directory",
        metavar="DIR",
        type=click.Path(exists=True, file_okay=False),
        help="Read a data directory, or a tenant's in it, instead of asking a daemon; one may run there.",
    ),
    click.option("--from", "since", metavar="OFFSET|TIME", help="Begin with this; without it, with the oldest record."),
    click.option("--to", "until", metavar="OFFSET|TIME", help="End before this; without it, at the end of the log."),
)

_TARGET: Final = "Where OTLP is received: http(s)://HOST:PORT, or grpc(s)://HOST:PORT."


def _of_log(command: Callable[..., None]) -> Callable[..., Any]:
    """Give a command the options that say which records of which log."""
    made: Callable[..., Any] = command
    for option in reversed(_WHERE):
        made = option(made)
    return made


@click.command("export", short_help="Write records of the log to a file.")
@click.argument("path", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--signal", type=click.Choice(SIGNALS), default="traces", show_default=True, help="Whose log.")
@click.option("--query", metavar="QUERY", default="", help="Only what a TraceQL spanset, or LogQL selector, matches.")
@_of_log
@as_client
def export_(
    client: Client,
    path: str,
    signal: str,
    query: str,
    endpoint: str,
    directory: str | None,
    since: str | None,
    until: str | None,
) -> None:
    """Write records of the log to FILE: NAME.jsonl is OTLP/JSON lines, NAME.binpb protobuf; .gz or .zst after that.

    The same command goes on with an export that was interrupted.
    """
    from collector.moving.out import open_output
    from collector.otlp.signals import BY_NAME
    from collector.wal.files import OperatingSystemFiles

    if query and directory is not None:
        raise click.UsageError("--query asks a daemon; --directory reads files")
    within = _range(since, until)
    asked = {"signal": signal, "query": query, "from": since, "to": until, "tenant": client.tenant or ""}
    files = OperatingSystemFiles()
    with ExitStack() as stack:
        open_source = _source(stack, client, endpoint, directory, query)
        output = open_output(path, BY_NAME[signal], asked, within, files)
        stack.callback(output.close)
        went_on = output.state.at if output.state.records else None
        if went_on is not None:
            click.echo(f"going on at offset {went_on}, behind {output.state.records} records", err=True)
        progress = Progress("")
        asked_from = output.state.within.first
        within = output.state.within._replace(first=output.state.at)
        for piece in open_source(BY_NAME[signal], within):
            output.write(piece.payload, piece.records, piece.next_offset)
            text = f"{output.state.records} records, offset {piece.next_offset}"
            if within.end < 2**63:
                progress.bar(piece.next_offset - asked_from, within.end - asked_from, text)
            else:
                progress.tell(text)
        output.finish()
        progress.end()
        click.echo(f"{output.state.records} records, {size(output.state.position)} in {escaped(path)}")


@click.command("import", short_help="Send what files hold by OTLP.")
@click.argument("paths", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--target", metavar="URL", default="http://127.0.0.1:4318", show_default=True, help=_TARGET)
@click.option("--signal", type=click.Choice(SIGNALS), help="Of protobuf, where the file's name does not say it.")
@click.option("--state", metavar="FILE", help="Where it is kept how far this is: FILE.import-state, unless told.")
@as_client
def import_(client: Client, paths: tuple[str, ...], target: str, signal: str | None, state: str | None) -> None:
    """Send what files hold by OTLP: of `ringtail export`, the Collector's file exporter, or Jaeger's JSON.

    The same command goes on with an import that was interrupted. Exit status 1 if anything was not taken.
    """
    from collector.moving.importing import Import
    from collector.otlp.signals import BY_NAME
    from collector.wal.files import OperatingSystemFiles

    if state is not None and len(paths) > 1:
        raise click.UsageError("--state is for one file")
    complete = True
    with _connected(client, target) as connection:
        for path in paths:
            lines = _Bad(path)
            progress = Progress("")

            def show(done: int, whole: int, counts: Counts, progress: Progress = progress, path: str = path) -> None:
                progress.bar(done, whole, escaped(f"{path}, {counts.records} records"))

            one = Import(
                path,
                BY_NAME[signal] if signal is not None else None,
                connection.send,
                OperatingSystemFiles(),
                state_path=state or f"{path}.import-state",
                target=target,
                told=lines.add,
                progress=show,
            )
            try:
                counts = one.run()
            except Malformed as error:
                raise click.ClickException(escaped(f"{path}: {error}")) from error
            finally:
                progress.end()
            lines.end()
            resumed = f", after {one.resumed} requests of an earlier run" if one.resumed else ""
            bad = f", {counts.bad} bad" if counts.bad else ""
            rejected = f", {counts.rejected} records rejected" if counts.rejected else ""
            click.echo(f"{escaped(path)}: {counts.records} records{rejected}{bad}{resumed}")
            complete = complete and not counts.bad and not counts.rejected
    if not complete:
        sys.exit(INCOMPLETE)


class _Bad:
    """Tells what is bad in a file, the first few one by one."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._count = 0

    def add(self, number: int, reason: str) -> None:
        """Tell one."""
        self._count += 1
        if self._count <= TOLD_MAX:
            click.echo(escaped(f"{self._path}:{number}: {reason}"), err=True)

    def end(self) -> None:
        """Tell of the rest."""
        if self._count > TOLD_MAX:
            click.echo(escaped(f"{self._path}: and {self._count - TOLD_MAX} more"), err=True)


@click.command(short_help="Send an interval of the log once more.")
@_of_log
@click.option("--signal", "signals", type=click.Choice(SIGNALS), multiple=True, help="Whose log; repeated, or all.")
@click.option("--target", metavar="URL", help=_TARGET)
@click.option("--speed", default="1", show_default=True, metavar="N|max", help="So many times as fast as it happened.")
@click.option(
    "--shift", default="0s", metavar="now|DURATION", help="Move all times: the first to now, or by 1h or -1h."
)
@click.option("--to-exporter", metavar="NAME", help="Instead of --target: an exporter of the configuration.")
@click.option("--state", metavar="FILE", help="Keep there how far this is; with a state from before, go on.")
@with_settings
@as_client
def replay(
    client: Client,
    endpoint: str,
    directory: str | None,
    since: str | None,
    until: str | None,
    signals: tuple[str, ...],
    target: str | None,
    speed: str,
    shift: str,
    to_exporter: str | None,
    state: str | None,
    files: tuple[str, ...],
    options: tuple[str, ...],
) -> None:
    """Send an interval of the log to any OTLP endpoint, or exporter, once more, at the pace in which it happened, or another."""
    from collector.clock import SystemClock
    from collector.moving import replay as playing
    from collector.moving.source import persistent
    from collector.otlp.signals import BY_NAME

    within = _range(since, until)
    chosen = [BY_NAME[name] for name in dict.fromkeys(signals or SIGNALS)]
    if len(chosen) > 1 and (within.first or within.end < 2**63):
        raise click.UsageError("an offset is of one signal's log: --signal says which")
    rate, clock = _speed(speed), SystemClock()
    if (target is None) == (to_exporter is None):
        raise click.UsageError("either --target or --to-exporter says where to: a replay comes on top of what is there")
    if to_exporter is None and (files or options):
        raise click.UsageError("--config and --set are for --to-exporter")
    asked: dict[str, Any] = {"from": since, "to": until, "signals": [one.name for one in chosen], "shift": shift}
    asked |= {"target": target} if target is not None else {"exporter": to_exporter, "tenant": client.tenant or ""}
    position = _Kept(state, asked, within, None if shift == "now" else _shift(shift), clock.monotonic)
    within = position.now.within
    with ExitStack() as stack:
        open_source = _source(stack, client, endpoint, directory, "")
        connection: Target = stack.enter_context(
            _connected(client, target)
            if target is not None
            else _exporter(client, load(files, options), str(to_exporter), position.now.instance)
        )
        position.save()
        stack.callback(position.save)
        shown = Progress("")
        began, before = clock.monotonic(), position.now.records

        def show(at: Position, late_s: float) -> None:
            position.save_at_times()
            seconds = max(clock.monotonic() - began, 1e-9)
            late = f", {late_s:.1f} s late" if late_s > 1 else ""
            shown.tell(f"{at.records} records, {(at.records - before) / seconds:,.0f}/s{late}")

        playing.replay(
            {
                one: persistent(
                    lambda first, one=one: open_source(one, within._replace(first=first)),  # type: ignore[misc]
                    max(within.first, position.now.at.get(one.name, 0)),
                )
                for one in chosen
            },
            connection.send,
            connection.wait,
            clock,
            position.now,
            speed=rate,
            to_now=shift == "now",
            told=lambda text: click.echo(escaped(text), err=True),
            progress=show,
        )
        shown.end()
        seconds = clock.monotonic() - began
    position.remove()
    done = position.now
    lost = f", {done.rejected + done.refused} not taken" if done.rejected or done.refused else ""
    click.echo(f"{done.records} records in {seconds:.1f} s{lost}")
    if lost:
        sys.exit(INCOMPLETE)


class _Kept:
    """The state of a replay, and its file."""

    def __init__(
        self,
        path: str | None,
        asked: dict[str, Any],
        within: Range,
        shift_ns: int | None,
        monotonic: Callable[[], float],
    ) -> None:
        import msgspec

        from collector.moving.replay import Position
        from collector.wal.files import OperatingSystemFiles, read_file

        self._path, self._files, self._monotonic = path, OperatingSystemFiles(), monotonic
        self._next = monotonic() + STATE_EVERY_S
        self.now = Position(asked, shift_ns, {}, instance=os.urandom(16).hex(), within=within)
        if path is not None and os.path.exists(path):
            try:
                self.now = msgspec.json.decode(read_file(self._files, path, 2**20), type=Position)
            except msgspec.DecodeError as error:
                raise click.ClickException(f"{path} is no state of a replay: {error}") from error
            if self.now.request != asked:
                raise click.ClickException(f"{path} is of another replay ({self.now.request}); remove it to begin anew")
            click.echo(f"going on behind {self.now.records} records", err=True)

    def save_at_times(self) -> None:
        """Save, if it is time to."""
        if self._monotonic() >= self._next:
            self._next = self._monotonic() + STATE_EVERY_S
            self.save()

    def save(self) -> None:
        """Write the state, if there is a file for it."""
        import msgspec

        from collector.wal.files import replace_file

        if self._path is not None:
            replace_file(self._files, self._path, msgspec.json.encode(self.now))

    def remove(self) -> None:
        """The replay is complete."""
        if self._path is not None:
            self._files.unlink(self._path)


def _range(since: str | None, until: str | None) -> Range:
    from collector.clock import SystemClock
    from collector.moving.source import range_of

    try:
        return range_of(since, until, SystemClock().now_ns())
    except Malformed as error:
        raise click.UsageError(str(error)) from error


def _speed(text: str) -> float | None:
    try:
        speed = None if text == "max" else float(text)
    except ValueError:
        speed = 0.0
    if speed is not None and not 0 < speed < float("inf"):
        raise click.BadParameter(f"{text!r} is neither a number above 0 nor max", param_hint="--speed")
    return speed


def _shift(text: str) -> int:
    found = _SHIFT.fullmatch(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is neither now nor a duration like 1h or -30m", param_hint="--shift")
    return int(found[2]) * _UNITS[found[3]] * 10**9 * (-1 if found[1] == "-" else 1)


def _source(
    stack: ExitStack, client: Client, endpoint: str, directory: str | None, query: str
) -> Callable[[Signal, Range], Iterator[Piece]]:
    """Return what opens a source: of a data directory, or a daemon."""
    from collector.cli.send import open_channel
    from collector.moving.source import from_daemon, from_directory
    from collector.wal.files import OperatingSystemFiles

    if directory is not None:
        return lambda signal, within: from_directory(directory, signal, within, OperatingSystemFiles())
    scheme, _, address = base_url(endpoint).partition("://")
    channel = stack.enter_context(open_channel(client, scheme, address))
    metadata = [(name.lower(), value) for name, value in client.headers().items()]
    left_out: dict[str, int] = {}

    def missed(records: int, reason: str) -> None:
        left_out[reason] = left_out.get(reason, 0) + records

    def told() -> None:
        for reason, records in left_out.items():
            click.echo(escaped(f"left out: {records} {'offset' if records == 1 else 'offsets'}, {reason}"), err=True)

    stack.callback(told)

    return lambda signal, within: from_daemon(channel, signal, within, query, metadata, missed)


def _connected(client: Client, target: str) -> OtlpTarget:
    from collector import telemetry
    from collector.clock import SystemClock
    from collector.exporters.settings import ClientTls
    from collector.moving.target import OtlpTarget

    tls = ClientTls(ca_file=client.cacert, cert_file=client.cert, key_file=client.key)
    logger = telemetry.logger(telemetry.Level("warning"), "console")
    try:
        return OtlpTarget(target, client.headers(), tls, SystemClock(), logger, waiting=_told_once())
    except RingtailError as error:
        raise click.BadParameter(str(error), param_hint="--target") from error


def _exporter(client: Client, config: Config, name: str, instance: str) -> ExporterTarget:
    from collector.cli.migrate import configured
    from collector.clock import SystemClock
    from collector.moving.target import ExporterTarget

    return ExporterTarget(
        lambda threads: configured(config, name, threads),
        instance,
        client.tenant or "",
        SystemClock(),
        waiting=_told_once(),
    )


def _told_once() -> Callable[[str], None]:
    """Return what tells why something is tried again: each reason once."""
    said: set[str] = set()

    def waiting(reason: str) -> None:
        if reason not in said and len(said) < TOLD_MAX:
            said.add(reason)
            click.echo(escaped(f"trying again: {reason}"), err=True)

    return waiting
