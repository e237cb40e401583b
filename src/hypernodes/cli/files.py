"""Files of inputs and outputs: JSON, JSON lines and Parquet."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, TextIO, TypeAlias

import click

from hypernodes.exceptions import listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROWS_PER_BATCH: Final = 1000
"""Rows of a Parquet file that are read or written together; the other rows are not in memory."""
SUFFIXES: Final = (".json", ".jsonl", ".parquet")
"""The suffixes of the files that can be read and written."""


def is_table(path: Path) -> bool:
    """Whether a file has rows, which are read while the map runs."""
    return path.suffix in (".jsonl", ".parquet")


def read_values(path: Path) -> dict[str, Any]:
    """Read inputs by name from a JSON file."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise click.ClickException(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise click.ClickException(
            f'{path} holds a {type(values).__name__}, but inputs are an object: {{"x": [1, 2, 3]}}. '
            f"Write rows into a .jsonl file, one per line."
        )
    return values


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of a file with rows; of JSON lines, those of the first row."""
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return tuple(pyarrow.parquet.read_schema(path).names)
    first = next(_json_lines(path), {})
    return tuple(first)


def read_rows(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Return an iterator over the rows of a file. Only a bounded number of rows is in memory.

    The file is opened by this call and not by the first row: Ray may replace the working directory of a job
    while the job starts.
    """
    if path.suffix == ".parquet":
        return _parquet_rows(path.open("rb"), columns)
    return _with_columns(_json_lines(path), columns, path)


def _parquet_rows(file: IO[bytes], columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with file, pyarrow.parquet.ParquetFile(file) as table:
        for batch in table.iter_batches(ROWS_PER_BATCH, columns=list(columns)):
            yield from batch.to_pylist()


def _with_columns(
    rows: Iterator[dict[str, Any]], columns: tuple[str, ...], path: Path
) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(rows, 1):
        missing = [name for name in columns if name not in row]
        if missing:
            raise click.ClickException(f"{path}, row {number}: no value for {listing(missing)}.")
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
                raise click.ClickException(f"{path}, line {number} is not valid JSON: {error}") from None
            if not isinstance(row, dict):
                raise click.ClickException(
                    f'{path}, line {number} is not an object like {{"x": 1}}: {line.strip()[:60]}'
                )
            yield row


@contextmanager
def writer(path: Path | None, *, rows: bool) -> Iterator[Writer]:
    """Open a file for outputs, or standard output. The file gets its name when it is complete."""
    if path is None:
        yield _JsonWriter(sys.stdout, rows=rows, lines=rows)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    try:
        if path.suffix == ".parquet":
            parquet_writer = _ParquetWriter(partial)
            yield parquet_writer
            parquet_writer.close()
        else:
            with partial.open("w", encoding="utf-8") as file:
                json_writer = _JsonWriter(file, rows=rows, lines=path.suffix == ".jsonl")
                yield json_writer
                json_writer.close()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class _JsonWriter:
    def __init__(self, file: TextIO, *, rows: bool, lines: bool) -> None:
        self._file = file
        self._is_list = rows and not lines
        self._indent = None if rows or lines else 2
        self._count = 0

    def write(self, outputs: Mapping[str, Any]) -> None:
        text = json.dumps(plain(outputs), indent=self._indent, ensure_ascii=False)
        if self._is_list:
            self._file.write("[\n" if not self._count else ",\n")
            self._file.write(text)
        else:
            self._file.write(text + "\n")
        self._count += 1

    def close(self) -> None:
        if self._is_list:
            self._file.write("\n]\n" if self._count else "[]\n")


class _ParquetWriter:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._writer: Any = None

    def write(self, outputs: Mapping[str, Any]) -> None:
        self._rows.append(plain(outputs))
        if len(self._rows) >= ROWS_PER_BATCH:
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
                f"the outputs do not fit the columns of a Parquet file: {error} Write a .jsonl file instead."
            ) from None
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)
        self._rows.clear()


def plain(value: Any) -> Any:
    """Convert a value to the types of JSON and Parquet.

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
        f"an output is of type {type(value).__qualname__}, which a file of values cannot hold. Request other "
        f"outputs with --output, or add a node that converts it to plain values."
    )


Writer: TypeAlias = _JsonWriter | _ParquetWriter
"""A destination of outputs, those of a run or of each item."""
