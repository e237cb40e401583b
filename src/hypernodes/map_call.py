"""A call of `Pipeline.map`: over values, over tables, over the items that failed in an earlier map."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypernodes.columns.extended import RAY_DATA, kind_of_table
from hypernodes.exceptions import MapError
from hypernodes.inputs import all_columns_vary, map_inputs
from hypernodes.mapping import collect, failed_items
from hypernodes.tables import table_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.engine import Engine
    from hypernodes.inputs import Inputs, MapInputs, MapOver
    from hypernodes.inspection import PipelineInspection
    from hypernodes.mapping import Columns
    from hypernodes.nested import MapMode, OnError

    Names = tuple[str, ...]


def map_call(
    pipeline: PipelineInspection,
    inputs: Inputs,
    map_over: MapOver,
    map_mode: MapMode,
    wanted: Names | None,
    on_error: OnError,
    previous: Mapping[str, Sequence[Any]] | None,
) -> dict[str, list[Any]]:
    """Run a pipeline once per item. See `Pipeline.map`, which has checked the options."""
    where, engine = pipeline._where, pipeline.effective_engine
    if kind_of_table(inputs) == RAY_DATA:
        if map_mode != "zip" or previous is not None:
            raise MapError(
                f"{where}: a data set of Ray Data is mapped row by row, and takes neither map_mode='product' "
                f"nor previous=."
            )
        from hypernodes.ray_data.dataset import map_dataset

        dataset: dict[str, list[Any]] = map_dataset(pipeline, inputs, map_over, wanted, on_error)
        return dataset
    if (table := table_of(inputs)) is not None and map_mode == "zip" and previous is None:
        columns = all_columns_vary(table, map_over, pipeline.wiring, where)
        if columns is not None:
            outputs: dict[str, list[Any]] | None = engine.map_frame(
                pipeline, inputs, columns, wanted, on_error=on_error
            )
            if outputs is not None:
                return outputs
    given = map_inputs(inputs, map_over, map_mode, graph=pipeline.wiring, where=where)
    if not given.items and not engine.is_lazy:
        return _map_no_items(pipeline, engine, given, wanted)
    if previous is not None:
        return _map_failed(pipeline, engine, given, wanted, on_error, previous)
    # No local variable holds the rows: since Python 3.12, the traceback of an error keeps this frame.
    return _collected(
        engine.map(pipeline, given.items, given.fixed, wanted, on_error=on_error),
        pipeline,
        engine,
        given,
        wanted,
    )


def _collected(
    rows: Any,
    pipeline: PipelineInspection,
    engine: Engine,
    given: MapInputs[Columns],
    wanted: Names | None,
) -> dict[str, list[Any]]:
    if engine.is_lazy:
        lazy: dict[str, list[Any]] = rows
        return lazy
    names = next((tuple(row) for row in rows if not isinstance(row, BaseException)), None)
    return collect(rows, _output_names(pipeline, given, wanted) if names is None else names)


def _map_failed(
    pipeline: PipelineInspection,
    engine: Engine,
    given: MapInputs[Columns],
    wanted: Names | None,
    on_error: OnError,
    previous: Mapping[str, Sequence[Any]],
) -> dict[str, list[Any]]:
    """Compute the items that failed in an earlier map, and complete its result."""
    if engine.is_lazy:
        raise MapError(
            f"{pipeline._where}: previous= needs results, and {engine!r} returns a lazy data frame. Give "
            f"DaftEngine(collect=True)."
        )
    names = _output_names(pipeline, given, wanted)
    failed = failed_items(previous, names, len(given.items), pipeline._where)
    complete = {name: list(previous[name]) for name in names}
    if failed:
        rows = engine.map(pipeline, given.items.only(failed), given.fixed, wanted, on_error=on_error)
        for name, values in collect(rows, names).items():
            for index, value in zip(failed, values, strict=True):
                complete[name][index] = value
    return complete


def _map_no_items(
    pipeline: PipelineInspection, engine: Engine, given: MapInputs[Columns], wanted: Names | None
) -> dict[str, list[Any]]:
    """Check the inputs of a map without items, and emit its events if there are callbacks."""
    outputs = _output_names(pipeline, given, wanted)
    if pipeline.effective_callbacks:
        list(engine.imap(pipeline, iter(()), given.names, given.fixed, wanted))
    return {name: [] for name in outputs}


def _output_names(pipeline: PipelineInspection, given: MapInputs[Columns], wanted: Names | None) -> Names:
    return pipeline._check_names((*given.names, *given.fixed), wanted, is_map=True)
