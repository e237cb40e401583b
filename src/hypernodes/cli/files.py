"""Inputs from files, and outputs to files: JSON, JSON lines, Parquet."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TextIO

import click

from hypernodes.exceptions import listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_BATCH: Final = 1000  # rows that are read and written at once
READ: Final = (".json", ".jsonl", ".parquet")
WRITTEN: Final = (".json", ".jsonl", ".parquet")


def is_table(path: Path) -> bool:
    """Whether a file has rows, which are read as they are needed."""
    return path.suffix in (".jsonl", ".parquet")


def read_values(path: Path) -> dict[str, Any]:
    """Return the inputs in a JSON file, by name."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise click.ClickException(f"{path} is no JSON: {error}") from None
    if not isinstance(values, dict):
        raise click.ClickException(
            f'{path} holds a {type(values).__name__}, but inputs are values by name: {{"x": [1, 2, 3]}}. '
            f"Rows go into a .jsonl file, one to a line."
        )
    return values


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of a table; of JSON lines, those of the first."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return tuple(pyarrow.parquet.read_schema(path).names)
    first = next(_json_lines(path), {})
    return tuple(first)


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Return the rows of a table, of which only some are in memory at a time.

    The file is opened at once: a job's working directory may be written anew while it begins.
    """
    if path.suffix == ".parquet":
        return _parquet_rows(path.open("rb"), columns)
    return _with_columns(_json_lines(path), columns, path)


def _parquet_rows(file: IO[bytes], columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with file, pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(_BATCH, columns=list(columns)):
            yield from batch.to_pylist()


def _with_columns(
    rows: Iterator[dict[str, Any]], columns: tuple[str, ...], path: Path
) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        missing = [name for name in columns if name not in row]
        if missing:
            raise click.ClickException(f"{path}, row {number}: there is no {listing(missing)}.")
        yield row


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    return _parsed(path.open(encoding="utf-8"), path)


def _parsed(lines: TextIO, path: Path) -> Iterator[dict[str, Any]]:
    with lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise click.ClickException(f"{path}, line {number} is no JSON: {error}") from None
            if not isinstance(row, dict):
                raise click.ClickException(f"{path}, line {number} is no object: {line.strip()[:60]}")
            yield row


class Writer(Protocol):
    """Where outputs go."""

    def write(self, outputs: Mapping[str, Any]) -> None:
        """Write the outputs of a run, or of one item."""


@contextmanager
def writer(path: Path | None, *, rows: bool) -> Iterator[Writer]:
    """Open a file for outputs; it appears under its name when it is whole.

    Args:
        path: The file; ``None`` for standard output.
        rows: Whether there is more than one set of outputs.
    """
    if path is None:
        yield _JsonWriter(sys.stdout, rows=rows, lines=rows)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    growing = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == ".parquet":
            made = _ParquetWriter(growing)
            yield made
            made.close()
        else:
            with growing.open("w", encoding="utf-8") as file:
                written = _JsonWriter(file, rows=rows, lines=path.suffix == ".jsonl")
                yield written
                written.close()
        growing.replace(path)
    finally:
        growing.unlink(missing_ok=True)


class _JsonWriter:
    def __init__(self, file: TextIO, *, rows: bool, lines: bool) -> None:
        self._file = file
        self._listed = rows and not lines
        self._indent = None if rows or lines else 2
        self._count = 0

    def write(self, outputs: Mapping[str, Any]) -> None:
        text = json.dumps(plain(outputs), indent=self._indent, ensure_ascii=False)
        if self._listed:
            self._file.write("[\n" if not self._count else ",\n")
            self._file.write(text)
        else:
            self._file.write(text + "\n")
        self._count += 1

    def close(self) -> None:
        if self._listed:
            self._file.write("\n]\n" if self._count else "[]\n")


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def write(self, outputs: Mapping[str, Any]) -> None:
        self._rows.append(plain(outputs))
        if len(self._rows) >= _BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        schema = None if self._writer is None else self._writer.schema
        try:
            table = pa.Table.from_pylist(self._rows, schema=schema)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise click.ClickException(
                f"these outputs do not fit the columns of a Parquet file: {error} Write .jsonl instead."
            ) from None
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._rows.clear()


def plain(value: Any) -> Any:
    """Return a value as JSON and Parquet have it.

    >>> plain({"a": (1, {2})})
    {'a': [1, [2]]}
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dict():
            return {str(key): plain(part) for key, part in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(part) for part in value]
        case Path():
            return str(value)
        case BaseException():
            return f"{type(value).__name__}: {value}"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    for method in ("model_dump", "tolist", "isoformat"):  # pydantic, numpy, datetime
        convert = getattr(value, method, None)
        if callable(convert):
            return plain(convert())
    raise click.ClickException(
        f"an output is a {type(value).__qualname__}, which a file of values cannot hold. Ask for other "
        f"outputs with --output, or add a node that makes plain values of it."
    )
