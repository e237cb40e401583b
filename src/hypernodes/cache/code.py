"""What does a function depend on: which code, and which values that its code reads?

`dependencies` names them; `hypernodes.cache.content` computes their digests. Installed packages are
identified by name and version, the user's own code by its content.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import sys
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hypernodes.cache.bytecode import HAS_CONSTANT, HAS_NAME, nested_code, raw_instructions, stack_effect
from hypernodes.cache.installed import is_absent, is_installed, is_installed_top, release
from hypernodes.exceptions import SignatureError
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hypernodes.cache.bytecode import RawInstruction

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
_MAX_MODULE_DEPTH: Final = 8
"""Modules within modules that are followed: modules may import each other without end."""
_READS_GLOBAL: Final = ("LOAD_GLOBAL", "LOAD_NAME")
_READS_ATTRIBUTE: Final = ("LOAD_ATTR", "LOAD_METHOD")


def content_of_code(code: CodeType) -> Iterator[object]:
    """Yield what a code object does, without comments, docstrings, formatting, line numbers or its name.

    A constant is yielded where it is loaded, and not by its number: the numbers change when a docstring is
    added or removed.

    Raises:
        SignatureError: The library is not tested with the bytecode of the running Python.
    """
    yield (code.co_varnames, code.co_freevars, code.co_cellvars, code.co_flags)
    yield (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
    yield code.co_exceptiontable
    for step in raw_instructions(code):
        yield step.opcode
        if step.opcode in HAS_CONSTANT:
            constant = code.co_consts[step.arg or 0]
            if isinstance(constant, CodeType):
                yield from content_of_code(constant)
            else:
                yield constant
        else:
            yield (step.arg, step.argval if step.opcode in HAS_NAME else None)


def dependencies(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Iterate over the values that a function depends on: defaults, closure values, attributes, globals.

    Yields:
        A description, such as ``global RATE``, and the value.

    Raises:
        SignatureError: The code imports a module of the user's that cannot be imported.
    """
    code = function.__code__
    defaults = function.__defaults__ or ()
    for name, value in zip(code.co_varnames[: code.co_argcount][-len(defaults) :], defaults, strict=False):
        yield f"default of {name}", value
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        yield f"default of {name}", value
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure value {name}", cell.cell_contents
        except ValueError:  # The variable is not bound yet.
            continue
    for name, value in sorted(_attributes_read(function).items()):
        yield f"attribute {name}", value
    for name, value in sorted(_globals_read(function).items()):
        yield f"global {name}", value


def _globals_read(function: FunctionType) -> dict[str, object]:
    """Return the globals that a function reads, the modules that it imports, and attributes of modules.

    A global that the code itself changes is an effect and not an input, so it is left out; so are builtins.
    An installed module stands for its name and version; of a user's module, the attributes count that the
    code mentions.
    """
    references = _references(function.__code__)
    values: dict[str, object] = {}
    for name, attributes, is_changed in references.names:
        if name not in function.__globals__:
            if not hasattr(builtins, name):
                values[name] = _Undefined
            continue
        value = function.__globals__[name]
        if isinstance(value, ModuleType):
            _read_module(values, name, value, attributes, references.all)
        elif not is_changed or isinstance(value, FunctionType | type):
            values[name] = value
        elif not is_installed(type(value).__module__):
            values[name] = type(value)  # The state of the object is an effect, the code of its class is not.
    for statement in references.imports:
        _read_import(values, function, statement, references.all)
    return values


_Uses: TypeAlias = tuple[tuple[str, ...], ...] | None
"""The chains of attributes that are read from a variable; ``None`` if it is also used in another way."""


class _Import(NamedTuple):
    """An import statement.

    Attributes:
        level: The number of packages that a relative import goes up.
        module: The module.
        names: The names that are imported from it.
        uses: What the code reads from each imported name.
    """

    level: int
    module: str
    names: tuple[str, ...]
    uses: tuple[_Uses, ...]


@dataclass(frozen=True, slots=True)
class _References:
    """The names outside of it that some code refers to, whatever they mean at the moment.

    Attributes:
        names: The globals that it reads, each with the attributes that it reads from it at once, and whether
            it changes it in place.
        imports: Its import statements.
        all: Every name and string constant: the attributes that it may access.
        stored: The attributes that it sets.
    """

    names: tuple[tuple[str, tuple[str, ...], bool], ...]
    imports: tuple[_Import, ...]
    all: frozenset[str]
    stored: frozenset[str]


@functools.lru_cache(maxsize=4096)
def _references(code: CodeType) -> _References:
    """Read the instructions of some code and of all functions defined in it."""
    names: dict[tuple[str, tuple[str, ...], bool], None] = {}
    imports: dict[_Import, None] = {}
    everything: set[str] = set()
    stored: set[str] = set()
    for inner in nested_code(code):
        everything.update(inner.co_names, (text for text in inner.co_consts if isinstance(text, str)))
        steps = raw_instructions(inner)
        rebound, changed = _changed_globals(steps)
        for position, step in enumerate(steps):
            name = str(step.argval)
            if step.opname == "IMPORT_NAME":
                level, wanted = steps[position - 2].argval, steps[position - 1].argval
                wanted = tuple(wanted or ())
                uses = _uses_of_imported(steps, position, max(1, len(wanted)))
                imports[_Import(level, name, wanted, uses)] = None
            elif step.opname in _READS_GLOBAL and name not in rebound:
                names[name, _attributes(steps, position + 1), name in changed] = None
            elif step.opname == "STORE_ATTR":
                stored.add(name)
    return _References(tuple(names), tuple(imports), frozenset(everything), frozenset(stored))


def _uses_of_imported(steps: Sequence[RawInstruction], position: int, count: int) -> tuple[_Uses, ...]:
    stores = [step for step in steps[position:] if step.opname.startswith("STORE_")][:count]
    return tuple(_uses(steps, str(step.argval)) if step.opname == "STORE_FAST" else None for step in stores)


def _uses(steps: Sequence[RawInstruction], local: str) -> _Uses:
    """Return what is read from a local variable."""
    chains = set()
    for position, step in enumerate(steps):
        if step.opname.startswith("LOAD_FAST"):
            if isinstance(step.argval, tuple):  # Two variables are loaded: no attribute of the first is read.
                if local in step.argval:
                    return None
            elif step.argval == local:
                attributes = _attributes(steps, position + 1)
                if not attributes:
                    return None
                chains.add(attributes)
    return tuple(sorted(chains))


def _attributes(steps: Sequence[RawInstruction], start: int) -> tuple[str, ...]:
    """Return the chain of attributes that is read from a position on."""
    end = start
    while end < len(steps) and steps[end].opname in _READS_ATTRIBUTE:
        end += 1
    return tuple(str(step.argval) for step in steps[start:end])


def _attributes_read(function: FunctionType) -> dict[str, object]:
    """Return the attributes that were set on a function, and that its code may read but does not set."""
    own = {name: value for name, value in vars(function).items() if not name.startswith("__")}
    if not own:
        return own
    references = _references(function.__code__)
    return {name: own[name] for name in references.all & own.keys() - references.stored}


def _read_module(
    values: dict[str, object],
    name: str,
    module: ModuleType,
    attributes: tuple[str, ...],
    referenced: frozenset[str],
) -> None:
    """Add the attribute that is read from a module, or all that may be used if the module is passed on."""
    value: object = module
    for attribute in attributes:
        if not isinstance(value, ModuleType) or is_installed(value.__name__):
            break
        name = f"{name}.{attribute}"
        value = getattr(value, attribute, _Undefined)
    if isinstance(value, ModuleType):
        _read_passed_module(values, name, value, referenced)
    else:
        values[name] = value


def _read_passed_module(
    values: dict[str, object], name: str, module: ModuleType, referenced: frozenset[str]
) -> None:
    """Add what may be used of a module that is passed on: all public attributes, and those referred to."""
    if is_installed(module.__name__):
        values[name] = Release(release(module.__name__))
        return
    for attribute, value in vars(module).items():
        if isinstance(value, ModuleType):
            if attribute in referenced and value is not module and name.count(".") < _MAX_MODULE_DEPTH:
                _read_passed_module(values, f"{name}.{attribute}", value, referenced)
        elif attribute in referenced or not attribute.startswith("_"):
            values[f"{name}.{attribute}"] = value


def _read_import(
    values: dict[str, object],
    function: FunctionType,
    statement: _Import,
    referenced: frozenset[str],
) -> None:
    """Add the values that an import statement within a function binds."""
    level, name, names, uses = statement
    if level:
        package = function.__globals__.get("__package__") or ""
        name = importlib.util.resolve_name("." * level + name, package)
    top = name.partition(".")[0]
    if is_absent(top):
        values[f"import {name}"] = _Undefined  # The code may handle its absence.
        return
    if is_installed_top(top):
        values[f"import {top}"] = Release(release(top))
        return
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise SignatureError(f"it imports {name!r}, which fails ({described(error)})") from error
    if not names:
        _read_uses(values, top, sys.modules[top], uses[0], referenced)
        if module is not sys.modules[top]:
            _read_uses(values, name, module, uses[0], referenced)
        return
    for imported, used in zip(names, uses, strict=True):
        value = getattr(module, imported, _Undefined)
        if value is _Undefined and importlib.util.find_spec(f"{name}.{imported}"):
            value = importlib.import_module(f"{name}.{imported}")
        if isinstance(value, ModuleType):
            _read_uses(values, f"{name}.{imported}", value, used, referenced)
        else:
            values[f"{name}.{imported}"] = value


def _read_uses(
    values: dict[str, object], name: str, module: ModuleType, uses: _Uses, referenced: frozenset[str]
) -> None:
    """Add what is used of a module that was imported to a local variable."""
    if uses is None:
        _read_passed_module(values, name, module, referenced)
    for attributes in uses or ():
        _read_module(values, name, module, attributes, referenced)


class Release(str):
    """The name and version of a package, which identify an installed module."""

    __slots__ = ()


class _Undefined:
    """Stands for a global that does not exist when the run starts."""


def _changed_globals(steps: Sequence[RawInstruction]) -> tuple[set[str], set[str]]:
    """Return the globals that these instructions rebind, and those that they change in place.

    They change one in place if they set an item or attribute, or call a method known to change its object.
    """
    rebound, changed = set(), set()
    for position, step in enumerate(steps):
        before = steps[position - 1] if position else step
        on_global = before.opname in _READS_GLOBAL
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            rebound.add(str(step.argval))
        elif on_global and _changes_top_of_stack(steps, position):
            changed.add(str(before.argval))
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") or _copies_two(steps, position):
            key = _producer(steps, position)
            container = _producer(steps, key)
            if container == key - 1 and steps[container].opname in _READS_GLOBAL:
                changed.add(str(steps[container].argval))
    return rebound, changed


def _changes_top_of_stack(steps: Sequence[RawInstruction], position: int) -> bool:
    """Return whether the object on the stack is changed: ``n.add(...)``, ``n.a = ...``, or ``n.a += ...``."""
    step = steps[position]
    if step.opname in _READS_ATTRIBUTE:
        return step.argval in _MUTATORS
    if step.opname == "COPY" and step.arg == 1 and steps[position + 1].opname == "LOAD_ATTR":
        name = steps[position + 1].argval
        return any(later.opname == "STORE_ATTR" and later.argval == name for later in steps[position:])
    return step.opname in ("STORE_ATTR", "DELETE_ATTR")


def _copies_two(steps: Sequence[RawInstruction], position: int) -> bool:
    """Return whether a container and a key are copied here, as for ``n[k] += 1``."""
    pair = steps[position : position + 2]
    return len(pair) == 2 and all(step.opname == "COPY" and step.arg == 2 for step in pair)


def _producer(steps: Sequence[RawInstruction], end: int) -> int:
    """Return the start of the instructions that push the value on top of the stack before ``end``."""
    depth, position = 0, end
    while position > 0 and depth < 1:
        position -= 1
        depth += stack_effect(steps[position])
    return position
