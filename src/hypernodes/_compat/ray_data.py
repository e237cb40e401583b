"""What pipelines over data sets rely on in Ray Data 2.60 beyond its documented interface."""

from __future__ import annotations

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
    When ``map_batches_internal`` is gone: see whether ``map_batches`` takes the number of retries again.
    Until then, rows that end their process are tried without end.
    """
    options |= {"batch_format": "pyarrow", "udf_modifying_row_count": False}
    internal = getattr(dataset, "map_batches_internal", None)
    if internal is not None:
        return internal(function, batch_size=None, **retries, **options)
    rows = GPU_ROWS if "num_gpus" in options else None
    return dataset.map_batches(function, batch_size=rows, **options)
