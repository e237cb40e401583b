"""What a function depends on: its own code, and everything of the user's that it reads.

`dependencies` names those parts; hashing them is the business of `hypernodes.cache.content`.
Packages that are installed count by name and version, the user's own code by what it says.
"""

from __future__ import annotations

import builtins
import dis
import functools
import sys
import sysconfig
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_MUTATORS: Final = frozenset(
    [
        "add",
        "append",
        "appendleft",
        "clear",
        "discard",
        "extend",
        "extendleft",
        "insert",
        "pop",
        "popitem",
        "popleft",
        "put",
        "put_nowait",
        "remove",
        "reverse",
        "setdefault",
        "sort",
        "update",
        "write",
    ]
)
_READS_GLOBAL: Final = ("LOAD_GLOBAL", "LOAD_NAME")
_READS_ATTRIBUTE: Final = ("LOAD_ATTR", "LOAD_METHOD")

_INSTALLED: Final = tuple(
    {
        path
        for key in ("stdlib", "platstdlib", "purelib", "platlib")
        if (path := sysconfig.get_paths().get(key))
    }
    | {"site-packages", "dist-packages", str(Path(__file__).parents[1])}  # this package counts by its version
)


def own_code(code: CodeType) -> Iterator[object]:
    """Yield what a code object does, without comments, docstrings, formatting, line numbers or its name.

    Constants stand where they are loaded: their numbers change when a docstring comes or goes.
    """
    yield (code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags)
    yield (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    yield code.co_exceptiontable
    for step in dis.get_instructions(code):
        yield step.opcode
        if step.opcode in dis.hasconst:
            constant = code.co_consts[step.arg or 0]
            if isinstance(constant, CodeType):
                yield from own_code(constant)
            else:
                yield constant
        else:
            yield (step.arg, step.argval if step.opcode in dis.hasname else None)


def global_reads(function: FunctionType) -> dict[str, object]:
    """Return what a function reads of the world around: globals, and attributes of the user's modules.

    What the code itself changes is an effect and not an input, so it is left out; so are builtins.
    """
    reads: dict[str, object] = {}
    for code in _with_nested(function.__code__):
        steps = list(dis.get_instructions(code))
        effects = _changed_globals(steps)
        for position, step in enumerate(steps):
            if step.opname not in _READS_GLOBAL or step.argval in effects:
                continue
            name = str(step.argval)
            if name not in function.__globals__:
                if not hasattr(builtins, name):
                    reads[name] = _Undefined
                continue
            value = function.__globals__[name]
            if isinstance(value, ModuleType) and is_installed(value.__name__):
                reads[name] = Release(release(value.__name__))
                continue
            while isinstance(value, ModuleType) and position + 1 < len(steps):
                position += 1  # noqa: PLW2901  follows module.attribute.attribute
                following = steps[position]
                if following.opname not in _READS_ATTRIBUTE:
                    break
                name = f"{name}.{following.argval}"
                value = getattr(value, str(following.argval), _Undefined)
            reads[name] = value
    return reads


class Release(str):
    """Name and version of a package: what counts of a module that is installed."""

    __slots__ = ()


class _Undefined:
    """Stands for a global that does not exist when the run starts."""


def _with_nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant)


def _changed_globals(steps: list[dis.Instruction]) -> set[str]:
    """Return the globals that these instructions rebind, or change by an item or a well-known method."""
    changed = set()
    for position, step in enumerate(steps):
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            changed.add(str(step.argval))
        elif step.opname in _READS_ATTRIBUTE and step.argval in _MUTATORS and position:
            before = steps[position - 1]
            if before.opname in _READS_GLOBAL:
                changed.add(str(before.argval))
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR"):
            key = _producer(steps, position)
            container = _producer(steps, key)
            if container == key - 1 and steps[container].opname in _READS_GLOBAL:
                changed.add(str(steps[container].argval))
    return changed


def _producer(steps: list[dis.Instruction], end: int) -> int:
    """Return where the instructions begin that push the one value on the stack before ``end``."""
    depth, position = 0, end
    while position > 0 and depth < 1:
        position -= 1
        step = steps[position]
        argument = step.arg if step.opcode >= dis.HAVE_ARGUMENT else None
        depth += dis.stack_effect(step.opcode, argument, jump=False)
    return position


def is_installed(module: str | None) -> bool:
    """Whether a module belongs to Python or to an installed package, and not to the user's own code."""
    found = sys.modules.get(module or "")
    if found is None:
        return module == "builtins"
    path = getattr(found, "__file__", None)
    if path is None:
        return module in sys.builtin_module_names
    return any(part in path for part in _INSTALLED)


@functools.cache
def release(module: str) -> str:
    """Return name and version of the package that a module belongs to."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "python-{}.{}".format(*sys.version_info[:2])
    version = getattr(sys.modules.get(top), "__version__", None)
    if not isinstance(version, str):
        from importlib import metadata  # noqa: PLC0415

        try:
            version = metadata.version(top)
        except metadata.PackageNotFoundError:
            version = "unknown"
    return f"{top}-{version}"
