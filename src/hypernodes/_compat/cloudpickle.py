"""What hypernodes relies on in cloudpickle beyond its documented interface."""

from __future__ import annotations

from types import CodeType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    # cloudpickle has no types. Its class extends the one of the standard library.
    from pickle import Pickler
else:
    from cloudpickle import Pickler

__all__ = ["Pickler", "reduce_code"]
"""`Pickler` is the class that `cloudpickle.dumps` uses.

Why: a subclass with ``reducer_override`` leaves values out of a pickle that reach the worker in another way,
and one pickler that is used again pickles many small values faster. cloudpickle documents only its functions.
When the class is gone: pickle with `pickle.Pickler`, and use `cloudpickle.dumps` in its ``reducer_override``
for functions and classes.
"""

_NO_FILE: Final = "<dynamic-code>"


def reduce_code(pickler: Any, code: CodeType) -> Any:
    """Return how a pickler reduces a code object, with the name of its file.

    Why: cloudpickle 3.1.2 and later write ``<dynamic-code>`` in the place of the file name: tracebacks do not
    say where a function is.
    When ``dispatch_table`` has no `CodeType`: return ``NotImplemented``, and see what tracebacks show.
    """
    rebuild, arguments = pickler.dispatch_table[CodeType](code)
    return rebuild, tuple(
        code.co_filename if isinstance(part, str) and part == _NO_FILE else part for part in arguments
    )
