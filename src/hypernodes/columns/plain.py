"""Outputs as the values that files and columns can hold; nothing is left out."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from hypernodes.tables import is_table, table_of, values_of
from hypernodes.text import described, short

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_REPR_LENGTH: Final = 10_000
"""Characters of the text that stands for a value which no file can hold."""


class Plain:
    """Converts rows of outputs to values of JSON and Parquet, and counts those that become a ``repr``.

    Texts, numbers, lists, mappings, bytes and times stay. Dataclasses, models of pydantic, arrays and tables
    become mappings and lists. Any other value becomes its ``repr``.
    """

    def __init__(self) -> None:
        self.replaced: Counter[tuple[str, str]] = Counter()

    def row(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Convert the outputs of an item.

        >>> Plain().row({"a": (1, {2}), "b": 1j})
        {'a': [1, [2]], 'b': '1j'}
        """
        return {name: self._top(name, value) for name, value in outputs.items()}

    def remarks(self) -> Iterator[str]:
        """Yield a sentence for each output with values that no file can hold."""
        for (name, kind), count in self.replaced.items():
            yield f"output {name!r}: {count:,} values of type {kind} were written as their repr."

    def _top(self, name: str, value: Any) -> Any:
        try:
            return self._converted(name, value)
        except Exception:  # The value contains itself, or does not let itself be read.
            return self._as_repr(name, value)

    def _converted(self, name: str, value: Any) -> Any:
        if type(value).__name__ in ("NAType", "NaTType"):  # what pandas has for None
            return None
        match value:
            case None | bool():
                return value
            # Subclasses, as those of numpy and enum have them, become what they are made of.
            case str():
                return str.__str__(value)
            case int():
                return int.__int__(value)
            case float():
                return float.__float__(value)
            case bytes() | bytearray() | memoryview():
                return bytes(value)
            case datetime():
                # pandas counts nanoseconds, which other times do not have.
                return value.isoformat() if getattr(value, "nanosecond", 0) else value
            case date() | time():
                return value if getattr(value, "tzinfo", None) is None else value.isoformat()
            case timedelta():
                return value.total_seconds()
            case Decimal() | UUID():
                return str(value)
            case Enum():
                return self._converted(name, value.value)
            case Mapping():
                return self._mapping(name, value)
            case list() | tuple() | set() | frozenset():
                return [self._converted(name, part) for part in value]
            case os.PathLike():
                return self._converted(name, os.fspath(value))
            case BaseException():
                return described(value)
        return self._object(name, value)

    def _mapping(self, name: str, value: Mapping[Any, Any]) -> Any:
        keys = {key: key if isinstance(key, str) else str(self._converted(name, key)) for key in value}
        if len(set(keys.values())) < len(keys):  # 1 and "1"
            return self._as_repr(name, value)
        return {str(keys[key]): self._converted(name, part) for key, part in value.items()}

    def _object(self, name: str, value: Any) -> Any:
        if isinstance(value, type):
            return self._as_repr(name, value)
        if dataclasses.is_dataclass(value):
            fields = dataclasses.fields(value)
            return {field.name: self._converted(name, getattr(value, field.name)) for field in fields}
        if is_table(value) and (table := table_of(value)) is not None:
            rows = table.rows(table.names)
            return [self._mapping(name, dict(zip(table.names, row, strict=True))) for row in rows]
        if (listed := values_of(value)) is not value:
            return self._converted(name, listed)
        if getattr(getattr(value, "dtype", None), "kind", "") in ("M", "m"):  # numpy's times, to nanoseconds
            return self._converted(name, value.astype(str).tolist())
        for method in ("model_dump", "tolist", "as_py", "isoformat"):  # pydantic, numpy, Arrow, pendulum
            convert = getattr(value, method, None)
            if callable(convert):
                return self._converted(name, convert())
        return self._as_repr(name, value)

    def _as_repr(self, name: str, value: Any) -> str:
        self.replaced[name, type(value).__qualname__] += 1
        return short(value, MAX_REPR_LENGTH)


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a plain value as JSON, which has texts for bytes (base64) and times (ISO 8601)."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, default=as_text)
    try:
        text.encode()
    except UnicodeEncodeError:  # Half of a surrogate pair, which UTF-8 cannot encode; an escape can.
        return json.dumps(value, indent=indent, default=as_text)
    return text


def as_text(value: Any) -> str:
    """Return bytes or a time as a text."""
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value.isoformat())


def encodable(text: str) -> str:
    """Return a text that UTF-8 can encode: escapes stand for halves of surrogate pairs."""
    return text.encode("utf-8", "backslashreplace").decode()
