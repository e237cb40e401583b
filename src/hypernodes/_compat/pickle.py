"""What hypernodes relies on in `pickle` beyond its documented interface."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # typeshed has the class without its attributes.
    from typing import Any, ClassVar

    class Unpickler:
        """The unpickler in Python."""

        dispatch: ClassVar[dict[int, Any]]
        stack: list[Any]
        metastack: list[list[Any]]
        memo: dict[int, Any]

        def __init__(self, file: Any, *, buffers: Any = None) -> None: ...
        def load(self) -> Any: ...
        def append(self, value: Any) -> None: ...
        def pop_mark(self) -> list[Any]: ...
        def find_class(self, module: str, name: str) -> Any: ...

else:
    from pickle import _Unpickler as Unpickler

__all__ = ["Unpickler"]
"""`Unpickler` is the unpickler in Python, which has a function for each opcode.

Why: a subclass goes on after an opcode that has raised an error, so that one bad value does not cost all
others of the same pickle. The documented `pickle.Unpickler` stops at the first error.
When the class is gone: use `pickle.loads` in `hypernodes.serialization.salvage`, so that the error of one
item is that of its chunk.
"""
