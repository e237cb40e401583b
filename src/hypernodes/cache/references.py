"""Which names does code refer to: globals, modules that it imports, attributes?"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hypernodes.cache.bytecode import nested_code, raw_instructions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType

    from hypernodes.cache.bytecode import RawInstruction

_READS_GLOBAL: Final = ("LOAD_GLOBAL", "LOAD_NAME")
_READS_ATTRIBUTE: Final = ("LOAD_ATTR", "LOAD_METHOD")
_LOADS_FUNCTION: Final = (*_READS_GLOBAL, *_READS_ATTRIBUTE, "LOAD_FAST", "LOAD_FAST_BORROW", "LOAD_DEREF")
_IMPORT: Final = ("name", "globals", "locals", "fromlist", "level")
_BEFORE_CALL: Final = ("CACHE", "PRECALL", "PUSH_NULL", "EXTENDED_ARG", "NOP")

Uses: TypeAlias = tuple[tuple[str, ...], ...] | None
"""The chains of attributes that are read from a variable; ``None`` if it is also used in another way."""


class Import(NamedTuple):
    """An import statement."""

    level: int
    module: str
    names: tuple[str, ...]
    uses: tuple[Uses, ...]


class Global(str):
    """The name of a global that is passed to a function."""

    __slots__ = ()


class Call(NamedTuple):
    """A call whose arguments are texts or globals."""

    function: str
    arguments: tuple[tuple[str, str | Global], ...]
    uses: Uses


@dataclass(frozen=True, slots=True)
class References:
    """The names outside of it that some code refers to, whatever they mean at the moment."""

    names: tuple[tuple[str, tuple[str, ...]], ...]
    imports: tuple[Import, ...]
    calls: tuple[Call, ...]
    all: frozenset[str]


@functools.lru_cache(maxsize=4096)
def references_of(code: CodeType) -> References:
    """Read the instructions of some code and of all functions defined in it."""
    names: dict[tuple[str, tuple[str, ...]], None] = {}
    imports: dict[Import, None] = {}
    calls: dict[Call, None] = {}
    everything: set[str] = set()
    aliases: set[str] = set()
    for inner in nested_code(code):
        everything.update(inner.co_names, (text for text in inner.co_consts if isinstance(text, str)))
        steps = raw_instructions(inner)
        for position, step in enumerate(steps):
            name = str(step.argval)
            if step.opname == "IMPORT_FROM" and name == "import_module":
                aliases.add(str(steps[position + 1].argval))
            if step.opname == "IMPORT_NAME":
                level, wanted = steps[position - 2].argval, steps[position - 1].argval
                wanted = tuple(wanted or ())
                uses = _uses_of_imported(steps, position, max(1, len(wanted)))
                imports[Import(level, name, wanted, uses)] = None
            elif step.opname in _READS_GLOBAL:
                names[name, attributes_at(steps, position + 1)] = None
            if step.opname in _LOADS_FUNCTION and (call := _call_of(inner, steps, position)) is not None:
                is_alias = call.function in aliases
                calls[call._replace(function="import_module") if is_alias else call] = None
    return References(tuple(names), tuple(imports), tuple(calls), frozenset(everything))


def _uses_of_imported(steps: Sequence[RawInstruction], position: int, count: int) -> tuple[Uses, ...]:
    stores = [step for step in steps[position:] if step.opname.startswith("STORE_")][:count]
    return tuple(_uses(steps, str(step.argval)) if step.opname == "STORE_FAST" else None for step in stores)


def _call_of(code: CodeType, steps: Sequence[RawInstruction], position: int) -> Call | None:
    """Return the call of a function that is loaded here, if its arguments are texts or globals.

    Other constants, and lists of texts, are the empty text and the first text: `__import__` takes such.
    """
    arguments: list[str | Global] = []
    keywords: tuple[str, ...] = ()
    for at in range(position + 1, len(steps) - 1):
        step = steps[at]
        if step.opname.startswith("CALL"):
            if not arguments or len(arguments) < len(keywords):  # The function is not the one loaded here.
                return None
            parameters = _IMPORT if steps[position].argval == "__import__" else ("name", "package")
            given = dict(zip(parameters, arguments[: len(arguments) - len(keywords)], strict=False))
            given |= dict(zip(keywords, arguments[len(arguments) - len(keywords) :], strict=True))
            local, chain = steps[at + 1], attributes_at(steps, at + 1)
            uses: Uses = (chain,) if chain else None
            if local.opname == "STORE_FAST":
                uses = _uses(steps, str(local.argval))
            return Call(str(steps[position].argval), tuple(given.items()), uses)
        if step.opname == "KW_NAMES" or steps[at + 1].opname == "CALL_KW":
            keywords = code.co_consts[step.arg or 0]
        elif step.opname == "LOAD_CONST":
            first = step.argval[0] if isinstance(step.argval, tuple) and step.argval else step.argval
            arguments.append(first if isinstance(first, str) else "")
        elif step.opname in ("LOAD_FAST", "LOAD_FAST_BORROW"):
            if (constant := _constant_in(steps, step.argval)) is None:
                return None
            arguments.append(constant)
        elif step.opname in ("BUILD_LIST", "BUILD_TUPLE") and step.arg and step.arg <= len(arguments):
            arguments[-step.arg :] = arguments[-step.arg :][:1]
        elif step.opname == "LOAD_GLOBAL":
            arguments.append(Global(step.argval))
        elif step.opname not in _BEFORE_CALL:
            return None
    return None


def _constant_in(steps: Sequence[RawInstruction], local: object) -> str | None:
    """Return the text that a local variable is set to, if nothing else is."""
    stores = [
        at for at, step in enumerate(steps) if step.opname.startswith("STORE_FAST") and step.argval == local
    ]
    before = steps[stores[0] - 1] if len(stores) == 1 else None
    is_text = before is not None and before.opname == "LOAD_CONST" and isinstance(before.argval, str)
    return str(before.argval) if before is not None and is_text else None


def _uses(steps: Sequence[RawInstruction], local: str) -> Uses:
    """Return what is read from a local variable."""
    chains = set()
    for position, step in enumerate(steps):
        if step.opname.startswith("LOAD_FAST"):
            if isinstance(step.argval, tuple):  # Two variables are loaded: no attribute of the first is read.
                if local in step.argval:
                    return None
            elif step.argval == local:
                if not (attributes := attributes_at(steps, position + 1)):
                    return None
                chains.add(attributes)
    return tuple(sorted(chains))


def attributes_at(steps: Sequence[RawInstruction], start: int) -> tuple[str, ...]:
    """Return the chain of attributes that is read from a position on."""
    end = start
    while end < len(steps) and steps[end].opname in _READS_ATTRIBUTE:
        end += 1
    return tuple(str(step.argval) for step in steps[start:end])
