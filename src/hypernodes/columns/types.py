"""The type of a column, from all its values, so that none of them loses anything."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_EXACT: Final = 1 << 53  # the integers up to here are exact as floats
_INT64: Final = range(-(1 << 63), 1 << 63)


@dataclass(slots=True)
class ColumnType:
    """The type of all values seen so far. Each `add` may widen it.

    Attributes:
        name: The name of the type of scalars; ``"list"`` and ``"dict"``; empty if only ``None`` was seen.
        parts: The types of the elements of lists (under an empty name), or of the values of mappings.
        is_mixed: Whether there are values that no one type of Parquet holds without loss.
    """

    name: str = ""
    parts: dict[str, ColumnType] = field(default_factory=dict)
    is_mixed: bool = False

    def add(self, value: Any) -> None:
        """Widen the type so that it holds a plain value."""
        if value is None:
            return
        if isinstance(value, list):
            self._widen("list")
            part = self.parts.setdefault("", ColumnType())
            if part.name == "float" and all(type(each) is float for each in value):
                return  # the common case of vectors
            for each in value:
                part.add(each)
        elif isinstance(value, dict):
            self._widen("dict")
            for key, each in value.items():
                self.parts.setdefault(key, ColumnType()).add(each)
        else:
            self._widen(_name_of(value))

    def _widen(self, name: str) -> None:
        if name in ("", self.name):
            return
        names = {self.name, name} - {""}
        if len(names) == 1:
            self.name = name
        elif names == {"int", "float"}:
            self.name = "float"
        elif names == {"int", "large int"}:
            self.name = "large int"
        else:
            self.is_mixed = True

    @property
    def fits_parquet(self) -> bool:
        """Whether a type of Parquet holds all values."""
        if self.is_mixed or self.name == "huge int" or (self.name == "dict" and not self.parts):
            return False
        return all(part.fits_parquet for part in self.parts.values())

    def arrow(self) -> pa.DataType:
        """Return the type of Arrow; that of texts if no one type holds all values."""
        import pyarrow as pa

        if not self.fits_parquet:
            return pa.large_string()
        if self.name == "list":
            return pa.list_(self.parts[""].arrow())
        if self.name == "dict":
            return pa.struct([(key, part.arrow()) for key, part in self.parts.items()])
        scalars: dict[str, pa.DataType] = {
            "": pa.null(),
            "bool": pa.bool_(),
            "int": pa.int64(),
            "large int": pa.int64(),
            "float": pa.float64(),
            "str": pa.large_string(),
            "bytes": pa.large_binary(),
            "date": pa.date32(),
            "time": pa.time64("us"),
            "datetime": pa.timestamp("us"),
            "datetime with zone": pa.timestamp("us", "UTC"),
        }
        return scalars[self.name]


def _name_of(value: Any) -> str:
    match value:
        case bool() | str() | float() | bytes():
            return type(value).__name__
        case int():
            if abs(value) <= _MAX_EXACT:
                return "int"
            return "large int" if value in _INT64 else "huge int"
        case datetime():
            return "datetime" if value.tzinfo is None else "datetime with zone"
        case date() | time():
            return type(value).__name__
    raise TypeError(f"{type(value).__name__} is not the type of a plain value")
