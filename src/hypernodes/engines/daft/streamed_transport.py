"""The transport of a lazy data frame: columns keep their types, since others read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from daft import DataType, Series

from hypernodes.engines.daft.columns import array_of, list_of, object_series, restored, typed_series
from hypernodes.engines.daft.transport import InputColumn, OutputColumn, Transport
from hypernodes.execution.calls.batch import values
from hypernodes.raw_errors import is_a
from hypernodes.serialization.errors import as_remote_error
from hypernodes.serialization.pickling import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.exceptions import HintError


class StreamedTransport(Transport):
    """Leaves values in columns of Daft, which go from one storage to another."""

    def __init__(self, *, is_remote: bool) -> None:
        self._is_remote = is_remote

    @property
    def object_type(self) -> DataType:
        """Daft's own type for Python objects."""
        return DataType.python()

    def write_objects(self, name: str, column: Sequence[Any], positions: Sequence[int]) -> Series:
        """Return a column of Python objects."""
        return object_series(column)

    def read_objects(self, name: str, series: Series, positions: Sequence[int]) -> list[Any]:
        """Return the values of a column of Python objects."""
        return list_of(series)

    def read_inputs(
        self, inputs: Sequence[InputColumn], series: Sequence[Series], positions: Sequence[int]
    ) -> dict[str, Any]:
        """Return the inputs of a stage as lists or Arrow arrays, by name."""
        columns: dict[str, Any] = {}
        for value, column in zip(inputs, series, strict=True):
            if value.dtype is None:
                columns[value.name] = self.read_objects(value.name, column, positions)
                continue
            found = array_of(column)
            is_restored = value.is_output and isinstance(found, list)
            columns[value.name] = restored(found, value.dtype) if is_restored else found
        return columns

    def write_outputs(
        self, outputs: Sequence[OutputColumn], columns: Mapping[str, Any], positions: Sequence[int]
    ) -> tuple[dict[str, Series], dict[str, HintError]]:
        """Return the columns for the outputs of a stage; a value that does not fit its hint is an error."""
        written = {
            output.name: self.write_objects(output.name, values(columns[output.name]), positions)
            if output.dtype is None
            else typed_series(columns[output.name], output.dtype, output.label, exactly=False)
            for output in outputs
        }
        return written, {}

    def raise_error(self, error: BaseException) -> NoReturn:
        """Raise an error for the user of the data frame: itself if Daft hands it on, else one with its text.

        Daft hangs on a StopIteration, and loses what is no Exception. From another process it hands on only
        errors that plain pickle can rebuild.
        """
        is_lost = not is_a(error, Exception) or is_a(error, (StopIteration, StopAsyncIteration))
        if is_lost or (self._is_remote and not _can_pickle(error)):
            raise as_remote_error(error) from error
        raise error


def _can_pickle(error: BaseException) -> bool:
    try:
        return type(loads(dumps(error))) is type(error)
    except Exception:
        return False
