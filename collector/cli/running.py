"""`ringtail run`, `validate` and `print-config`: the commands that take a configuration."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from collector.cli.terminal import escaped
from collector.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.config import Config

CANNOT_START = 1
"""Exit status when something else is in the way."""
BAD_CONFIG = 2
"""Exit status for a configuration that has mistakes."""


def with_settings(command: Callable[..., None]) -> Callable[..., Any]:
    """Give a command the options `--config` and `--set`."""
    files = click.option(
        "--config",
        "files",
        metavar="FILE",
        multiple=True,
        type=click.Path(dir_okay=False),
        help="A YAML file; several merge in their order. Without one, built-in defaults.",
    )
    options = click.option(
        "--set", "options", metavar="a.b.c=VALUE", multiple=True, help="Set one key, after all files."
    )
    return files(options(command))


def load(files: tuple[str, ...], options: tuple[str, ...]) -> Config:
    """Load settings, or tell every mistake and exit."""
    from collector.settings import load_files

    try:
        return load_files(files, options, os.environ)
    except InvalidConfig as error:
        _refuse(error.problems)


def _refuse(problems: list[str]) -> NoReturn:
    """Tell every mistake and exit."""
    for problem in problems:
        click.echo(escaped(problem), err=True)
    mistakes = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
    click.echo(f"Error: {mistakes} in the configuration; `ringtail print-config` prints every key", err=True)
    sys.exit(BAD_CONFIG)


@click.command()
@with_settings
def run(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Run the daemon in the foreground, until Ctrl-C or SIGTERM."""
    config = load(files, options)
    # numpy is not asked for linear algebra here, and its threads for that would spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    import logging

    from collector import telemetry
    from collector.daemon import run as run_daemon
    from collector.settings import load_files

    level = telemetry.Level(config.telemetry.logs.level)
    logger = telemetry.logger(level, config.telemetry.logs.format)
    logging.basicConfig(handlers=[telemetry.StandardLogs(logger)])
    logging.captureWarnings(capture=True)
    try:
        code = run_daemon(config, lambda: load_files(files, options, os.environ), logger, level)
    except InvalidConfig as error:
        _refuse(error.problems)
    sys.exit(code)


@click.command(short_help="Check a configuration, and what a start would find.")
@with_settings
@click.option("--settings-only", is_flag=True, help="Leave out the files, directories and addresses of this machine.")
def validate(files: tuple[str, ...], options: tuple[str, ...], settings_only: bool) -> None:
    """Check a configuration; tell every mistake in it, and whatever else a start would fail on here and now."""
    config = load(files, options)
    if not settings_only:
        from collector.daemon import findings

        found = findings(config)
        for one in found.warnings:
            click.echo(f"warning: {escaped(one)}", err=True)
        for one in found.obstacles:
            click.echo(f"cannot start: {escaped(one)}", err=True)
        if found.mistakes:
            _refuse(found.mistakes)
        if found.obstacles:
            click.echo("Error: the configuration is valid, but a start would fail now", err=True)
            sys.exit(CANNOT_START)
    click.echo("the configuration is valid")


@click.command("print-config")
@with_settings
def print_config(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Print the settings in effect, defaults included, as YAML."""
    from collector.settings import dump

    click.echo(dump(load(files, options)), nl=False)
