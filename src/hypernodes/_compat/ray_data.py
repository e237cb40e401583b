"""What pipelines over data sets rely on in Ray Data 2.53 to 2.60 beyond its documented interface."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

GPU_ROWS: Final = 64
"""How many rows a call on a GPU gets at most, of which a model makes one batch."""


def map_tables(
    dataset: Any, function: Callable[..., Iterator[Any]] | type, *, retries: dict[str, int], **options: Any
) -> Any:
    """Return a data set whose blocks a function has mapped, which gets them as tables of Arrow.

    Why: a task whose rows end its process is begun again for ever by default. ``map_batches`` takes
    ``max_retries`` and ``max_task_retries`` with a warning only, and wants a number of rows where there is a
    GPU, to which it fills up the blocks: rows that take long would all be in one call.
    Before Ray 2.58, ``map_batches_internal`` has another name, and its parameters have no defaults.
    When it is gone: see whether ``map_batches`` takes the number of retries again.
    Until then, rows that end their process are tried without end.
    """
    options |= {"batch_format": "pyarrow", "udf_modifying_row_count": False}
    for name in ("map_batches_internal", "_map_batches_without_batch_size_validation"):
        if internal := getattr(dataset, name, None):
            options |= {"batch_size": None, "zero_copy_batch": True, **retries}
            parameters = signature(internal).parameters.values()
            required = [
                each.name
                for each in parameters
                if each.kind is each.KEYWORD_ONLY and each.default is each.empty
            ]
            return internal(function, **(dict.fromkeys(required) | options))
    rows = GPU_ROWS if "num_gpus" in options else None
    return dataset.map_batches(function, batch_size=rows, **options)
