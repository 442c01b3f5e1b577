"""`moesim completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from moesim.cli.options import COMPLETE

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes verbs, options and shipped scenarios in SHELL.

    In ~/.bashrc or ~/.zshrc: eval "$(moesim completion bash)". For fish: moesim completion fish > ~/.config/fish/
    completions/moesim.fish.
    """
    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(context.find_root().command, {}, "moesim", COMPLETE).source())
