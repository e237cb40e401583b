"""The items of a map that a command line asks for, and the rows of its results."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import tee
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from hypernodes.cli.hints import converted
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hypernodes.cli.readers import Row, RowError


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a map.

    Attributes:
        index: Its place among the rows, those that cannot be used included.
        inputs: The inputs that vary, by name, as far as the row has them.
        kept: The values that its row of results keeps, by name.
        error: Why it cannot be mapped.
    """

    index: int
    inputs: dict[str, Any]
    kept: dict[str, Any]
    error: RowError | None


class Items:
    """Gives the rows of a file to a map, and finds the row again that an output belongs to.

    A row that cannot be used does not reach the map. With ``returns_errors``, its error is the result of its
    item; else the items before it are computed, and then the error is raised.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        map_over: Mapping[str, str],
        keep: Mapping[str, str],
        hints: Mapping[str, Any],
        *,
        returns_errors: bool,
    ) -> None:
        self._rows, self._map_over, self._keep, self._hints = rows, map_over, keep, hints
        self._returns_errors = returns_errors
        self._pending: deque[Item] = deque()
        self._failure: Exception | None = None

    def columns(self) -> dict[str, Iterator[Any]]:
        """Return iterators over the inputs. Advanced in step, they keep few items in memory."""
        names = tuple(self._map_over)
        copies = tee(self._mapped(), len(names))
        return {name: map(itemgetter(name), copy) for name, copy in zip(names, copies, strict=True)}

    def _mapped(self) -> Iterator[dict[str, Any]]:
        try:
            for index, row in enumerate(self._rows):
                item = self._item(index, row)
                if item.error is not None and not self._returns_errors:
                    self._failure = item.error
                    return
                self._pending.append(item)
                if item.error is None:
                    yield item.inputs
        except Exception as error:  # The file cannot be read further. What was read before is computed.
            self._failure = error

    def _item(self, index: int, row: Row) -> Item:
        values = row.values
        inputs = {
            name: converted(values[column], self._hints.get(name))
            for name, column in self._map_over.items()
            if column in values
        }
        kept = {name: values.get(column) for name, column in self._keep.items()}
        return Item(index, inputs, kept, row.error)

    def results(self, outputs: Iterable[tuple[int, Any]]) -> Iterator[tuple[Item, Any]]:
        """Yield each item with its outputs or its error, in the order of the rows."""
        for _, output in outputs:
            yield from self._unusable()
            yield self._pending.popleft(), output
        yield from self._unusable()
        if self._failure is not None:
            raise self._failure

    def _unusable(self) -> Iterator[tuple[Item, Any]]:
        while self._pending and self._pending[0].error is not None:
            item = self._pending.popleft()
            yield item, item.error


def result_row(item: Item, outputs: Any, names: Sequence[str], *, has_errors: bool) -> dict[str, Any]:
    """Return a row of results: index, kept columns, outputs; with `has_errors`, the error and its input."""
    row: dict[str, Any] = {"index": item.index, **item.kept}
    if not isinstance(outputs, BaseException):
        row |= outputs
        return {**row, "error": None, "input": None} if has_errors else row
    return {**row, **dict.fromkeys(names), "error": described(outputs), "input": item.inputs}
