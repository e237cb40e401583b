"""Files of inputs: values by name (JSON), or rows (JSON lines, CSV, Parquet), read while a map runs."""

from __future__ import annotations

import codecs
import csv
import json
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from hypernodes.cli.hints import parsed, says_type
from hypernodes.exceptions import listing
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

ROWS_PER_BATCH: Final = 1000
"""Rows of a Parquet file that are read together, and rows of JSON lines whose keys are the columns."""
MAX_LINE_LENGTH: Final = 200
"""Characters of a line in an error."""
_NUMBER_TYPES: Final[tuple[type, ...]] = (int, float)


class RowError(ValueError):
    """A row of a file has no value for an input, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a file: its values, as far as they can be read, and why it cannot be used."""

    values: dict[str, Any]
    error: RowError | None = None


def read_values(path: Path) -> dict[str, Any]:
    """Read inputs by name from a JSON file."""
    try:
        values = json.loads(
            path.read_bytes()
        )  # recognizes UTF-8 with and without a byte order mark, and UTF-16
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise click.ClickException(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise click.ClickException(
            f'{path} holds a {type(values).__name__}, but inputs are an object: {{"x": [1, 2, 3]}}. '
            f"Write rows into a .jsonl file, one per line."
        )
    return values


class RowFile(ABC):
    """A file of rows.

    Attributes:
        names: The columns; of JSON lines, those of the first rows.
    """

    names: tuple[str, ...]

    def __init__(self, path: Path, hints: Mapping[str, Any]) -> None:
        self.path, self.hints = path, hints

    @abstractmethod
    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        """Return an iterator over the rows, of which only a bounded number is in memory.

        The file is opened by this call and not by the first row: Ray may replace the working directory of a
        job while the job starts.
        """

    def checked(
        self, needed: Sequence[str], columns: Sequence[str], unread: Collection[str]
    ) -> Iterator[Row]:
        """Return an iterator over the rows. A row without one of the columns needed has an error."""
        rows = self.rows(columns)
        return (self._checked(number, row, needed, unread) for number, row in enumerate(rows, 1))

    def _checked(self, number: int, row: Row, columns: Sequence[str], unread: Collection[str]) -> Row:
        if row.error is not None:
            return row
        where = f"{self.path.name}, row {number}"
        if missing := [name for name in columns if name not in row.values]:
            return Row(row.values, RowError(f"{where}: no value for {listing(missing)}."))
        if extra := [name for name in row.values if name in unread]:
            return Row(
                row.values,
                RowError(
                    f"{where} has a value for the input {listing(extra)}, which the first {ROWS_PER_BATCH:,} "
                    f"rows have not. Name the columns with --map-over."
                ),
            )
        return row


def open_rows(path: Path, hints: Mapping[str, Any]) -> RowFile | None:
    """Return a reader of a file of rows; ``None`` for a file of values by name."""
    kind = _ROW_FILES.get(path.suffix.lower())
    return None if kind is None else kind(path, hints)


class _ParquetRows(RowFile):
    def __init__(self, path: Path, hints: Mapping[str, Any]) -> None:
        import pyarrow.parquet

        super().__init__(path, hints)
        self.names = tuple(pyarrow.parquet.read_schema(path).names)

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        import pyarrow.parquet

        file = self.path.open("rb")

        def read() -> Iterator[Row]:
            with file, pyarrow.parquet.ParquetFile(file) as table:
                for batch in table.iter_batches(ROWS_PER_BATCH, columns=list(columns)):
                    for values in batch.to_pylist():
                        yield Row(values)

        return read()


class _JsonRows(RowFile):
    def __init__(self, path: Path, hints: Mapping[str, Any]) -> None:
        super().__init__(path, hints)
        first = (row.values for row in islice(self.rows(()), ROWS_PER_BATCH))
        self.names = tuple(dict.fromkeys(name for values in first for name in values))

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        del columns
        return self._parsed(_open_text(self.path))

    def _parsed(self, lines: TextIO) -> Iterator[Row]:
        with lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                where = f"{self.path.name}, line {number}"
                shown = short(line.strip(), MAX_LINE_LENGTH)
                try:
                    values = json.loads(_decoded(line))
                except ValueError as error:
                    yield Row({}, RowError(f"{where} is not valid JSON ({error}): {shown}"))
                    continue
                if isinstance(values, dict):
                    yield Row(values)
                else:
                    yield Row({}, RowError(f'{where} is not an object like {{"x": 1}}: {shown}'))


class _CsvRows(RowFile):
    """Cells are what the hint of the input says; of a column without a hint, what all its cells are."""

    def __init__(self, path: Path, hints: Mapping[str, Any]) -> None:
        super().__init__(path, hints)
        csv.field_size_limit(sys.maxsize)
        with _open_text(path, newline="") as file:
            reader = csv.reader(file, strict=True)
            try:
                self.names = tuple(next(reader, ()))
            except csv.Error as error:
                raise click.ClickException(f"{path}, line 1, is not valid CSV: {error}.") from None
            duplicates = sorted({name for name in self.names if self.names.count(name) > 1})
            if duplicates:
                raise click.ClickException(f"{path} has two columns of the same name: {listing(duplicates)}.")
            self._types = _types_of_cells(
                reader, [name for name in self.names if not says_type(hints.get(name))], self.names
            )

    def rows(self, columns: Sequence[str]) -> Iterator[Row]:
        return self._parsed(_open_text(self.path, newline=""), columns)

    def _parsed(self, file: TextIO, columns: Sequence[str]) -> Iterator[Row]:
        with file:
            reader = csv.reader(file, strict=True)
            next(reader, None)
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield Row(
                        {}, RowError(f"{self.path.name}, line {reader.line_num} is not valid CSV: {error}.")
                    )
                    continue
                if cells is None:
                    return
                if cells:
                    yield self._row(cells, columns, f"{self.path.name}, line {reader.line_num}")

    def _row(self, cells: list[str], columns: Sequence[str], where: str) -> Row:
        texts = dict(zip(self.names, cells, strict=False))
        values: dict[str, Any] = {}
        errors: list[str] = []
        if len(cells) != len(self.names):
            errors.append(f"{where} has {len(cells)} cells, but the file has {len(self.names)} columns.")
        for name in (name for name in columns if name in texts):
            try:
                values[name] = self._value(name, _decoded(texts[name]))
            except ValueError as error:
                values[name] = texts[name]
                errors.append(f"{where}: column {name!r}: {error}.")
        if not errors:
            return Row(values)
        # Of a row that cannot be used, inputs stay as they are in the file. An id has the type of other rows.
        return Row(values | {name: texts[name] for name in values if name in self.hints}, RowError(errors[0]))

    def _value(self, name: str, text: str) -> Any:
        if name not in self._types:
            return parsed(text, self.hints.get(name))
        return None if text == "" and self._types[name] is not str else self._types[name](text)


def _types_of_cells(
    reader: Any, untyped: Sequence[str], names: Sequence[str]
) -> dict[str, Callable[[str], Any]]:
    """Return the types of the columns without a hint: numbers, if all cells are numbers; otherwise texts."""
    types: dict[str, Callable[[str], Any]] = dict.fromkeys(untyped, int)
    places = [(name, names.index(name)) for name in untyped]
    empty = set(untyped)
    while any(kind is not str for kind in types.values()):
        try:
            cells = next(reader, None)
        except csv.Error:
            continue
        if cells is None:
            break
        for name, place in places:
            text = cells[place] if place < len(cells) else ""
            if text:
                empty.discard(name)
                types[name] = _wider(types[name], text)
    return types | dict.fromkeys(empty, str)


def _wider(kind: Callable[[str], Any], text: str) -> Callable[[str], Any]:
    if kind is int and text.removeprefix("-").isdecimal() and text.isascii():
        # A leading zero is that of a code, such as a postcode.
        return int if len(text.removeprefix("-")) == 1 or text.removeprefix("-")[0] != "0" else str
    if kind in _NUMBER_TYPES:
        digits = text.removeprefix("-").removeprefix("+")
        try:
            float(text)
        except ValueError:
            return str
        if (
            text == text.strip()
            and digits[:1] in "0123456789."
            and "_" not in text
            and not (digits[0] == "0" and digits[1:2].isdigit())
        ):
            return float
    return str


def _open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a text file in UTF-8, with or without a byte order mark. Bytes that are no UTF-8 stay visible."""
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise click.ClickException(f"{path} is in UTF-16. Convert it: iconv -f UTF-16 -t UTF-8 {path}")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline=newline)


def _decoded(text: str) -> str:
    """Return a text of a file.

    Raises:
        ValueError: It has bytes that are no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("it is not in UTF-8") from None
    return text


_ROW_FILES: Final[dict[str, type[RowFile]]] = {
    ".jsonl": _JsonRows,
    ".csv": _CsvRows,
    ".parquet": _ParquetRows,
}
SUFFIXES: Final = (".json", *_ROW_FILES)
"""The suffixes of the files that can be read and written."""
