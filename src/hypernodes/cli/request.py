"""A run that a command line asks for: its inputs, the pipeline as configured, and its outputs."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import click

from hypernodes.cache.file import File
from hypernodes.cache.remote.address import check_url
from hypernodes.cli.hints import converted, input_hints, kind_of
from hypernodes.cli.items import Items, result_row
from hypernodes.cli.readers import SUFFIXES, Row, RowFile, open_rows, read_values
from hypernodes.cli.writers import writer
from hypernodes.exceptions import did_you_mean, listing
from hypernodes.expansion import parse_map_over, stream
from hypernodes.text import described, identifier, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hypernodes.engines import HyperNodesEngine
    from hypernodes.pipeline import Pipeline

T = TypeVar("T")

MAX_ERROR_LENGTH: Final = 300
"""Characters of the first error that are printed; the rows of results have all errors."""
_ERROR_COLUMNS: Final = ("error", "input")


@dataclass(frozen=True, slots=True)
class _Map:
    """The items of a map, the names of its outputs, and the inputs that are the same for all items."""

    items: Items
    keep: tuple[str, ...]
    names: tuple[str, ...]
    fixed: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the options of ``hypernodes run`` say."""

    pipeline: str
    inputs: Path | None
    given: tuple[str, ...]
    files: tuple[str, ...]
    map_over: tuple[str, ...]
    map_mode: Literal["zip", "product"]
    keep: tuple[str, ...]
    wanted: tuple[str, ...]
    out: Path | None
    on_error: Literal["raise", "return"]
    cache: Path | None
    remote: str | None
    max_workers: int | None
    executor: str | None
    address: str | None
    working_dir: Path | None
    quiet: bool

    def check(self) -> None:
        """Check what can be checked before anything is imported."""
        for option, path in (("--inputs", self.inputs), ("--out", self.out)):
            if path is not None and path.suffix.lower() not in SUFFIXES:
                raise click.UsageError(f"{option} {path}: the suffix must be one of {', '.join(SUFFIXES)}.")
        if self.address is not None and self.executor != "ray":
            raise click.UsageError("--address needs --executor ray.")
        if self.working_dir is not None and self.executor != "ray":
            raise click.UsageError("--working-dir needs --executor ray.")
        if self.max_workers is not None and self.executor in (None, "sequential"):
            raise click.UsageError("--max-workers needs an --executor that has workers.")
        if self.map_mode == "product" and not self.map_over:
            raise click.UsageError("--map-mode product needs --map-over, which names what is combined.")
        if self.remote is not None:
            if self.cache is None:
                raise click.UsageError("--remote needs --cache, the directory in front of the remote tier.")
            try:
                check_url(self.remote)
            except (ValueError, ImportError) as error:
                raise click.UsageError(str(error)) from None

    def carry_out(self, pipeline: Pipeline) -> int:
        """Run a pipeline, write its outputs, and return the number of items that failed."""
        out = None if self.out is None else self.out.absolute()
        inputs = None if self.inputs is None else self.inputs.absolute()
        configured = self._configured(pipeline)
        hints = self._hints(pipeline)
        rows = None if inputs is None else open_rows(inputs, hints)
        values = {} if inputs is None or rows is not None else _by_identifier(read_values(inputs), inputs)
        values |= _given(self.given, hints)
        mapped = self._map(configured, rows, values, hints) if self.map_over or rows is not None else None
        if mapped is None and (self.keep or self.on_error == "return"):
            option = "--keep" if self.keep else "--on-error return"
            raise click.UsageError(f"{option} needs rows: a file of rows, or --map-over.")
        engine = self._engine(is_map=mapped is not None)
        try:
            configured = configured if engine is None else configured.with_engine(engine)
            if mapped is not None:
                return self._write_map(configured, mapped, out)
            values = {name: converted(value, hints.get(name)) for name, value in values.items()}
            with writer(out, rows=False) as written:
                written.write(configured.run(values, list(self.wanted) or None))
        except KeyboardInterrupt:
            # The engine ends the workers of an alias. With --max-workers, the executor is no alias.
            for executor in () if engine is None else (engine.map_executor, engine.node_executor):
                getattr(executor, "terminate", int)()
            raise
        finally:
            if engine is not None:
                engine.shutdown()
        return 0

    def _write_map(self, pipeline: Pipeline, mapped: _Map, out: Path | None) -> int:
        columns = mapped.items.columns()
        has_errors = self.on_error == "return"
        added = _ERROR_COLUMNS if has_errors else ()
        failed, first = 0, ""
        with writer(out, rows=True, columns=("index", *mapped.keep, *mapped.names, *added)) as written:
            outputs = pipeline.imap(
                {**mapped.fixed, **columns},
                list(columns),
                output_name=list(self.wanted) or None,
                on_error=self.on_error,
            )
            for item, output in mapped.items.results(outputs):
                if isinstance(output, BaseException):
                    first = first or f"The first, item {item.index}: {described(output)[:MAX_ERROR_LENGTH]}"
                    failed += 1
                written.write(result_row(item, output, mapped.names, has_errors=has_errors))
        if failed:
            click.echo(f"{failed:,} items failed, {written.count - failed:,} did not. {first}", err=True)
        return failed

    # --------------------------------------------------------------------------------- what is mapped over

    def _map(
        self, pipeline: Pipeline, rows: RowFile | None, values: dict[str, Any], hints: Mapping[str, Any]
    ) -> _Map:
        where = f"pipeline {pipeline.pipeline_id!r}"
        is_product = self.map_mode == "product" and len(self.map_over) > 1
        if is_product and (unknown := [name for name in self.keep if name not in self.map_over]):
            raise click.UsageError(
                f"--keep {unknown[0]}: an item of --map-mode product belongs to no single row. Keep columns "
                f"that --map-over names."
            )
        read: Iterable[Row]
        if rows is None:
            varied = parse_map_over(self.map_over, values, where)
            map_over = _by_own_name(varied)
            keep = _by_own_name(
                _columns(tuple(map(identifier, self.keep)), tuple(values), "the inputs", "--keep")
            )
            fixed = {name: value for name, value in values.items() if name not in {*map_over, *keep}}
            together = tuple({**map_over, **keep})
            read = (Row(item) for item in stream(values, together, self.map_mode, where))
        else:
            map_over = self._mapped_columns(pipeline, rows, values)
            keep = _by_own_name(_columns(self.keep, rows.names, str(self.inputs), "--keep"))
            fixed = values
            unread = () if self.map_over else {*pipeline.input_names} - {*map_over, *values}
            columns = tuple(map_over.values())
            read = rows.checked(columns, tuple(dict.fromkeys((*columns, *keep))), unread)
            if is_product:
                lists: dict[str, list[Any]] = {column: [] for column in columns}
                for row in read:
                    if row.error is not None:
                        raise row.error
                    for column, cells in lists.items():
                        cells.append(row.values[column])
                read = (Row(item) for item in stream(lists, columns, "product", where))
        fixed = {name: converted(value, hints.get(name)) for name, value in fixed.items()}
        names = pipeline._check_names((*map_over, *fixed), self.wanted or None, is_map=True)
        self._check_columns(names, tuple(keep))
        items = Items(read, map_over, keep, hints, returns_errors=self.on_error == "return")
        return _Map(items, tuple(keep), names, fixed)

    def _mapped_columns(self, pipeline: Pipeline, rows: RowFile, given: Mapping[str, Any]) -> dict[str, str]:
        """Return the inputs that vary from row to row, each with its column."""
        by_name = _by_identifier({column: column for column in rows.names}, rows.path)
        inputs = [name for name in pipeline.input_names if name not in given]
        if not self.map_over:
            found = {name: by_name[name] for name in inputs if name in by_name}
            if found or not rows.names:
                return found or _by_own_name([name for name in inputs if name not in pipeline.optional])
            raise click.UsageError(
                f"no column of {self.inputs} is an input. It has {listing(rows.names)}; the pipeline takes "
                f"{listing(inputs)}. Name the columns that vary with --map-over, or rename them."
            )
        named = _columns(
            tuple(map(identifier, self.map_over)), tuple(by_name), str(self.inputs), "--map-over"
        )
        if (unused := [name for name in inputs if name in by_name and name not in named]) and not self.quiet:
            click.echo(f"columns that are inputs, but not used: {listing(unused)}. See --map-over.", err=True)
        return {name: by_name.get(name, name) for name in named}

    def _check_columns(self, outputs: Sequence[str], keep: Sequence[str]) -> None:
        added = _ERROR_COLUMNS if self.on_error == "return" else ()
        if both := [name for name in outputs if name in (*keep, *added)]:
            raise click.UsageError(
                f"the rows would have two columns of the name {both[0]!r}, one of them an output. Request "
                f"other outputs with --output, or keep other columns."
            )
        if both := [name for name in keep if name in added]:
            raise click.UsageError(
                f"--keep {both[0]}: rows have a column of this name for the errors of items."
            )

    # ------------------------------------------------------------------------------ how the pipeline is run

    def _hints(self, pipeline: Pipeline) -> dict[str, Any]:
        known = pipeline.input_names
        for name in self.files:
            if identifier(name) not in known:
                raise click.UsageError(
                    f"--file {name}: the pipeline has no such input; it takes {listing(known)}."
                    f"{did_you_mean(name, known)}"
                )
        return input_hints(pipeline) | dict.fromkeys(map(identifier, self.files), File)

    def _configured(self, pipeline: Pipeline) -> Pipeline:
        if self.cache is not None:
            from hypernodes.cache.disk import DiskCache

            pipeline = pipeline.with_cache(DiskCache(self.cache, remote=self.remote))
        if not self.quiet and not pipeline.effective_callbacks:
            from hypernodes.callbacks.progress import ProgressCallback

            pipeline = pipeline.with_callbacks([ProgressCallback()])
        return pipeline

    def _engine(self, *, is_map: bool) -> HyperNodesEngine | None:
        if self.executor is None:
            return None
        from hypernodes.engines import HyperNodesEngine
        from hypernodes.executors.aliases import make

        where: Any = self.executor
        if self.executor == "ray":
            self._connect()
        if self.executor != "sequential" and self.max_workers is not None:
            where = make(self.executor, self.max_workers)
        return HyperNodesEngine(map_executor=where) if is_map else HyperNodesEngine(node_executor=where)

    def _connect(self) -> None:
        from hypernodes.executors.ray.connection import join

        working_dir = self.working_dir
        # The workers of a job have the working directory of the job.
        if working_dir is None and "RAY_JOB_CONFIG_JSON_ENV_VAR" not in os.environ:
            working_dir = Path.cwd()
        join(self.address, None if working_dir is None else {"working_dir": str(working_dir)})


def _by_identifier(values: Mapping[str, T], path: Path) -> dict[str, T]:
    """Return values by their names as Python reads them."""
    found = {identifier(name): value for name, value in values.items()}
    if len(found) < len(values):
        raise click.ClickException(
            f"{path} has two names that Python reads as one: {listing(values)} are {listing(found)}."
        )
    return found


def _by_own_name(names: Iterable[str]) -> dict[str, str]:
    return {name: name for name in names}


def _columns(names: Sequence[str], known: Sequence[str], where: str, option: str) -> tuple[str, ...]:
    """Return the names of columns that an option gives, each once."""
    for name in names:
        if known and name not in known:
            raise click.UsageError(
                f"{option} {name}: {where} has no column {name!r}; it has {listing(known)}."
                f"{did_you_mean(name, known)}"
            )
    return tuple(dict.fromkeys(names))


def _given(pairs: Sequence[str], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Return the inputs that ``--set`` gives: JSON, or texts. An input that takes a text gets it as it is."""
    values: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise click.UsageError(f"--set {short(pair)}: a value is missing. Write NAME=VALUE.")
        name = identifier(name)
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        is_text = kind_of(hints.get(name)) in (str, File, Path) and isinstance(value, bool | int | float)
        values[name] = text if is_text else value
    return values
