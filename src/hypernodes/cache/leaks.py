"""Which objects does code hand on, whose changes could be seen in its result?

An attribute that is only written cannot influence a result, unless the result contains the object itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypernodes.cache.changes import MUTATORS
from hypernodes.cache.code_flow import LOADS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.cache.code_flow import CodeFlow

PASSED: Final = "()"
"""Stands for the use of a variable as an argument, or in a loop."""

_ONLY_POPS: Final = frozenset(("STORE_FAST", "STORE_DEREF", "STORE_GLOBAL", "POP_TOP"))
_HANDS_ON: Final = frozenset(
    (
        *("RETURN_VALUE", "YIELD_VALUE", "BUILD_LIST", "BUILD_TUPLE", "BUILD_MAP", "BUILD_SET"),
        *("BUILD_CONST_KEY_MAP", "LIST_APPEND", "LIST_EXTEND", "SET_ADD", "SET_UPDATE", "MAP_ADD"),
        *("STORE_SUBSCR", "STORE_ATTR", "STORE_FAST", "STORE_DEREF", "STORE_GLOBAL", "YIELD_FROM"),
    )
)
_ENDS: Final = ("RETURN_VALUE", "YIELD_VALUE")
_KEEPS_ARGUMENT: Final = frozenset(
    (
        *("copy", "deepcopy", "dict", "enumerate", "filter", "iter", "list", "map", "max", "min", "next"),
        *("replace", "reversed", "set", "sorted", "tuple", "zip"),
    )
)
"""Functions whose result contains their argument."""


def leaks(flow: CodeFlow) -> dict[str, frozenset[str]]:
    """Return the variables that code hands on, each with the names of what it uses of them besides."""
    handed_on: set[str] = set()
    uses: dict[str, set[str]] = {}
    for position, op in enumerate(flow.ops):
        if op.name not in LOADS and op.name != "LOAD_GLOBAL":
            continue
        name = str(op.argument)
        consumer, depth = _consumer(flow, position)
        consuming = flow.op(consumer)
        if consuming.name in _HANDS_ON and not _is_changed(flow, consumer, depth):
            handed_on.add(name)
        elif consuming.name == "CALL":
            function = flow.op(flow.start_of_call(consumer) - 1)
            keeps = _KEEPS_ARGUMENT | MUTATORS if function.name == "LOAD_ATTR" else _KEEPS_ARGUMENT
            if function.argument in keeps:
                handed_on.add(name)
            else:
                uses.setdefault(name, set()).add(PASSED)
        else:
            uses.setdefault(name, set()).update(_uses(flow, position))
    return {name: frozenset(uses.get(name, ())) for name in handed_on}


def _uses(flow: CodeFlow, position: int) -> set[str]:
    """Return the attributes that are used of the value loaded here, and of what it leads to."""
    found: set[str] = set()
    while True:
        position, depth = _consumer(flow, position)
        op = flow.op(position)
        match op.name:
            case "LOAD_ATTR" | "STORE_ATTR" | "DELETE_ATTR":
                found.add(str(op.argument))
            case "CALL" if depth > int(str(op.argument)):
                pass  # The value is called: what it returns may lead to the same object.
            case "CALL":
                return found | {PASSED}
            case "BINARY_SUBSCR":
                pass
            case "GET_ITER" | "STORE_FAST" | "STORE_DEREF":
                # Another variable holds it, or a part of it.
                return found | set(attributes_of_others(flow))
            case _:
                return found


def attributes_of_others(flow: CodeFlow) -> Iterator[str]:
    """Yield the attributes that code uses of variables other than the object of the method."""
    for position, op in enumerate(flow.ops):
        if op.name in ("LOAD_ATTR", "STORE_ATTR", "DELETE_ATTR") and not flow.loads_owner(position - 1):
            yield str(op.argument)


def calls_of_others(flow: CodeFlow) -> Iterator[str]:
    """Yield the methods of other objects, apart from globals, that code passes arguments to."""
    for position, op in enumerate(flow.ops):
        if op.name != "CALL" or not op.argument:
            continue
        start = flow.start_of_call(position)
        method, owner = flow.op(start - 1), flow.producer(start - 1)
        if (
            method.name == "LOAD_ATTR"
            and any(argument.name != "LOAD_CONST" for argument in flow.ops[start:position])
            and not flow.loads_owner(owner)
            and flow.op(owner).name != "LOAD_GLOBAL"
        ):
            yield str(method.argument)


def _is_changed(flow: CodeFlow, store: int, depth: int) -> bool:
    """Return whether a value is not stored here, but the object of which an attribute or item is set."""
    is_augmented = flow.op(store - 1).name == "SWAP"
    match flow.op(store).name:
        case "STORE_ATTR":
            return is_augmented or depth == 1
        case "STORE_SUBSCR":
            return is_augmented or depth == 2
    return False


def _consumer(flow: CodeFlow, load: int) -> tuple[int, int]:
    """Return the position of the instruction that takes the value loaded here, and its depth on the stack."""
    depth = 1
    for position in range(load + 1, len(flow.ops)):
        op = flow.ops[position]
        limit = 0 if op.name in _ONLY_POPS or op.target >= 0 else 1
        is_method = op.name == "LOAD_ATTR" and depth == 1  # It pushes two values for one.
        is_taken = op.effect <= 0 and depth + op.effect <= limit and op.name not in ("SWAP", "COPY")
        if is_method or is_taken or (op.name in _ENDS and depth == 1):
            return position, depth
        depth += op.effect
    return -1, depth
