"""The command ``hypernodes``."""

from __future__ import annotations

import importlib
from typing import Final

import click

_COMMANDS: Final = {
    "cache": "See what a cache holds, and look after it.",
    "run": "Run a pipeline over inputs from a file.",
    "submit": "Run a pipeline as a job of a Ray cluster.",
}


class _Commands(click.Group):
    """Loads a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"hypernodes.cli.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hypernodes")
def main() -> None:
    """Plain functions, wired into pipelines that run anywhere."""
