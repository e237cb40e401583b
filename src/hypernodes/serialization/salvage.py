"""Unpickles as much of a value as can be unpickled: a part that raises an error is lost, and nothing else.

The unpickler of the standard library stops at the first error. This one puts a `Lost` in the place of the
part, and in the place of each object that was made of a `Lost`.
"""

from __future__ import annotations

import io
import pickle
from typing import TYPE_CHECKING, Any, ClassVar, Final

from hypernodes._compat.pickle import Unpickler
from hypernodes.raw_errors import METHOD_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Lost:
    """Stands for a part of a value that could not be unpickled."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __repr__(self) -> str:
        return "…"


def find_lost(value: Any) -> Lost | None:
    """Return a lost part of a value, if there is one."""
    seen: set[int] = set()
    left = [value]
    while left:
        part = left.pop()
        if type(part) is Lost:
            return part
        if type(part) in _CONTAINERS and id(part) not in seen:
            seen.add(id(part))
            left += [*part, *part.values()] if type(part) is dict else part
    return None


_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})


def load_what_is_left(header: bytes, buffers: Iterable[Any]) -> Any:
    """Unpickle a value, with a `Lost` in the place of each part that cannot be unpickled."""
    return _Salvager(io.BytesIO(header), buffers=buffers).load()


class _Salvager(Unpickler):
    dispatch: ClassVar = dict(Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except METHOD_ERRORS as error:
            return Lost(error)


def _guarded(opcode: bytes, count: int, *, fills: bool) -> Callable[[_Salvager], None]:
    """Return the function of an opcode, which goes on after an error.

    Args:
        opcode: The opcode.
        count: How many objects it takes from the stack; 0 if it takes those since the last mark.
        fills: Whether it fills the first of them, or the object before the mark; else it makes an object.
    """
    load = Unpickler.dispatch[opcode[0]]

    def load_or_lose(unpickler: _Salvager) -> None:
        marked = unpickler.stack if count == 0 else []
        stack = unpickler.metastack[-1] if count == 0 else unpickler.stack
        start = len(stack) - (count or fills)
        operands = [*stack[start:], *marked]
        try:
            if not (fills and type(operands[0]) in _CONTAINERS) and (lost := find_lost(operands)):
                raise lost.error
            load(unpickler)
        except METHOD_ERRORS as error:
            if unpickler.stack is marked:
                unpickler.pop_mark()
            stack[start:] = [Lost(error)]
            for key, value in unpickler.memo.items() if fills else ():
                if value is operands[0]:
                    unpickler.memo[key] = stack[-1]

    return load_or_lose


_Salvager.dispatch |= {
    opcode[0]: _guarded(opcode, count, fills=fills)
    for opcode, count, fills in (
        (pickle.REDUCE, 2, False),
        (pickle.NEWOBJ, 2, False),
        (pickle.NEWOBJ_EX, 3, False),
        (pickle.BUILD, 2, True),
        (pickle.APPEND, 2, True),
        (pickle.SETITEM, 3, True),
        (pickle.APPENDS, 0, True),
        (pickle.SETITEMS, 0, True),
        (pickle.ADDITEMS, 0, True),
        (pickle.FROZENSET, 0, False),
    )
}
