"""The command ``hypernodes`` and its subcommands."""

from __future__ import annotations

import importlib
from typing import Final

import click

_COMMANDS: Final = {
    "cache": "Inspect and maintain a cache.",
    "replay": "Make a failed call again.",
    "run": "Run a pipeline over inputs from a file.",
    "submit": "Run a pipeline as a job of a Ray cluster.",
}


class _LazyGroup(click.Group):
    """A group that imports the module of a subcommand when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"hypernodes.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.command(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hypernodes-ray")
def main() -> None:
    """Plain functions, connected by name into pipelines that run anywhere."""
