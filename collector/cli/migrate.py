"""`ringtail migrate`: from one backend to another, by collector/moving/migrate.py."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from collector.cli.backup import Progress
from collector.cli.running import load, with_settings
from collector.cli.terminal import escaped

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from collector.config import Config
    from collector.exporters.base import Backend, Exporter
    from collector.moving.migrate import Position
    from collector.otlp.signals import Signal

DIFFERENT: Final = 1
"""Exit status when the backends do not hold the same."""
TOLD_MAX: Final = 20
SIGNALS: Final = ("traces", "logs", "metrics")
MAIN_KEYS: Final = ("path", "endpoint")
"""What `KIND:VALUE` sets, the first of them that the kind has."""
_KIND: Final = re.compile(r"([a-z][a-z0-9_]*):(.+)", re.DOTALL)


@click.command(short_help="Move all records of one backend to another.")
@click.option(
    "--from", "source", metavar="BACKEND", required=True, help="KIND:PATH, KIND:ENDPOINT, or a configured NAME."
)
@click.option("--to", "target", metavar="BACKEND", required=True, help="The same, of where records go.")
@click.option("--signal", "signals", type=click.Choice(SIGNALS), multiple=True, help="What is moved; repeated, or all.")
@click.option("--tenant", "tenants", metavar="NAME", multiple=True, help="Whose; repeated. Without it, of no tenant.")
@click.option("--state", metavar="FILE", required=True, help="Keep there how far this is; with one from before, go on.")
@click.option("--verify-only", is_flag=True, help="Move nothing; compare what both hold.")
@with_settings
def migrate(
    source: str,
    target: str,
    signals: tuple[str, ...],
    tenants: tuple[str, ...],
    state: str,
    verify_only: bool,
    files: tuple[str, ...],
    options: tuple[str, ...],
) -> None:
    """Move all records of one backend to another, and compare them, hour by hour.

    Exit status 1 if they do not hold the same in the end. The source should get nothing new meanwhile.
    """
    import asyncio

    from collector.otlp.signals import BY_NAME

    config, names = _configured(files, options, (source, target))
    asked = {"from": source, "to": target}
    position = _position(state, asked)
    chosen = [BY_NAME[name] for name in dict.fromkeys(signals or SIGNALS)]
    equal = asyncio.run(_run(config, names, position, state, chosen, tenants or ("",), verify_only))
    if not equal:
        sys.exit(DIFFERENT)


def _configured(
    files: tuple[str, ...], options: tuple[str, ...], specs: tuple[str, str]
) -> tuple[Config, tuple[str, str]]:
    """Return the configuration with both backends in it, and their names there."""
    from dataclasses import fields

    from collector.exporters.kinds import find

    names = []
    for spec, end in zip(specs, ("from", "to"), strict=True):
        found = _KIND.fullmatch(spec)
        kind = find(found[1]) if found is not None else None
        if found is None:
            names.append(spec)
            continue
        keys = [one.name for one in fields(kind.settings)] if kind is not None else []
        key = next((one for one in MAIN_KEYS if one in keys), None)
        if key is None:
            raise click.BadParameter(f"{spec!r}: there is no backend {found[1]!r}", param_hint=f"--{end}")
        names.append(f"{found[1]}/migrate-{end}")
        options = (*options, f"exporters.{found[1]}/migrate-{end}.{key}={found[2]}")
    return load(files, options), (names[0], names[1])


def _position(path: str, asked: dict[str, Any]) -> Position:
    import msgspec

    from collector.moving.migrate import Position
    from collector.wal.files import OperatingSystemFiles, read_file

    try:
        found = msgspec.json.decode(read_file(OperatingSystemFiles(), path, 2**20), type=Position)
    except FileNotFoundError:
        return Position(asked, os.urandom(16).hex(), {})
    except msgspec.DecodeError as error:
        raise click.ClickException(f"{path} is no state of a migration: {error}") from error
    if found.request != asked:
        raise click.ClickException(f"{path} is of another migration ({found.request}); remove it to begin anew")
    return found


async def _run(
    config: Config,
    names: tuple[str, str],
    position: Position,
    state: str,
    signals: list[Signal],
    tenants: tuple[str, ...],
    verify_only: bool,
) -> bool:
    import random
    from concurrent.futures import ThreadPoolExecutor

    import msgspec

    from collector.clock import SystemClock
    from collector.moving.migrate import Migration
    from collector.wal.files import OperatingSystemFiles, replace_file

    files, progress = OperatingSystemFiles(), Progress("")
    equal = True

    def save() -> None:
        replace_file(files, state, msgspec.json.encode(position))

    save()  # Before the first record: it says under which keys they go.
    with ThreadPoolExecutor(4) as threads:
        async with AsyncExitStack() as stack:
            backends = []
            for name in names:
                backend = _backend(config, name, threads)
                stack.push_async_callback(backend.stop)
                await backend.start()
                backends.append(backend)
            migration = Migration(
                backends[0],
                backends[1],
                position,
                SystemClock(),
                random.SystemRandom(),
                saved=save,
                progress=lambda noun, done, whole: progress.bar(done, whole, f"{done} of {whole} {noun}"),
            )
            for tenant in tenants:
                for signal in signals:
                    whose = f" of {tenant}" if tenant else ""
                    if not verify_only:
                        done = await migration.move(signal, tenant)
                        progress.end()
                        lost = f", {done.rejected} of them refused" if done.rejected else ""
                        click.echo(f"{done.offset} {signal.noun}{escaped(whose)} moved{lost}")
                    equal = await _compared(migration, signal, tenant, whose) and equal
    return equal


async def _compared(migration: Any, signal: Signal, tenant: str, whose: str) -> bool:
    hours = records = different = 0
    async for hour in migration.verify(signal, tenant):
        hours += 1
        records += hour.records[0]
        if not hour.equal:
            different += 1
            if different <= TOLD_MAX:
                when = f"{datetime.fromtimestamp(hour.start_ns // 10**9, UTC):%Y-%m-%d %H:00}"
                counts = f"{hour.records[0]} records there, {hour.records[1]} here"
                why = counts if hour.records[0] != hour.records[1] else f"{counts}, not the same ones"
                click.echo(f"{signal.name}{escaped(whose)} {when}: {why}", err=True)
    summary = f"{signal.name}{escaped(whose)}: {hours} hours compared, {records} records"
    click.echo(f"{summary}: {different} hours differ" if different else f"{summary}: the same")
    return not different


def _backend(config: Config, name: str, threads: Executor) -> Backend:
    from collector.exporters.base import Backend

    made = configured(config, name, threads)
    if not isinstance(made, Backend):
        raise click.ClickException(f"{name} is no backend: nothing can be read from it")
    return made


def configured(config: Config, name: str, threads: Executor) -> Exporter:
    """Make an exporter of the configuration. Raises ClickException for one that is not there, and InvalidConfig."""
    from prometheus_client import CollectorRegistry

    from collector import telemetry
    from collector.clock import SystemClock
    from collector.exporters.base import Context
    from collector.exporters.kinds import find, kind_of

    settings = config.exporters.get(name)
    kind = find(kind_of(name))
    if settings is None or kind is None:
        known = f"it has {', '.join(config.exporters)}" if config.exporters else "--config names one that has"
        raise click.ClickException(f"there is no exporter {name} in the configuration; {known}")
    logger = telemetry.logger(telemetry.Level("warning"), "console")
    return kind.make(settings, Context(name, SystemClock(), logger, CollectorRegistry(), threads, None))
