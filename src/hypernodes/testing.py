"""For the tests of users: does a node's batch function do what its function does?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from hypernodes.cache.content import digest
from hypernodes.callbacks.event import Scope
from hypernodes.exceptions import SignatureError
from hypernodes.execution.calls.batch import call_batch, values
from hypernodes.execution.plan.build import build_plan
from hypernodes.execution.plan.placement import Placement
from hypernodes.mapping import expand, parse_map_over
from hypernodes.pipeline import Pipeline
from hypernodes.tables import table_of
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypernodes.node import Node
    from hypernodes.tables import DataFrame


def check_batch(
    node: Node,
    inputs: Mapping[str, Any] | DataFrame,
    map_over: str | Sequence[str] | None = None,
    *,
    tolerance: float = 0.0,
) -> None:
    """Compare a node's batch function with its function, value for value and type for type.

    Args:
        node: A node with ``batch=``.
        inputs: Values by name, as for `Pipeline.map`; or a table.
        map_over: The input or inputs that vary; of a table, every column by default.
        tolerance: By how much floats may differ, relative to the larger one.

    Raises:
        AssertionError: They differ; it names the first item for which they do.
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
    if node.batch is None:
        raise ValueError(f"{node!r} has no batch function")
    table = table_of(inputs)
    given: Mapping[str, Any] = inputs if table is None else table.columns(table.names)  # type: ignore[assignment]
    names = parse_map_over(list(given) if map_over is None else map_over, given, f"node {node.name!r}")
    items = expand(given, names, "zip", f"node {node.name!r}")
    fixed = {name: value for name, value in given.items() if name not in names}
    pipeline = Pipeline([node])
    rows = pipeline.map(given, list(names))
    step, *_ = build_plan(pipeline, tuple(given), None, Placement(), mapped=True).plan.calls()
    varying = {parameter: items.columns[name] for parameter, name in step.arguments if name in names}
    others = {parameter: fixed[name] for parameter, name in step.arguments if name in fixed}
    columns = call_batch(step, varying, others, range(len(items)), Scope(0, (pipeline.pipeline_id,)))
    for name, column in zip(node.output_names, columns, strict=True):
        for index, (one, other) in enumerate(zip(rows[name], values(column), strict=True)):
            if not _same(one, other, tolerance):
                raise AssertionError(
                    f"node {node.name!r}, item {index} of {name!r}: {_shown(one)} by its function, "
                    f"{_shown(other)} by its batch"
                )


def _same(one: Any, other: Any, tolerance: float) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return math.isclose(one, other, rel_tol=tolerance) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_same(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key], tolerance) for key in one)
    if hasattr(one, "__array__") and hasattr(one, "shape") and tolerance:
        return one.shape == other.shape and _same(one.tolist(), other.tolist(), tolerance)
    try:
        return digest(one) == digest(other)
    except SignatureError:
        return bool(one == other)


def _shown(value: Any) -> str:
    return f"{short(value)} ({type(value).__name__})"
