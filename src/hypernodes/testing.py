"""Helpers for the tests of users: a comparison of the batch function of a node with its function."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hypernodes.arguments import amount
from hypernodes.cache.content import digest
from hypernodes.callbacks.event import Scope
from hypernodes.exceptions import SignatureError
from hypernodes.execution.calls.batch import call_batch, values
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.placement import Placement
from hypernodes.expansion import expand, parse_map_over
from hypernodes.inputs import check_inputs
from hypernodes.pipeline import Pipeline
from hypernodes.tables import DataFrame, table_of
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.node import Node


def check_batch(
    node: Node[..., Any],
    inputs: Mapping[str, Any] | DataFrame,
    map_over: str | Sequence[str] | None = None,
    *,
    tolerance: float = 0.0,
) -> None:
    """Check that the batch function of a node returns the same values, of the same types, as its function.

    Args:
        node: A node with ``batch=``.
        inputs: Values by name, as for `Pipeline.map`; or a table.
        map_over: The input or inputs that vary from item to item; by default all.
        tolerance: The relative difference that is allowed between floats.

    Raises:
        AssertionError: The results differ; the message names the first item with a difference.
        ValueError: The node has no batch function.

    Example:
        >>> import pyarrow.compute as pc
        >>> from hypernodes import node
        >>> @node(output_name="longer", batch=lambda x, by: pc.add(x, by))
        ... def add(x: int, by: int) -> int:
        ...     return x + by
        >>> check_batch(add, {"x": [1, 2], "by": 5}, map_over="x")
        >>> check_batch(add, {"x": [1, 2.5], "by": 5}, map_over="x")
        Traceback (most recent call last):
        AssertionError: node 'add', item 0 of 'longer': 6 (int) by its function, 6.0 (float) by its batch
    """
    amount("tolerance", tolerance, where="check_batch")
    if node.batch is None:
        raise ValueError(f"{node!r} has no batch function. Give it one with @node(batch=...).")
    where = f"node {node.name!r}"
    table = table_of(inputs)
    given = check_inputs(inputs, where) if table is None else table.columns(table.names)
    names = parse_map_over(list(given) if map_over is None else map_over, given, where)
    items = expand(given, names, "zip", where)
    fixed = {name: value for name, value in given.items() if name not in names}
    pipeline = Pipeline([node])
    rows = pipeline.map(given, list(names))
    step, *_ = build_plan(pipeline, tuple(given), None, Placement(), mapped=True).plan.calls()
    varying = {parameter: items.columns[name] for parameter, name in step.arguments if name in names}
    others = {parameter: fixed[name] for parameter, name in step.arguments if name in fixed}
    columns = call_batch(step, varying, others, range(len(items)), Scope(0, (pipeline.pipeline_id,)))
    for name, column in zip(node.output_names, columns, strict=True):
        for index, (expected, found) in enumerate(zip(rows[name], values(column), strict=True)):
            if not _are_same(expected, found, tolerance):
                raise AssertionError(
                    f"{where}, item {index} of {name!r}: {_typed(expected)} by its function, "
                    f"{_typed(found)} by its batch"
                )


def _are_same(one: Any, other: Any, tolerance: float) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=tolerance) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(
            _are_same(a, b, tolerance) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(_are_same(one[key], other[key], tolerance) for key in one)
    if hasattr(one, "__array__") and hasattr(one, "shape") and tolerance:
        return one.shape == other.shape and _are_same(one.tolist(), other.tolist(), tolerance)
    try:
        return digest(one) == digest(other)
    except SignatureError:
        return bool(one == other)


def _typed(value: Any) -> str:
    return f"{short(value)} ({type(value).__name__})"
