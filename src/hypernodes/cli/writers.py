"""Files of outputs: JSON, JSON lines, CSV and Parquet, each complete or not there under its name."""

from __future__ import annotations

import csv
import io
import pickle
import sys
import tempfile
from contextlib import contextmanager, nullcontext, suppress
from secrets import token_hex
from typing import IO, TYPE_CHECKING, Any, Final, Protocol, TextIO

import click

from hypernodes.columns.extended import storable
from hypernodes.columns.plain import Plain, as_text, encodable, to_json
from hypernodes.columns.types import ColumnType
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

ROWS_PER_GROUP: Final = 1000
"""Rows of a Parquet file that are written together; the other rows are not in memory."""


class Writer(Protocol):
    """A destination of outputs, those of a run or of each item.

    Attributes:
        count: The rows written.
    """

    count: int

    def write(self, outputs: Mapping[str, Any]) -> None:
        """Write a row."""

    def close(self) -> None:
        """Write what is left."""


@contextmanager
def writer(path: Path | None, *, rows: bool, columns: tuple[str, ...] = ()) -> Iterator[Writer]:
    """Open a file for outputs, or standard output. The file gets its name when it is complete.

    It is written under a name that no other file has. If the run fails, the rows that were computed before
    are kept under another name, which is printed.
    """
    plain = Plain()
    if path is None:
        yield _JsonWriter(sys.stdout, plain, rows=rows, lines=rows)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        token = token_hex(4)
        partial = path.with_name(f".{path.name}.{token}.part")
        try:
            # Mode "x" follows no link: a file or link of this name is an error.
            with partial.open("xb") as file, _spool_of(path) as spool:
                made = _writer(file, spool, path, plain, rows=rows, columns=columns)
                try:
                    yield made
                except BaseException:
                    with suppress(Exception):
                        _keep(made, partial, path.with_name(f"{path.stem}.partial-{token}{path.suffix}"))
                    raise
                _close(made, path.with_name(f"{path.stem}.partial-{token}.jsonl"))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    for remark in plain.remarks():
        click.echo(remark, err=True)


def _spool_of(path: Path) -> AbstractContextManager[IO[bytes] | None]:
    is_parquet = path.suffix.lower() == ".parquet"
    return tempfile.TemporaryFile(dir=path.parent) if is_parquet else nullcontext()


def _writer(
    file: IO[bytes],
    spool: IO[bytes] | None,
    path: Path,
    plain: Plain,
    *,
    rows: bool,
    columns: tuple[str, ...],
) -> Writer:
    if spool is not None:
        return _ParquetWriter(file, spool, plain, columns)
    text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _CsvWriter(text, plain, columns)
    return _JsonWriter(text, plain, rows=rows, lines=suffix == ".jsonl")


def _keep(made: Writer, partial: Path, kept: Path) -> None:
    """Keep the rows that were computed before a failure under another name."""
    if made.count:
        made.close()
        partial.rename(kept)
        click.echo(f"{made.count:,} rows that were computed before are in {kept}", err=True)


def _close(made: Writer, kept: Path) -> None:
    try:
        made.close()
    except Exception as error:
        if not isinstance(made, _ParquetWriter):
            raise
        with kept.open("x", encoding="utf-8") as file:
            for row in made.rows():
                file.write(to_json(row) + "\n")
        raise click.ClickException(
            f"the outputs cannot be written as Parquet ({described(error)}). They are in {kept}."
        ) from None


class _JsonWriter:
    def __init__(self, file: TextIO, plain: Plain, *, rows: bool, lines: bool) -> None:
        self._file, self._plain = file, plain
        self._is_list = rows and not lines
        self._indent = None if rows or lines else 2
        self.count = 0

    def write(self, outputs: Mapping[str, Any]) -> None:
        text = to_json(self._plain.row(outputs), self._indent)
        if self._is_list:
            self._file.write(("[\n" if not self.count else ",\n") + text)
        else:
            self._file.write(text + "\n")
        self.count += 1

    def close(self) -> None:
        if self._is_list:
            self._file.write("\n]\n" if self.count else "[]\n")
        self._file.flush()


class _CsvWriter:
    """Writes texts as they are, nothing for ``None``, and JSON for all other values."""

    def __init__(self, file: TextIO, plain: Plain, columns: tuple[str, ...]) -> None:
        self._file, self._plain, self._columns = file, plain, tuple(dict.fromkeys(columns))
        self._writer = csv.writer(file, lineterminator="\n")
        if columns:
            self._writer.writerow(self._columns)
        self.count = 0

    def write(self, outputs: Mapping[str, Any]) -> None:
        row = self._plain.row(outputs)
        if not self._columns:
            self._columns = tuple(row)
            self._writer.writerow(self._columns)
        self._writer.writerow([_cell(row[name]) for name in self._columns])
        self.count += 1

    def close(self) -> None:
        self._file.flush()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return encodable(value)
    return to_json(value) if isinstance(value, bool | int | float | list | dict) else as_text(value)


class _ParquetWriter:
    """Keeps the rows in a temporary file until all are there: only then are the types of columns known."""

    def __init__(self, file: IO[bytes], spool: IO[bytes], plain: Plain, columns: tuple[str, ...]) -> None:
        self._file, self._spool, self._plain = file, spool, plain
        self._buffer: list[dict[str, Any]] = []
        self._types = {name: ColumnType() for name in columns}
        self.count = 0

    def write(self, outputs: Mapping[str, Any]) -> None:
        row = self._plain.row(outputs)
        for name, value in row.items():
            self._types.setdefault(name, ColumnType()).add(value)
        self._buffer.append(row)
        self.count += 1
        if len(self._buffer) >= ROWS_PER_GROUP:
            self._flush()

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield all rows written."""
        for group in self._groups():
            yield from group

    def close(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet

        self._flush()
        texts = [name for name, kind in self._types.items() if not kind.fits_parquet]
        types = {name: kind.arrow() for name, kind in self._types.items()}
        # The schema of Arrow in the file would tell readers that texts are large; Parquet knows one kind.
        with pyarrow.parquet.ParquetWriter(
            self._file, pa.schema(list(types.items())), store_schema=False
        ) as out:
            for group in self._groups():
                columns = [
                    pa.array([storable(row.get(name), as_json=name in texts) for row in group], kind)
                    for name, kind in types.items()
                ]
                out.write_table(pa.table(columns, names=list(types)))
        for name in texts:
            click.echo(
                f"column {name!r} has values that no one type of Parquet holds: it has them as JSON texts.",
                err=True,
            )

    def _flush(self) -> None:
        if self._buffer:
            self._spool.seek(0, io.SEEK_END)
            pickle.dump(self._buffer, self._spool, pickle.HIGHEST_PROTOCOL)
            self._buffer = []

    def _groups(self) -> Iterator[list[dict[str, Any]]]:
        self._spool.seek(0)
        with suppress(EOFError):
            while True:
                yield pickle.load(self._spool)
