"""``hypernodes run``: run a pipeline with inputs from a file."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, Final

import click

from hypernodes.cli.readers import SUFFIXES
from hypernodes.cli.request import Request
from hypernodes.cli.signals import ending_programs
from hypernodes.cli.target import load
from hypernodes.text import described, notes_of

EXECUTORS: Final = ("sequential", "async", "threaded", "parallel", "ray")
FAILED_ITEMS: Final = 3
"""The exit code of a map that has finished and whose results have errors."""


def options_of_run(command: Any) -> Any:
    """Add the options that `run` and `submit` have in common: pipeline, inputs, outputs."""
    input_file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for option in reversed(
        [
            click.argument("pipeline"),
            click.option(
                "--inputs", type=input_file, help=f"Values by name, or rows: {', '.join(SUFFIXES)}."
            ),
            click.option(
                "--set", "given", multiple=True, metavar="NAME=VALUE", help="One input, as JSON or text."
            ),
            click.option(
                "--file",
                "files",
                multiple=True,
                metavar="NAME",
                help="An input whose values are paths of files.",
            ),
            click.option(
                "--map-over",
                multiple=True,
                metavar="NAME",
                help="An input that varies from item to item; of rows, by default all that are inputs.",
            ),
            click.option("--map-mode", type=click.Choice(["zip", "product"]), default="zip"),
            click.option(
                "--keep",
                multiple=True,
                metavar="NAME",
                help="A column of the rows to keep beside the outputs.",
            ),
            click.option(
                "--output", "wanted", multiple=True, metavar="NAME", help="An output to compute; else all."
            ),
            click.option(
                "--out",
                type=click.Path(path_type=Path, dir_okay=False),
                help=f"A file for the outputs: {', '.join(SUFFIXES)}; by default they are printed.",
            ),
            click.option(
                "--on-error",
                type=click.Choice(["raise", "return"]),
                default="raise",
                help="Stop at the first error, or give the row of an item that failed an error.",
            ),
            click.option(
                "--cache",
                type=click.Path(path_type=Path, file_okay=False),
                help="The directory of a cache; by default the cache of the pipeline.",
            ),
            click.option(
                "--remote",
                metavar="URL",
                help="The remote tier of the cache: s3://bucket/prefix, gs://..., az://..., "
                "file:///directory.",
            ),
            click.option(
                "--max-workers", type=click.IntRange(1), help="How many calls run at the same time, at most."
            ),
        ]
    ):
        command = option(command)
    return command


@click.command()
@options_of_run
@click.option("--executor", type=click.Choice(EXECUTORS), help="The executor; else that of the pipeline.")
@click.option("--address", help="The address of a Ray cluster, host:port, for --executor ray.")
@click.option(
    "--working-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The directory with the code that Ray workers need; by default this directory.",
)
@click.option(
    "--failed-exit-code",
    type=click.IntRange(0, 255),
    default=FAILED_ITEMS,
    show_default=True,
    help="The exit code of a map that has finished, if items failed.",
)
@click.option("--quiet", is_flag=True, help="Do not show progress.")
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
@click.pass_context
@ending_programs()
def run(ctx: click.Context, /, failed_exit_code: int, *, debug: bool, **options: Any) -> None:
    """Run PIPELINE, written as module:name or file.py:name, with inputs from a file.

    \b
        hypernodes run pipelines:clean --inputs texts.jsonl --keep id --out clean.parquet

    A .json file holds values by name. A .jsonl, .csv or .parquet file holds rows: its columns that are
    inputs, or those that --map-over names, are read while the map runs, so that it may have any size.

    The exit code is 0 if everything was computed, 1 if the run has not finished, 2 if an option is wrong, and
    3 if the map has finished and items failed (with --on-error return).
    """  # noqa: D301  "\b" tells click not to wrap the paragraph
    request = Request(**options)
    request.check()
    try:
        failed = request.carry_out(load(request.pipeline, debug=debug))
    except (click.ClickException, BrokenPipeError):  # `... | head` has read enough.
        raise
    except (Exception, SystemExit) as error:  # A node may call sys.exit.
        if debug:
            traceback.print_exc()
        notes = "".join(f"\n  {note}" for note in notes_of(error))
        raise click.ClickException(f"{described(error)}{notes}") from None
    if failed:
        ctx.exit(failed_exit_code)
