"""`ringtail run`, `validate` and `print-config`: the commands that take a configuration."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from collector.cli.terminal import escaped
from collector.errors import InvalidConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from collector.config import Config

BAD_CONFIG = 2
"""Exit status for a configuration that has mistakes."""


def _with_settings(command: Callable[..., None]) -> Callable[..., Any]:
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


def _load(files: tuple[str, ...], options: tuple[str, ...]) -> Config:
    """Load settings, or tell every mistake and exit."""
    from collector.settings import load_files

    try:
        return load_files(files, options, os.environ)
    except InvalidConfig as error:
        for problem in error.problems:
            click.echo(escaped(problem), err=True)
        mistakes = "1 mistake" if len(error.problems) == 1 else f"{len(error.problems)} mistakes"
        click.echo(f"Error: {mistakes} in the configuration; `ringtail print-config` prints every key", err=True)
        sys.exit(BAD_CONFIG)


@click.command()
@_with_settings
def run(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Run the daemon in the foreground, until Ctrl-C or SIGTERM."""
    config = _load(files, options)
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
    sys.exit(run_daemon(config, lambda: load_files(files, options, os.environ), logger, level))


@click.command()
@_with_settings
def validate(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Check a configuration; tell every mistake in it."""
    _load(files, options)
    click.echo("the configuration is valid")


@click.command("print-config")
@_with_settings
def print_config(files: tuple[str, ...], options: tuple[str, ...]) -> None:
    """Print the settings in effect, defaults included, as YAML."""
    from collector.settings import dump

    click.echo(dump(_load(files, options)), nl=False)
