"""What a function depends on: its own code, and everything of the user's that it reads.

`dependencies` names those parts; hashing them is the business of `hypernodes.cache.content`.
Packages that are installed count by name and version, the user's own code by what it says.
"""

from __future__ import annotations

import builtins
import dis
import functools
import importlib
import sys
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from hypernodes.cache.installed import is_absent, is_installed, is_installed_top, release
from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
_DEEPEST: Final = 8  # modules within modules; they may import each other
_READS_GLOBAL: Final = ("LOAD_GLOBAL", "LOAD_NAME")
_READS_ATTRIBUTE: Final = ("LOAD_ATTR", "LOAD_METHOD")


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


def reads_of(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Walk what a function reads beside its instructions: defaults, closure values and globals, by name."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    for name, value in zip(code.co_varnames[: code.co_argcount][-len(defaults) :], defaults, strict=False):
        yield f"default of {name}", value
    for name, value in sorted((function.__kwdefaults__ or {}).items()):
        yield f"default of {name}", value
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"closure value {name}", cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    for name, value in sorted(attributes_read(function).items()):
        yield f"attribute {name}", value
    for name, value in sorted(global_reads(function).items()):
        yield f"global {name}", value


def global_reads(function: FunctionType) -> dict[str, object]:
    """Return what a function reads of the world around: globals, what it imports, attributes of modules.

    What the code itself changes is an effect and not an input, so it is left out; so are builtins. Of
    modules that are installed name and version are read; of the user's own the attributes that the code
    mentions.

    Raises:
        SignatureError: The code imports a module of the user's that cannot be imported.
    """
    mentions = _mentions(function.__code__)
    reads: dict[str, object] = {}
    for name, attributes, is_changed in mentions.names:
        if name not in function.__globals__:
            if not hasattr(builtins, name):
                reads[name] = _Undefined
            continue
        value = function.__globals__[name]
        if isinstance(value, ModuleType):
            _read_module(reads, name, value, attributes, mentions.all)
        elif not is_changed or isinstance(value, FunctionType | type):
            reads[name] = value
        elif not is_installed(type(value).__module__):
            reads[name] = type(value)  # its state is an effect, what its methods do is not
    for statement in mentions.imports:
        _read_import(reads, function, statement, mentions.all)
    return reads


_Uses: TypeAlias = tuple[tuple[str, ...], ...] | None
"""The chains of attributes that are read of a local name; ``None`` where it is used in another way, too."""


class _Import(NamedTuple):
    """An import statement: how many packages up, of what, which names of it, and what is used of each."""

    level: int
    module: str
    names: tuple[str, ...]
    uses: tuple[_Uses, ...]


@dataclass(frozen=True, slots=True)
class _Mentions:
    """What some code mentions of the world around, whatever that is at the moment.

    Attributes:
        names: The globals that it reads, the attributes that it reads of them right away, and whether it
            changes them in place.
        imports: What it imports itself.
        all: Every name and short text: the attributes that it may ask an object for.
        stored: The attributes that it sets.
    """

    names: tuple[tuple[str, tuple[str, ...], bool], ...]
    imports: tuple[_Import, ...]
    all: frozenset[str]
    stored: frozenset[str]


@functools.lru_cache(maxsize=4096)
def _mentions(code: CodeType) -> _Mentions:
    """Read the instructions of some code and of all functions within it."""
    names: dict[tuple[str, tuple[str, ...], bool], None] = {}
    imports: dict[_Import, None] = {}
    everything: set[str] = set()
    stored: set[str] = set()
    for inner in _with_nested(code):
        everything.update(inner.co_names, (text for text in inner.co_consts if isinstance(text, str)))
        steps = list(dis.get_instructions(inner))
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
    return _Mentions(tuple(names), tuple(imports), frozenset(everything), frozenset(stored))


def _uses_of_imported(steps: Sequence[dis.Instruction], position: int, count: int) -> tuple[_Uses, ...]:
    stores = [step for step in steps[position:] if step.opname.startswith("STORE_")][:count]
    return tuple(_uses(steps, str(step.argval)) if step.opname == "STORE_FAST" else None for step in stores)


def _uses(steps: Sequence[dis.Instruction], local: str) -> _Uses:
    """Return what is read of a local name."""
    chains = set()
    for position, step in enumerate(steps):
        if step.opname.startswith("LOAD_FAST"):
            if isinstance(step.argval, tuple):  # two at once, so that no attribute follows the first
                if local in step.argval:
                    return None
            elif step.argval == local:
                attributes = _attributes(steps, position + 1)
                if not attributes:
                    return None
                chains.add(attributes)
    return tuple(sorted(chains))


def _attributes(steps: Sequence[dis.Instruction], start: int) -> tuple[str, ...]:
    """Return the attributes that are read one of the other from there on."""
    end = start
    while end < len(steps) and steps[end].opname in _READS_ATTRIBUTE:
        end += 1
    return tuple(str(step.argval) for step in steps[start:end])


def attributes_read(function: FunctionType) -> dict[str, object]:
    """Return the attributes that were set on a function, and that its code may read but does not set."""
    own = {name: value for name, value in vars(function).items() if not name.startswith("__")}
    if not own:
        return own
    mentions = _mentions(function.__code__)
    return {name: own[name] for name in mentions.all & own.keys() - mentions.stored}


def _read_module(
    reads: dict[str, object],
    name: str,
    module: ModuleType,
    attributes: tuple[str, ...],
    mentioned: frozenset[str],
) -> None:
    """Read the attribute of a module that is used, or what may be where the module itself is passed on."""
    value: object = module
    for attribute in attributes:
        if not isinstance(value, ModuleType) or is_installed(value.__name__):
            break
        name = f"{name}.{attribute}"
        value = getattr(value, attribute, _Undefined)
    if isinstance(value, ModuleType):
        _read_whole(reads, name, value, mentioned)
    else:
        reads[name] = value


def _read_whole(reads: dict[str, object], name: str, module: ModuleType, mentioned: frozenset[str]) -> None:
    """Read what code may use of a module that it passes on: all that is public, and what it mentions."""
    if is_installed(module.__name__):
        reads[name] = Release(release(module.__name__))
        return
    for attribute, value in vars(module).items():
        if isinstance(value, ModuleType):
            if attribute in mentioned and value is not module and name.count(".") < _DEEPEST:
                _read_whole(reads, f"{name}.{attribute}", value, mentioned)
        elif attribute in mentioned or not attribute.startswith("_"):
            reads[f"{name}.{attribute}"] = value


def _read_import(
    reads: dict[str, object],
    function: FunctionType,
    statement: _Import,
    mentioned: frozenset[str],
) -> None:
    """Read what an import within a function brings."""
    level, name, names, uses = statement
    if level:
        package = function.__globals__.get("__package__") or ""
        name = importlib.util.resolve_name("." * level + name, package)
    top = name.partition(".")[0]
    if is_absent(top):
        reads[f"import {name}"] = _Undefined  # the code may well have a way without it
        return
    if is_installed_top(top):
        reads[f"import {top}"] = Release(release(top))
        return
    try:
        module = importlib.import_module(name)
    except Exception as error:
        raise SignatureError(f"it imports {name!r}, which fails ({error!r})") from error
    if not names:
        _read_uses(reads, top, sys.modules[top], uses[0], mentioned)
        if module is not sys.modules[top]:
            _read_uses(reads, name, module, uses[0], mentioned)
        return
    for imported, used in zip(names, uses, strict=True):
        value = getattr(module, imported, _Undefined)
        if value is _Undefined and importlib.util.find_spec(f"{name}.{imported}"):
            value = importlib.import_module(f"{name}.{imported}")
        if isinstance(value, ModuleType):
            _read_uses(reads, f"{name}.{imported}", value, used, mentioned)
        else:
            reads[f"{name}.{imported}"] = value


def _read_uses(
    reads: dict[str, object], name: str, module: ModuleType, uses: _Uses, mentioned: frozenset[str]
) -> None:
    """Read what is used of a module that was imported to a local name."""
    if uses is None:
        _read_whole(reads, name, module, mentioned)
    for attributes in uses or ():
        _read_module(reads, name, module, attributes, mentioned)


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


def _changed_globals(steps: list[dis.Instruction]) -> tuple[set[str], set[str]]:
    """Return the globals that these instructions rebind, and those that they change in place.

    A change in place is one of an item, or a call of a method that is well known for it.
    """
    rebound, changed = set(), set()
    for position, step in enumerate(steps):
        before = steps[position - 1] if position else step
        on_global = before.opname in _READS_GLOBAL
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            rebound.add(str(step.argval))
        elif on_global and _changes_what_is_before(steps, position):
            changed.add(str(before.argval))
        elif step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") or _copies_two(steps, position):
            key = _producer(steps, position)
            container = _producer(steps, key)
            if container == key - 1 and steps[container].opname in _READS_GLOBAL:
                changed.add(str(steps[container].argval))
    return rebound, changed


def _changes_what_is_before(steps: list[dis.Instruction], position: int) -> bool:
    """Whether the object on the stack is changed: by ``n.add(...)``, ``n.a = ...``, or ``n.a += ...``."""
    step = steps[position]
    if step.opname in _READS_ATTRIBUTE:
        return step.argval in _MUTATORS
    if step.opname == "COPY" and step.arg == 1 and steps[position + 1].opname == "LOAD_ATTR":
        name = steps[position + 1].argval
        return any(later.opname == "STORE_ATTR" and later.argval == name for later in steps[position:])
    return step.opname in ("STORE_ATTR", "DELETE_ATTR")


def _copies_two(steps: list[dis.Instruction], position: int) -> bool:
    """Whether a container and a key are copied here, as for ``n[k] += 1``."""
    pair = steps[position : position + 2]
    return len(pair) == 2 and all(step.opname == "COPY" and step.arg == 2 for step in pair)


def _producer(steps: list[dis.Instruction], end: int) -> int:
    """Return where the instructions begin that push the one value on the stack before ``end``."""
    depth, position = 0, end
    while position > 0 and depth < 1:
        position -= 1
        step = steps[position]
        argument = step.arg if step.opcode >= dis.HAVE_ARGUMENT else None
        depth += dis.stack_effect(step.opcode, argument, jump=False)
    return position
