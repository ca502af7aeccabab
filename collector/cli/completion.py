"""`ringtail completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class


@click.command(short_help="Print a completion script for a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print a completion script: eval "$(ringtail completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    # Not the method of the subclass: bash's runs a bash to see its version, and there may be none here.
    click.echo(ShellComplete.source(kind(ctx.find_root().command, {}, "ringtail", "_RINGTAIL_COMPLETE")))
