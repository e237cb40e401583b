"""``hypernodes replay``: make a failed call again."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

import click

from hypernodes.cli.signals import ending_programs
from hypernodes.exceptions import FailedCallError
from hypernodes.execution.calls.failed_call import FailedCall
from hypernodes.text import short

MAX_VALUE_LENGTH = 200
"""Characters of an input or a result that are printed."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--pdb", "debugs", is_flag=True, help="Start the debugger where the call fails.")
@ending_programs()
def replay(file: Path, *, debugs: bool) -> None:
    """Make the failed call in FILE again, in this process.

    FILE was written by `failure.save("f.pkl")`. It is a pickle: replay only files from people whose code you
    would run. Start in the directory of the code. The exit code is 0 if the call succeeds now, and 1 if it
    fails.
    """
    sys.path.insert(0, str(Path.cwd()))
    try:
        call = FailedCall.load(file)
        inputs = call.inputs
    except FailedCallError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{call!r}\nfirst on {call.worker.host}, process {call.worker.pid}")
    for name, value in inputs.items():
        click.echo(f"  {name} = {short(value, MAX_VALUE_LENGTH)}")
    if changes := call.changes():
        click.echo(f"changed since: {', '.join(changes)}")
    try:
        value = call.replay()
    except Exception as error:
        traceback.print_exception(error)
        if debugs:
            importlib.import_module("pdb").post_mortem(error.__traceback__)
        sys.exit(1)
    click.echo(f"returned {short(value, MAX_VALUE_LENGTH)}")
