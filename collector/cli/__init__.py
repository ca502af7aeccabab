"""The command line, one file for each group of commands.

Every command imports what it needs when it runs, so that `--version` and completion stay quick. Exit status: 0 when
all went well, 1 when not, 2 for a mistake in the configuration or in the command line. What fails is told in one
line on standard error, with a next step where there is one.
"""

from __future__ import annotations

import errno
from typing import Any

import click

from collector import __version__
from collector.cli.backup import backup, restore
from collector.cli.completion import completion
from collector.cli.conformance import conformance
from collector.cli.delete import delete
from collector.cli.migrate import migrate
from collector.cli.moving import export_, import_, replay
from collector.cli.query import query
from collector.cli.remote import healthcheck, stats
from collector.cli.running import print_config, run, validate
from collector.cli.send import send
from collector.cli.tail import tail
from collector.cli.trace import trace
from collector.cli.wal import wal
from collector.errors import RingtailError


class _Commands(click.Group):
    """Commands whose causes of failure become one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except RingtailError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # the reader of our output has left; click ends quietly
            raise click.ClickException(str(error)) from error


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="ringtail")
def main() -> None:
    """Ringtail: an OpenTelemetry collector daemon that remembers."""


for _command in (
    run,
    validate,
    print_config,
    stats,
    healthcheck,
    send,
    query,
    trace,
    tail,
    wal,
    backup,
    export_,
    import_,
    replay,
    migrate,
    delete,
    restore,
    conformance,
    completion,
):
    main.add_command(_command)
