"""How values go from stage to stage and back to the driver, and come out as they went in.

A value that Arrow has a type for stands in a column of that type. One that does not fit goes beside the
column: within one process it is kept where it is, and only a mark goes through Daft; between processes it
goes as a pickle.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections import deque
from dataclasses import dataclass, field
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any, Final, NoReturn

from hypernodes.engines.daft.columns import array_of, listed, objects, typed
from hypernodes.exceptions import DaftError, HintError, RemoteError
from hypernodes.execution.calls.batch import values
from hypernodes.serialization.errors import deserialize_error, serialize_error
from hypernodes.serialization.pickling import dumps, dumps_each, loads

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from daft import DataType, Series

    from hypernodes.serialization.errors import SerializedError


@dataclass(frozen=True, slots=True)
class Taken:
    """A value that a stage takes for each item.

    Attributes:
        name: Its name.
        dtype: The type of its column, or ``None`` for objects.
        is_made: Whether another stage makes it, so that some may not have fitted.
    """

    name: str
    dtype: DataType | None
    is_made: bool


@dataclass(frozen=True, slots=True)
class Made:
    """A value that a stage makes for each item, for other stages.

    Attributes:
        name: Its name.
        dtype: The type that its node's hint says, or ``None`` for objects.
        node: The node, for messages.
    """

    name: str
    dtype: DataType | None
    node: str

    @property
    def what(self) -> str:
        """What it is, for messages."""
        return f"output {self.name!r} of node {self.node!r}"


@dataclass(frozen=True, slots=True)
class Report:
    """What a call of a UDF tells the driver.

    Attributes:
        places: Of which items.
        outputs: Their outputs that are asked for, by name.
        outcome: What came of them, where they are run whole; packed while it travels.
        misfits: What did not fit its hint.
        error: What has ended the query.
    """

    places: Sequence[int]
    outputs: dict[str, list[Any]] = field(default_factory=dict)
    outcome: Any = None
    misfits: tuple[HintError, ...] = ()
    error: BaseException | None = None


_PATIENCE: Final = 5.0  # seconds for calls that nobody waits for to end


def spare_of(name: str) -> str:
    """Return the name of the column beside a typed one."""
    return f"{name} as objects"


class Wire(ABC):
    """The way between stages, and back to the driver."""

    has_spares = True

    def enter(self) -> None:
        """Take note that a call begins.

        Raises:
            DaftError: Nobody waits for it any longer.
        """
        self.check()

    def check(self) -> None:
        """See whether somebody waits for what is being computed.

        Raises:
            DaftError: Nobody does.
        """
        return

    def leave(self) -> None:
        """Take note that a call ends."""
        return

    def stop(self) -> None:
        """Have calls end that are under way, as far as they can be reached."""
        return

    @property
    @abstractmethod
    def objects(self) -> DataType:
        """The type of a column of objects."""

    @property
    @abstractmethod
    def spares(self) -> DataType:
        """The type of the column beside a typed one, for what does not fit there."""

    @property
    @abstractmethod
    def reports(self) -> DataType:
        """The type of the column in which reports come back."""

    @abstractmethod
    def put(self, name: str, column: Sequence[Any], places: Sequence[int]) -> Series:
        """Return a column of objects."""

    @abstractmethod
    def get(self, name: str, series: Series, places: Sequence[int]) -> list[Any]:
        """Return the values of a column of objects."""

    @abstractmethod
    def spare(self, name: str, column: Sequence[Any] | None, places: Sequence[int]) -> Series:
        """Return the column beside a typed one: the objects that did not fit, or nothing."""

    @abstractmethod
    def spared(self, name: str, series: Series, places: Sequence[int]) -> dict[int, Any]:
        """Return the objects that did not fit into a typed column, by row."""

    @abstractmethod
    def report(self, report: Report) -> Series:
        """Return a column that brings a report to the driver."""

    @abstractmethod
    def arrived(self, columns: Sequence[Any]) -> Iterator[Report]:
        """Return the reports that have arrived, with the Arrow arrays in which they come."""

    @abstractmethod
    def fail(self, error: BaseException) -> NoReturn:
        """Raise an error so that it arrives in the driver as it is."""

    @abstractmethod
    def failure(self, error: BaseException) -> BaseException:
        """Return the error that a UDF has raised, of what has arrived."""

    def take(self, taken: Sequence[Taken], series: Sequence[Series], places: Sequence[int]) -> dict[str, Any]:
        """Return lists or Arrow arrays of what a stage takes."""
        columns: dict[str, Any] = {}
        rest = iter(series)
        for value in taken:
            column = next(rest)
            if value.dtype is None:
                columns[value.name] = self.get(value.name, column, places)
                continue
            columns[value.name] = array_of(column)
            if value.is_made and self.has_spares:
                misfits = self.spared(value.name, next(rest), places)
                if misfits:
                    fitting = values(columns[value.name])
                    columns[value.name] = [misfits.get(row, found) for row, found in enumerate(fitting)]
        return columns

    def give(
        self,
        made: Sequence[Made],
        columns: Mapping[str, Any],
        places: Sequence[int],
        misfits: list[HintError],
    ) -> dict[str, Series]:
        """Return the columns of what a stage has made, and put down what did not fit its hint."""
        given: dict[str, Series] = {}
        for value in made:
            column = columns[value.name]
            if value.dtype is None:
                given[value.name] = self.put(value.name, values(column), places)
                continue
            spare: list[Any] | None = None
            try:
                given[value.name] = typed(column, value.dtype, value.what)
            except HintError as error:
                spare = values(column)
                if not _is_typable(spare, value):
                    misfits.append(error)
                given[value.name] = typed([None] * len(column), value.dtype, value.what)
            given[spare_of(value.name)] = self.spare(value.name, spare, places)
        return given


def _is_typable(column: list[Any], value: Made) -> bool:
    """Whether nobody could complain of the hint."""
    assert value.dtype is not None
    try:
        typed(column, value.dtype, value.what, exactly=False)
    except HintError:
        return False
    return True


# ------------------------------------------------------------------------------- within one process


@dataclass(slots=True)
class _Part:
    places: Sequence[int]
    column: list[Any]
    left: int


class _Shelf:
    """Values of one name, part by part, until each has been taken as often as it is needed.

    Args:
        takers: How many stages take them; with 0 they stay.
    """

    def __init__(self, takers: int) -> None:
        self._takers = takers
        self._parts: dict[int, _Part] = {}
        self._lock = Lock()

    def put(self, places: Sequence[int], column: list[Any]) -> None:
        with self._lock:
            self._parts[places[0]] = _Part(places, column, len(column) * self._takers)

    def get(self, places: Sequence[int]) -> list[Any]:
        with self._lock:
            same = self._parts.get(places[0])
            if same is not None and same.places == places:
                self._take(places[0], len(places))
                return same.column
            found: dict[int, Any] = {}
            wanted = set(places)
            low, high = min(places), max(places)
            for part in list(self._parts.values()):
                if part.places[0] > high or part.places[-1] < low:
                    continue
                here = {
                    place: value
                    for place, value in zip(part.places, part.column, strict=True)
                    if place in wanted
                }
                found |= here
                self._take(part.places[0], len(here))
            return [found[place] for place in places]

    def _take(self, start: int, count: int) -> None:
        part = self._parts[start]
        part.left -= count
        if self._takers and part.left <= 0:
            del self._parts[start]


class Here(Wire):
    """The way within this process: objects stay where they are.

    Args:
        takers: How many stages take each value; 0 for one that stays.
    """

    def __init__(self, takers: Mapping[str, int]) -> None:
        self._shelves = {name: _Shelf(count) for name, count in takers.items()}
        self._reports: deque[Report] = deque()
        self._error: BaseException | None = None
        self._is_stopped = False
        self._calls = 0
        self._changed = Condition()

    def enter(self) -> None:
        """Take note that a call begins."""
        with self._changed:
            self._calls += 1
        self.check()

    def check(self) -> None:
        """See whether it has been stopped."""
        if self._is_stopped:
            raise DaftError("nobody waits for this query any longer")

    def leave(self) -> None:
        """Take note that a call ends."""
        with self._changed:
            self._calls -= 1
            self._changed.notify_all()

    def stop(self) -> None:
        """Have calls end that are under way, and wait for them for a while.

        A thread that runs Python code when the program ends would take it down.
        """
        self._is_stopped = True
        with self._changed:
            self._changed.wait_for(lambda: not self._calls, timeout=_PATIENCE)

    @property
    def objects(self) -> DataType:
        """A column that says nothing: the places of its rows say it all."""
        from daft import DataType

        return DataType.bool()

    @property
    def spares(self) -> DataType:
        """Marks."""
        return self.objects

    @property
    def reports(self) -> DataType:
        """A column that says nothing."""
        return self.objects

    def put(self, name: str, column: Sequence[Any], places: Sequence[int]) -> Series:
        """Keep objects."""
        if places:
            self._shelves[name].put(places, column if isinstance(column, list) else list(column))
        return _nothing(len(places))

    def get(self, name: str, series: Series, places: Sequence[int]) -> list[Any]:
        """Return objects that were kept."""
        del series
        return self._shelves[name].get(places) if places else []

    def spare(self, name: str, column: Sequence[Any] | None, places: Sequence[int]) -> Series:
        """Keep the objects that did not fit."""
        if column is None:
            return _nothing(len(places))
        import pyarrow as pa
        from daft import Series

        self.put(name, column, places)
        return Series.from_arrow(pa.array([True] * len(places)))

    def spared(self, name: str, series: Series, places: Sequence[int]) -> dict[int, Any]:
        """Return what was kept because it did not fit."""
        marks = series.to_arrow()
        if marks.null_count == len(marks):
            return {}
        rows = [row for row, mark in enumerate(marks.to_pylist()) if mark]
        kept = self._shelves[name].get([places[row] for row in rows])
        return dict(zip(rows, kept, strict=True))

    def report(self, report: Report) -> Series:
        """Put down a report."""
        self._reports.append(report)
        return _nothing(len(report.places))

    def arrived(self, columns: Sequence[Any]) -> Iterator[Report]:
        """Return what was put down."""
        del columns
        while self._reports:
            yield self._reports.popleft()

    def fail(self, error: BaseException) -> NoReturn:
        """Keep it, and raise what Daft hands on: it waits for ever where it gets a StopIteration, say."""
        with self._changed:
            self._error = error if self._error is None else self._error
        raise Kept from None

    def failure(self, error: BaseException) -> BaseException:
        """Return what was kept."""
        return self._error if isinstance(error, Kept) and self._error is not None else error


class Kept(Exception):  # noqa: N818  never caught: it turns into what was kept
    """Raised in a UDF in place of an error that stays in this process."""


def _nothing(count: int) -> Series:
    import pyarrow as pa
    from daft import Series

    return Series.from_arrow(pa.nulls(count, pa.bool_()))


# -------------------------------------------------------------------------------- between processes


class Away(Wire):
    """The way between processes: objects are pickled."""

    # Not Daft's own column type for objects: that takes longer, and classes of a script come back from it as
    # other classes.
    @property
    def objects(self) -> DataType:
        """Pickles."""
        from daft import DataType

        return DataType.binary()

    @property
    def spares(self) -> DataType:
        """Pickles."""
        return self.objects

    @property
    def reports(self) -> DataType:
        """Pickles."""
        return self.objects

    def put(self, name: str, column: Sequence[Any], places: Sequence[int]) -> Series:
        """Return the pickles of objects."""
        del name, places
        return _binary(list(dumps_each(column)))

    def get(self, name: str, series: Series, places: Sequence[int]) -> list[Any]:
        """Return objects, of their pickles."""
        del name, places
        return list(map(loads, series.to_arrow().to_pylist()))

    def spare(self, name: str, column: Sequence[Any] | None, places: Sequence[int]) -> Series:
        """Return the pickles of what did not fit."""
        return _binary([None] * len(places)) if column is None else self.put(name, column, places)

    def spared(self, name: str, series: Series, places: Sequence[int]) -> dict[int, Any]:
        """Return what did not fit, of its pickles."""
        del name, places
        pickles = series.to_arrow()
        if pickles.null_count == len(pickles):
            return {}
        return {row: loads(pickle) for row, pickle in enumerate(pickles.to_pylist()) if pickle is not None}

    def report(self, report: Report) -> Series:
        """Return a column that has a report in its first row."""
        count = len(report.places)
        return _binary([dumps(report), *[None] * (count - 1)] if count else [])

    def arrived(self, columns: Sequence[Any]) -> Iterator[Report]:
        """Return the reports that are in columns."""
        for column in columns:
            for pickle in column.drop_null().to_pylist():
                yield loads(pickle)

    def fail(self, error: BaseException) -> NoReturn:
        """Raise it in a form in which it travels."""
        raise InText(serialize_error(error)) from None

    def failure(self, error: BaseException) -> BaseException:
        """Return what is in the text that Ray, or Daft, has brought here."""
        found = _IN_TEXT.search(str(error))
        return error if found is None else deserialize_error(loads(b64decode(found[1])))


class InText(Exception):  # noqa: N818  never caught: it turns into what it carries
    """Raised in a worker in place of an error, which is in its text: no more than that may come through."""

    def __init__(self, packed: SerializedError) -> None:
        super().__init__(f"<{b64encode(dumps(packed)).decode()}>")
        self.packed = packed

    def __reduce__(self) -> tuple[Any, ...]:
        return InText, (self.packed,)


_IN_TEXT: Final = re.compile(r"InText: <([A-Za-z0-9+/=]+)>")


def _binary(column: list[bytes | None]) -> Series:
    import pyarrow as pa
    from daft import Series

    return Series.from_arrow(pa.array(column, pa.large_binary()))


# --------------------------------------------------------------------- from one storage to another


class Through(Away):
    """The way of rows that do not come here: columns keep their types, since others read them.

    Args:
        far: Whether other processes compute them.
    """

    has_spares = False

    def __init__(self, *, far: bool) -> None:
        self._far = far

    @property
    def objects(self) -> DataType:
        """Python objects, as Daft has them."""
        from daft import DataType

        return DataType.python()

    def put(self, name: str, column: Sequence[Any], places: Sequence[int]) -> Series:
        """Return a column of Python objects."""
        del name, places
        return objects(column)

    def get(self, name: str, series: Series, places: Sequence[int]) -> list[Any]:
        """Return the values of a column of Python objects."""
        del name, places
        return listed(series)

    def give(
        self,
        made: Sequence[Made],
        columns: Mapping[str, Any],
        places: Sequence[int],
        misfits: list[HintError],
    ) -> dict[str, Series]:
        """Return the columns of what a stage has made.

        Raises:
            HintError: A value does not fit its hint.
        """
        del misfits
        return {
            value.name: self.put(value.name, values(columns[value.name]), places)
            if value.dtype is None
            else typed(columns[value.name], value.dtype, value.what, exactly=False)
            for value in made
        }

    def fail(self, error: BaseException) -> NoReturn:
        """Raise it, for whoever runs the query: the error itself if Daft hands it on, else its text."""
        stops = not isinstance(error, Exception) or isinstance(error, StopIteration | StopAsyncIteration)
        if stops or (self._far and not _can_travel(error)):
            told = RemoteError(f"{type(error).__qualname__}: {error}")
            for text in getattr(error, "__notes__", ()):
                told.add_note(text)
            raise told from error
        raise error


def _can_travel(error: BaseException) -> bool:
    try:
        return type(loads(dumps(error))) is type(error)
    except Exception:
        return False
