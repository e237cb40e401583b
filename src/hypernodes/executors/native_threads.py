"""How many threads BLAS and OpenMP start in a worker process: its share of the cores, as with joblib.

NumPy, SciPy and others start as many threads as there are cores. In as many processes, that is cores x cores.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)

_lock = threading.Lock()


@contextmanager
def native_threads(workers: int) -> Iterator[None]:
    """Give each process that is started meanwhile its share of the cores, where the user has said nothing.

    A process reads these variables when it loads a library, before any code of this package runs in it.
    """
    with _lock:
        share = os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))
        unset = [name for name in VARIABLES if name not in os.environ]
        os.environ.update(dict.fromkeys(unset, share))
        try:
            yield
        finally:
            for name in unset:
                os.environ.pop(name, None)
