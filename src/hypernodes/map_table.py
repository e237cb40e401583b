"""Maps over the rows of a table, and returns the table with the outputs as columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypernodes.columns.extended import DAFT, RAY_DATA, extended, kind_of_table
from hypernodes.engine import registered_engine
from hypernodes.exceptions import MapError
from hypernodes.inputs import input_columns, warn_of_unused_columns
from hypernodes.tables import table_of
from hypernodes.text import described

if TYPE_CHECKING:
    from hypernodes.definition import PipelineDefinition
    from hypernodes.inputs import MapOver
    from hypernodes.nested import OnError

ERROR: Final = "error"
"""The column with the errors of rows that failed."""


def map_table(
    pipeline: Any, table: Any, map_over: MapOver, outputs: tuple[str, ...] | None, on_error: OnError
) -> Any:
    """Return a table with the outputs as columns. See `Pipeline.map_table`."""
    where = pipeline._where
    kind = kind_of_table(table)
    if kind is None:
        table_of(table)  # A lazy frame of polars has an error of its own.
        raise MapError(
            f"{where}: map_table takes a table of pandas, polars, Arrow, Daft or Ray Data, not a "
            f"{type(table).__name__}. For values by name, use map."
        )
    if on_error == "return":
        _check_names(pipeline, table, where)
    if kind == RAY_DATA:
        from hypernodes.ray_data.dataset import map_dataset

        warn_of_unused_columns(table, map_over, pipeline.wiring, where)
        return map_dataset(
            pipeline, table, map_over, outputs, on_error, error_column=ERROR, keeps_columns=True
        )
    if kind == DAFT:
        if map_over is None and on_error == "raise":
            return pipeline.to_daft(table, outputs)
        return _daft_of(map_table(pipeline, table.to_arrow(), map_over, outputs, on_error))
    if pipeline.effective_engine.is_lazy:
        raise MapError(
            f"{where}: {pipeline.effective_engine!r} returns lazy data frames of Daft. Give "
            f"DaftEngine(collect=True) for other tables."
        )
    if kind == "pyarrow.RecordBatchReader":
        table = table.read_all()
    columns = pipeline.map(table, map_over, output_name=outputs, on_error=on_error)
    if on_error == "return":
        columns = _with_errors(columns)
    return extended(table, columns, kind, where)


def with_daft_columns(pipeline: PipelineDefinition, frame: Any, outputs: tuple[str, ...] | None) -> Any:
    """Return a data frame of Daft with the outputs as lazy columns. See `Pipeline.to_daft`."""
    table, where = table_of(frame), pipeline._where
    if table is None or type(frame).__module__.partition(".")[0] != "daft":
        raise MapError(
            f"{where}: to_daft takes a daft.DataFrame, not a {type(frame).__name__}. Convert it: "
            f"daft.from_pydict(...), daft.from_pandas(...)."
        )
    default: Any = registered_engine("daft")
    engine = pipeline.engine if isinstance(pipeline.engine, type(default)) else default
    columns, _ = input_columns(table, None, pipeline.wiring, where)
    return engine.add_columns(pipeline, frame, columns, outputs)


def _daft_of(table: Any) -> Any:
    import daft

    return daft.from_arrow(table)


def _check_names(pipeline: Any, table: Any, where: str) -> None:
    found = table_of(table)
    if ERROR in pipeline.output_names or (found is not None and ERROR in found.names):
        raise MapError(
            f"{where}: with on_error='return', the column {ERROR!r} has the errors of rows, but the table or "
            f"the pipeline has one of this name. Rename it."
        )


def _with_errors(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Return the outputs with None for exceptions, and a column of their types and texts."""
    errors: list[str | None] = [
        next((described(value) for value in row if isinstance(value, BaseException)), None)
        for row in zip(*columns.values(), strict=True)
    ]
    values = {
        name: [None if isinstance(value, BaseException) else value for value in column]
        for name, column in columns.items()
    }
    return {**values, ERROR: errors}
