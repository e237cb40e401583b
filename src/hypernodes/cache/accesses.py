"""How does some code use attributes? The answer is read from its bytecode, never from its source."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Final

from hypernodes.cache.attribute_uses import Access, AttributeUses
from hypernodes.cache.code_flow import CodeFlow
from hypernodes.cache.dynamic import dynamic_uses
from hypernodes.cache.leaks import attributes_of_others, calls_of_others, leaks

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMATTING: Final = frozenset(("format", "print", "repr", "str"))


@dataclass(frozen=True, slots=True)
class Accesses:
    """What a function, with those defined in it, does with attributes."""

    all: tuple[Access, ...]
    names: frozenset[str]  # and string constants: the attributes and methods that the code may access
    is_dynamic: bool  # it may use attributes of any object by names that are computed
    is_dynamic_on_self: bool  # it may do so with the object that the method is called on
    leaks: frozenset[str]
    leaks_self: bool
    calls: frozenset[str]
    used_of_others: frozenset[str]
    formats: bool


@functools.lru_cache(maxsize=4096)
def accesses(code: CodeType, *, is_method: bool) -> Accesses:
    """Return how code uses attributes."""
    owner = code.co_varnames[0] if is_method and code.co_argcount else None
    found: list[Access] = []
    names: set[str] = set()
    leaked: set[str] = set()
    used: set[str] = set()
    calls: set[str] = set()
    dynamic: set[bool] = set()
    leaks_self = formats = False
    for inner, owner_there in _with_owner(code, owner):
        flow = CodeFlow(inner, owner_there)
        found += AttributeUses(flow).accesses()
        dynamic.update(dynamic_uses(flow))
        handed_on = leaks(flow)
        leaks_self = leaks_self or owner_there in handed_on
        leaked.update(*(used_of for name, used_of in handed_on.items() if name != owner_there))
        calls.update(calls_of_others(flow))
        used.update(attributes_of_others(flow))
        formats = formats or any(op.name.startswith("FORMAT_") for op in flow.ops)
        names.update(inner.co_names, (text for text in inner.co_consts if isinstance(text, str)))
    return Accesses(
        tuple(dict.fromkeys(found)),
        frozenset(names),
        False in dynamic,
        True in dynamic,
        frozenset(leaked),
        leaks_self,
        frozenset(calls),
        frozenset(used),
        formats or not _FORMATTING.isdisjoint(names),
    )


def _with_owner(code: CodeType, owner: str | None) -> Iterator[tuple[CodeType, str | None]]:
    """Iterate over code and the functions defined in it, with the variable of the method's object in each."""
    yield code, owner
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_owner(constant, owner if owner in constant.co_freevars else None)
