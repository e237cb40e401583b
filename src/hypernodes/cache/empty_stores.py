"""Which assignments set an attribute to an empty value: ``None``, zero, or an empty container?

The instructions are interpreted in their order, with an abstract stack that holds what is known of each
value. Where a jump may arrive, nothing is known of the values on the stack.
"""

from __future__ import annotations

import builtins
from types import CodeType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from hypernodes.cache.bytecode import ENDS_FLOW

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from hypernodes.cache.bytecode import Instruction

_Knowledge: TypeAlias = Literal["empty", "fixed", "container", ""]
"""What is known of a value: it is empty, it is the same each time, or it is a class of containers."""

_UNKNOWN: Final[_Knowledge] = ""
_MIN_DEPTH: Final = 32
"""Values of unknown kind that are assumed below the stack, so that no instruction finds it too short."""

_CONTAINERS: Final = frozenset(
    [
        "dict",
        "list",
        "set",
        "bytearray",
        "Counter",
        "OrderedDict",
        "defaultdict",
        "deque",
        "LFUCache",
        "LRUCache",
        "TTLCache",
        "WeakKeyDictionary",
        "WeakValueDictionary",
    ]
)
_ONLY_POP: Final = frozenset(["STORE_FAST", "STORE_DEREF", "STORE_GLOBAL", "POP_TOP", "STORE_SUBSCR"])
_CHANGE_DEEPER_VALUES: Final = frozenset(
    ["DICT_MERGE", "DICT_UPDATE", "LIST_APPEND", "LIST_EXTEND", "MAP_ADD", "SET_ADD", "SET_UPDATE"]
)


def empty_stores(instructions: Sequence[Instruction], jump_targets: Collection[int]) -> Iterator[int]:
    """Yield the positions at which an attribute is set to an empty value."""
    stack: list[_Knowledge] = []
    constants: dict[int, object] = {}  # by depth of the stack
    for position, instruction in enumerate(instructions):
        previous = instructions[position - 1].name
        if position in jump_targets or previous in ENDS_FLOW or instruction.name in _CHANGE_DEEPER_VALUES:
            stack = [_UNKNOWN] * len(stack)
        stack = [*[_UNKNOWN] * (_MIN_DEPTH - len(stack)), *stack]
        argument = instruction.argument
        match instruction.name:
            case "LOAD_CONST":
                is_code = isinstance(argument, CodeType)
                _push(stack, instruction.effect, "fixed" if argument or is_code else "empty")
                constants[len(stack)] = argument
            case "LOAD_GLOBAL":
                _push(stack, instruction.effect, "container" if argument in _CONTAINERS else "fixed")
            case "LOAD_ATTR" if stack[-1] == "fixed":
                stack.pop()
                is_class = argument in _CONTAINERS and not hasattr(builtins, str(argument))
                _push(stack, instruction.effect + 1, "container" if is_class else "fixed")
            case "BUILD_MAP" | "BUILD_LIST" | "BUILD_SET" | "BUILD_TUPLE" if not argument:
                _push(stack, instruction.effect, "empty")
            case "COPY" if isinstance(argument, int):
                stack.append(stack[-argument])
            case "SWAP" if isinstance(argument, int):
                stack[-1], stack[-argument] = stack[-argument], stack[-1]
            case "UNPACK_SEQUENCE" if previous == "LOAD_CONST":
                values = constants[len(stack)]
                stack.pop()
                # A constant that is not a tuple is a string or bytes, and their items are never empty.
                count = instruction.effect + 1
                parts = reversed(values) if isinstance(values, tuple) else [True] * count
                stack += ["fixed" if part else "empty" for part in parts]
            case "CALL":
                _call(stack, instruction.effect)
            case "STORE_ATTR":
                if stack[-2] == "empty":
                    yield position
                del stack[-2:]
            case _:
                effect = instruction.effect
                stack = [*stack[: len(stack) + min(effect, 0)], *[_UNKNOWN] * effect]
                if effect <= 0 and instruction.name not in _ONLY_POP:
                    stack[-1] = _UNKNOWN


def _push(stack: list[_Knowledge], effect: int, knowledge: _Knowledge) -> None:
    stack += [*[_UNKNOWN] * (effect - 1), knowledge]


def _call(stack: list[_Knowledge], effect: int) -> None:
    """Replace a function and its arguments on the stack by the result of the call."""
    base = len(stack) + effect - 1
    called = stack[base:]
    # The function has a placeholder before or after it, unless it is a method.
    operands = called[1:] if called[0] == _UNKNOWN else called
    makes_container = operands[:1] == ["container"] and _UNKNOWN not in operands
    stack[base:] = ["empty" if makes_container else _UNKNOWN]
