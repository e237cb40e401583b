"""Python's bytecode, as the fingerprints of code read it. No other module of the package uses `dis`.

Bytecode is not a stable interface: each minor version of Python has other instructions. An analysis that
does not know an instruction could miss a dependency, and a look-up in the cache would return a wrong
result. So only versions that the test suite runs on are read; on any other one nothing is cached.
"""

from __future__ import annotations

import dis
import functools
import sys
from types import CodeType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTED_PYTHONS: Final = frozenset({(3, 11), (3, 12), (3, 13)})
"""The minor versions of Python that the test suite runs on. Add one when all tests pass there."""

RUNNING_PYTHON: Final[tuple[int, int]] = sys.version_info[:2]

HAS_CONSTANT: Final = frozenset(dis.hasconst)
HAS_NAME: Final = frozenset(dis.hasname)
_HAS_JUMP: Final = frozenset((*dis.hasjrel, *dis.hasjabs))

RawInstruction: TypeAlias = dis.Instruction


def is_tested_python() -> bool:
    """Return whether the library is tested with the bytecode of the running Python."""
    return RUNNING_PYTHON in TESTED_PYTHONS


def python_version() -> str:
    """Return the minor version of the running Python, as text."""
    return ".".join(map(str, RUNNING_PYTHON))


@functools.lru_cache(maxsize=64)
def raw_instructions(code: CodeType) -> tuple[RawInstruction, ...]:
    """Return the instructions of a code object, without those of functions defined in it.

    Several analyses read the same code one after another.
    """
    if not is_tested_python():
        raise SignatureError(f"the bytecode of Python {python_version()} is not supported")
    return tuple(dis.get_instructions(code))


def stack_effect(instruction: RawInstruction) -> int:
    """Return the number of values by which an instruction makes the stack deeper."""
    argument = instruction.arg if instruction.opcode >= dis.HAVE_ARGUMENT else None
    return dis.stack_effect(instruction.opcode, argument, jump=False)


def nested_code(code: CodeType) -> Iterator[CodeType]:
    """Iterate over a code object and the code of all functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from nested_code(constant)


class Instruction(NamedTuple):
    """An instruction in a form that is the same in all supported versions of Python."""

    name: str
    argument: object  # the name, constant or number that it works with
    effect: int  # by how many values it makes the stack deeper
    target: int  # the position in the list that it may jump to, or -1
    keywords: tuple[str, ...] = ()


NO_INSTRUCTION: Final = Instruction("", None, 0, -1)
"""Stands for an instruction before the first or after the last one."""

_WITHOUT_MEANING: Final = frozenset(
    [
        "CACHE",
        "COPY_FREE_VARS",
        "EXTENDED_ARG",
        "KW_NAMES",
        "MAKE_CELL",
        "NOP",
        "NOT_TAKEN",
        "PRECALL",
        "PUSH_NULL",
        "RESUME",
        "TO_BOOL",
    ]
)
_COMMON_NAME: Final = {
    "LOAD_METHOD": "LOAD_ATTR",
    "LOAD_FAST_BORROW": "LOAD_FAST",
    "LOAD_FAST_CHECK": "LOAD_FAST",
    "LOAD_SMALL_INT": "LOAD_CONST",
    "LOAD_NAME": "LOAD_GLOBAL",
    "CALL_KW": "CALL",
}
"""Operations that differ between versions, or only in speed, under one name."""


def normalized_instructions(code: CodeType) -> list[Instruction]:
    """Return the instructions of a code object, one operation each, in the form of all versions."""
    instructions: list[Instruction] = []
    positions: dict[int, int] = {}  # by offset in the bytecode
    skipped_effect = 0
    keywords: tuple[str, ...] = ()
    for raw in raw_instructions(code):
        positions[raw.offset] = len(instructions)
        name = raw.opname
        effect = stack_effect(raw) + skipped_effect
        skipped_effect = 0
        if name in _WITHOUT_MEANING:
            skipped_effect = effect
            if name == "KW_NAMES":
                keywords = code.co_consts[raw.arg or 0]
            continue
        if isinstance(raw.argval, tuple) and "_FAST_" in name:  # such as STORE_FAST_LOAD_FAST
            halves = name.replace("_BORROW", "").removesuffix("_FAST").partition("_FAST_")
            for half, local in zip((f"{halves[0]}_FAST", f"{halves[2]}_FAST"), raw.argval, strict=True):
                instructions.append(Instruction(half, local, 1 if half == "LOAD_FAST" else -1, -1))
            continue
        if name == "RETURN_CONST":
            instructions.append(Instruction("LOAD_CONST", raw.argval, effect + 1, -1))
            instructions.append(Instruction("RETURN_VALUE", None, -1, -1))
            continue
        if name in _ON_SLICE:
            _append_use_of_slice(instructions, name)
            continue
        name = _COMMON_NAME.get(name, name).replace("_FORWARD_IF", "_IF").replace("_BACKWARD_IF", "_IF")
        if name == "BINARY_OP" and raw.argrepr == "[]":
            name = "BINARY_SUBSCR"
        target = raw.argval if raw.opcode in _HAS_JUMP else -1
        if raw.opname == "CALL_KW":  # The names are on the stack. Before Python 3.13, KW_NAMES had them.
            names = instructions.pop()
            effect += names.effect
            keywords = names.argument if isinstance(names.argument, tuple) else ()
        instructions.append(Instruction(name, raw.argval, effect, target, keywords if name == "CALL" else ()))
        if name == "CALL":
            keywords = ()
        _simplify_end(instructions)
    end = len(instructions)
    return [
        instruction._replace(target=positions.get(instruction.target, end))
        if instruction.target >= 0
        else instruction
        for instruction in instructions
    ]


_ON_SLICE: Final = {"BINARY_SLICE": ("BINARY_SUBSCR", -1), "STORE_SLICE": ("STORE_SUBSCR", -3)}
_BEFORE_AUGMENTED: Final = [("COPY", 3)] * 3
_AFTER_AUGMENTED: Final = [("SWAP", 4), ("SWAP", 3), ("SWAP", 2)]


def _append_use_of_slice(instructions: list[Instruction], name: str) -> None:
    """Write ``v[a:b]`` as Python 3.11 does, where a slice object is made first, and used as a key."""
    make, before = Instruction("BUILD_SLICE", 2, -1, -1), [op[:2] for op in instructions[-3:]]
    if before == _BEFORE_AUGMENTED:  # ``v[a:b] += ...``
        copy = Instruction("COPY", 2, 1, -1)
        instructions[-3:] = [make, copy, copy]
    elif before == _AFTER_AUGMENTED:
        del instructions[-3]
    else:
        instructions.append(make)
    operation, effect = _ON_SLICE[name]
    instructions.append(Instruction(operation, None, effect, -1))


_ON_ITEM: Final = {
    "BINARY_SUBSCR": ("LOAD_ATTR", 0),
    "STORE_SUBSCR": ("STORE_ATTR", -2),
    "DELETE_SUBSCR": ("DELETE_ATTR", -1),
}


def _simplify_end(instructions: list[Instruction]) -> None:
    """Write other forms of access to an attribute as the plain one, which the end of a list may have.

    ``v.__dict__["a"]``, ``v.__class__.a``, ``type(v).a`` and ``getattr(v, "a")`` become ``v.a``.
    """
    last = instructions[-1]
    if last.name == "CALL" and last.argument in (2, 3) and len(instructions) > 4:
        function, variable, *constants = instructions[-2 - last.argument : -1]
        is_constant = all(constant.name == "LOAD_CONST" for constant in constants)
        if function[:2] == ("LOAD_GLOBAL", "getattr") and is_constant:
            instructions[-2 - last.argument :] = [
                variable,
                Instruction("LOAD_ATTR", constants[0].argument, 0, -1),
            ]
    elif last.name in _ON_ITEM and len(instructions) > 2:
        owner, key = instructions[-3:-1]
        if owner[:2] == ("LOAD_ATTR", "__dict__") and key.name == "LOAD_CONST" and type(key.argument) is str:
            operation, effect = _ON_ITEM[last.name]
            instructions[-3:] = [Instruction(operation, key.argument, effect, -1)]
    if last.name in ("LOAD_ATTR", "STORE_ATTR", "DELETE_ATTR") and len(instructions) > 3:
        function, variable, call = instructions[-4:-1]
        if call[:2] == ("LOAD_ATTR", "__class__"):
            del instructions[-2]
        elif call[:2] == ("CALL", 1) and function[:2] == ("LOAD_GLOBAL", "type"):
            instructions[-4:] = [variable, last]


ENDS_FLOW: Final = frozenset(
    ["RETURN_VALUE", "RAISE_VARARGS", "RERAISE", "JUMP_BACKWARD", "CONTINUE_LOOP"],
)
"""Operations after which execution never goes on with the next instruction."""
