"""``hypernodes run``: run a pipeline with inputs from a file."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from itertools import tee
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from hypernodes.cli import files
from hypernodes.exceptions import listing
from hypernodes.pipeline import Pipeline
from hypernodes.text import identifier, notes_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hypernodes.engines import HyperNodesEngine

EXECUTORS = ("sequential", "async", "threaded", "parallel", "ray")


def options_of_run(command: Any) -> Any:
    """Add the options that `run` and `submit` have in common: pipeline, inputs, outputs."""
    input_file = click.Path(path_type=Path, exists=True, dir_okay=False)
    for option in reversed(
        [
            click.argument("pipeline"),
            click.option(
                "--inputs", type=input_file, help=f"Values by name, or rows: {', '.join(files.SUFFIXES)}."
            ),
            click.option(
                "--set", "given", multiple=True, metavar="NAME=VALUE", help="One input, as JSON or text."
            ),
            click.option(
                "--map-over", multiple=True, metavar="NAME", help="An input that varies from item to item."
            ),
            click.option("--map-mode", type=click.Choice(["zip", "product"]), default="zip"),
            click.option(
                "--output", "wanted", multiple=True, metavar="NAME", help="An output to compute; else all."
            ),
            click.option(
                "--out",
                type=click.Path(path_type=Path, dir_okay=False),
                help=f"A file for the outputs: {', '.join(files.SUFFIXES)}; by default they are printed.",
            ),
            click.option("--on-error", type=click.Choice(["raise", "return"]), default="raise"),
            click.option(
                "--cache",
                type=click.Path(path_type=Path, file_okay=False),
                help="The directory of a cache; by default the cache of the pipeline.",
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
@click.option("--quiet", is_flag=True, help="Do not show progress.")
@click.option("--debug", is_flag=True, help="Show the full traceback of an error.")
def run(
    pipeline: str,
    inputs: Path | None,
    given: tuple[str, ...],
    map_over: tuple[str, ...],
    map_mode: Literal["zip", "product"],
    wanted: tuple[str, ...],
    out: Path | None,
    on_error: Literal["raise", "return"],
    cache: Path | None,
    max_workers: int | None,
    executor: str | None,
    address: str | None,
    working_dir: Path | None,
    *,
    quiet: bool,
    debug: bool,
) -> None:
    """Run PIPELINE, written as module:name or file.py:name, with inputs from a file.

    \b
        hypernodes run pipelines:clean --inputs texts.jsonl --map-over text --out clean.parquet

    A .json file holds values by name. A .jsonl or .parquet file holds rows: the columns named by --map-over
    are read while the map runs, so that the file may have any size. The exit code is 1 if a node failed.
    """  # noqa: D301  "\b" tells click not to wrap the paragraph
    if out is not None and out.suffix not in files.SUFFIXES:
        raise click.UsageError(f"--out {out}: the suffix must be one of {', '.join(files.SUFFIXES)}.")
    if address is not None and executor != "ray":
        raise click.UsageError("--address needs --executor ray.")
    inputs, out = (None if path is None else path.absolute() for path in (inputs, out))
    found = load(pipeline)
    try:
        configured = _configured(found, cache=cache, quiet=quiet)
        values = {**_inputs(inputs, map_over, map_mode), **_given(given)}
        engine = _engine(executor, max_workers, address, working_dir, is_map=bool(map_over))
        try:
            configured = configured if engine is None else configured.with_engine(engine)
            with files.writer(out, rows=bool(map_over)) as writer:
                if map_over:
                    rows = configured.imap(values, list(map_over), map_mode, list(wanted) or None, on_error)
                    failed = _write_rows(writer, rows, wanted or configured.output_names, on_error)
                else:
                    failed = 0
                    writer.write(configured.run(values, list(wanted) or None))
        finally:
            if engine is not None:
                engine.shutdown()
    except click.ClickException:
        raise
    except Exception as error:
        if debug:
            traceback.print_exc()
        notes = "".join(f"\n  {note}" for note in notes_of(error))
        raise click.ClickException(f"{type(error).__name__}: {error}{notes}") from None
    if failed:
        raise click.ClickException(f"{failed:,} items failed.")


def _write_rows(
    writer: files.Writer, rows: Iterator[tuple[int, Any]], names: Sequence[str], on_error: str
) -> int:
    """Write the outputs of the items of a map, and return the number of items that failed."""
    failed = 0
    for _, row in rows:
        if isinstance(row, BaseException):
            failed += 1
            writer.write({**dict.fromkeys(names), "error": row})
        else:
            writer.write({**row, "error": None} if on_error == "return" else row)
    return failed


def load(place: str) -> Pipeline:
    """Import the pipeline at ``module:name`` or ``file.py:name``. A function is called to make it."""
    module_name, colon, name = place.rpartition(":")
    if not colon or not name:
        raise click.UsageError(
            f"{place!r} is not the place of a pipeline. Write module:name, or file.py:name."
        )
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    if module_name.endswith(".py"):
        file = Path(module_name).resolve()
        if not file.is_file():
            raise click.ClickException(f"the file {module_name!r} does not exist.")
        sys.path.insert(0, str(file.parent))
        module_name = file.stem
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = f"it needs {error.name!r}, which" if error.name != module_name else "it"
        raise click.ClickException(
            f"{module_name!r} cannot be imported: {missing} is neither installed nor in {directory}."
        ) from None
    if (found := getattr(module, name, None)) is None:
        pipelines = [key for key, value in vars(module).items() if isinstance(value, Pipeline)]
        raise click.ClickException(
            f"module {module_name!r} has no {name!r}. Its pipelines: {listing(pipelines)}."
        )
    if callable(found) and not isinstance(found, Pipeline):
        found = found()
    if not isinstance(found, Pipeline):
        raise click.ClickException(f"{place!r} is of type {type(found).__name__}, not Pipeline.")
    return found


def _given(pairs: Sequence[str]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--set {pair}: a value is missing. Write NAME=VALUE.")
        try:
            values[name] = json.loads(text)
        except json.JSONDecodeError:
            values[name] = text
    return values


def _configured(pipeline: Pipeline, *, cache: Path | None, quiet: bool) -> Pipeline:
    if cache is not None:
        from hypernodes.cache.disk import DiskCache

        pipeline = pipeline.with_cache(DiskCache(cache))
    if not quiet and not pipeline.effective_callbacks:
        from hypernodes.callbacks.progress import ProgressCallback

        pipeline = pipeline.with_callbacks([ProgressCallback()])
    return pipeline


def _engine(
    executor: str | None,
    max_workers: int | None,
    address: str | None,
    working_dir: Path | None,
    *,
    is_map: bool,
) -> HyperNodesEngine | None:
    if executor is None:
        if max_workers is not None:
            raise click.UsageError("--max-workers needs an --executor other than that of the pipeline.")
        return None
    from hypernodes.engines import HyperNodesEngine
    from hypernodes.executors.aliases import make

    where: Any = executor
    if executor == "ray":
        _connect(address, working_dir)
    if executor != "sequential" and max_workers is not None:
        where = make(executor, max_workers)
    return HyperNodesEngine(map_executor=where) if is_map else HyperNodesEngine(node_executor=where)


def _connect(address: str | None, working_dir: Path | None) -> None:
    from hypernodes.executors.ray.connection import join

    # The workers of a job have the working directory of the job.
    if working_dir is None and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
        working_dir = Path.cwd()
    join(address, None if working_dir is None else {"working_dir": str(working_dir)})


def _inputs(inputs: Path | None, map_over: tuple[str, ...], map_mode: str) -> dict[str, Any]:
    if inputs is None:
        return {}
    if not files.is_table(inputs):
        return files.read_values(inputs)
    if not map_over:
        raise click.UsageError(f"{inputs} has rows. Name the columns that vary with --map-over.")
    columns = files.columns_of(inputs)
    by_name = {identifier(name): name for name in columns}
    for name in map_over:
        if columns and identifier(name) not in by_name:
            raise click.UsageError(f"{inputs} has no column {name!r}; it has {listing(columns)}.")
    map_over = tuple(by_name.get(identifier(name), name) for name in map_over)
    if map_mode == "product" and len(map_over) > 1:
        rows = list(files.read_rows(inputs, map_over))
        return {name: [row[name] for row in rows] for name in map_over}
    if len(map_over) == 1:
        return {map_over[0]: (row[map_over[0]] for row in files.read_rows(inputs, map_over))}
    return _columns_in_step(files.read_rows(inputs, map_over), map_over)


def _columns_in_step(rows: Iterator[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Iterator[Any]]:
    """Return iterators over columns of the same rows. Advanced in step, they keep few rows in memory."""
    copies = tee(rows, len(names))
    return {name: map(itemgetter(name), copy) for name, copy in zip(names, copies, strict=True)}
