"""What does a function depend on: which code, and which values that its code reads?

`dependencies` names them; `hypernodes.cache.content` computes their digests. Installed packages are
identified by name and version, the user's own code by its content.
"""

from __future__ import annotations

import builtins
import functools
import importlib
import importlib.util
import inspect
import sys
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.bytecode import HAS_CONSTANT, HAS_NAME, raw_instructions
from hypernodes.cache.changed_places import ChangedPlaces, defaults_of
from hypernodes.cache.installed import is_absent, is_installed, is_installed_top, release
from hypernodes.cache.references import Call, Global, Import, Uses, references_of
from hypernodes.exceptions import SignatureError
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_PASSES_ALL: Final = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
_MAX_MODULE_DEPTH: Final = 8
"""Modules within modules that are followed: modules may import each other without end."""


def content_of_code(code: CodeType) -> Iterator[object]:
    """Yield what a code object does, without comments, docstrings, formatting, line numbers or its name.

    A constant is yielded where it is loaded, and not by its number: the numbers change when a docstring is
    added or removed.
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


def dependencies(
    function: FunctionType, changed: ChangedPlaces | None = None
) -> Iterator[tuple[str, object]]:
    """Iterate over what a function depends on, each a description, such as ``global RATE``, and a value."""
    if changed is None:
        changed = ChangedPlaces()
        changed.add_function(function)
    for name, value in defaults_of(function):
        yield f"default of {name}", changed.input("default", function, name, value, function)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # The variable is not bound yet.
            if not changed.has("cell", cell):
                continue
            value = None
        yield f"closure value {name}", changed.input("cell", cell, None, value, function)
    for name, value in sorted(_globals_read(function, changed).items()):
        yield f"global {name}", value


def default_arguments(function: Callable[..., Any], changed: ChangedPlaces) -> dict[str, Any]:
    """Return the defaults of a function, by parameter.

    A wrapper that takes ``*args`` and ``**kwargs`` has those of the function that it wraps.
    """
    match function:
        case FunctionType() if not hasattr(function, "__wrapped__"):
            return {
                name: changed.input("default", function, name, value, function)
                for name, value in defaults_of(function)
            }
        case MethodType():
            return default_arguments(function.__func__, changed)
        case functools.partial():
            own = {
                name: changed.input("argument", function, name, value)
                for name, value in function.keywords.items()
            }
            return {**default_arguments(function.func, changed), **own}
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters
    except (TypeError, ValueError):
        return {}
    if {parameter.kind for parameter in parameters.values()} == _PASSES_ALL:
        wrapped = getattr(function, "__wrapped__", None)
        return default_arguments(wrapped, changed) if callable(wrapped) else {}
    if isinstance(function, FunctionType):
        return {
            name: changed.input("default", function, name, value, function)
            for name, value in defaults_of(function)
        }
    return {name: one.default for name, one in parameters.items() if one.default is not one.empty}


def _globals_read(function: FunctionType, changed: ChangedPlaces) -> dict[str, object]:
    """Return the globals that a function reads, the modules that it imports, and attributes of modules.

    An installed module stands for its name and version; of a user's module, the attributes count that the
    code mentions. Builtins are left out.
    """
    references = references_of(function.__code__)
    values: dict[str, object] = {}
    for name, attributes in references.names:
        value = function.__globals__.get(name, _Undefined)
        if value is _Undefined and hasattr(builtins, name):
            continue
        if isinstance(value, ModuleType):
            _read_module(values, name, value, attributes, references.all, changed)
        else:
            values[name] = changed.input("global", function.__globals__, name, value, function)
    for call in references.calls:
        if (found := _imported_by(call, function)) is not None:
            _read_import(values, function, found, references.all, changed)
    for statement in references.imports:
        _read_import(values, function, statement, references.all, changed)
    return values


def imports_in(function: FunctionType) -> bool:
    """Return whether a function imports anything when it is called."""
    references = references_of(function.__code__)
    return bool(references.imports) or any(_imported_by(call, function) for call in references.calls)


def _imported_by(call: Call, function: FunctionType) -> Import | None:
    """Return what a call of `importlib.import_module` or ``__import__`` imports."""
    scope = function.__globals__
    is_import = call.function == "__import__"
    if not (
        is_import or call.function == "import_module" or scope.get(call.function) is importlib.import_module
    ):
        return None
    given = {name: scope.get(value) if isinstance(value, Global) else value for name, value in call.arguments}
    name, package = given.get("name"), given.get("package")
    if not isinstance(name, str) or not name:
        return None
    if is_import and not given.get("fromlist"):
        return Import(0, name, (), (call.uses,))
    if name[:1] == ".":
        if not isinstance(package, str) or not package:
            return None
        name = importlib.util.resolve_name(name, package)
    parent, _, module = name.rpartition(".")
    return Import(0, parent or module, (module,) if parent else (), (call.uses,))


def _read_module(
    values: dict[str, object],
    name: str,
    module: ModuleType,
    attributes: tuple[str, ...],
    referenced: frozenset[str],
    changed: ChangedPlaces,
) -> None:
    """Add the attribute that is read from a module, or all that may be used if the module is passed on."""
    value: object = module
    for attribute in attributes:
        if not isinstance(value, ModuleType) or is_installed(value.__name__):
            break
        name = f"{name}.{attribute}"
        found = getattr(value, attribute, _Undefined)
        value = changed.input("global", vars(value), attribute, found)
    if isinstance(value, ModuleType):
        _read_passed_module(values, name, value, referenced, changed)
    else:
        values[name] = value


def attributes_of_module(
    module: ModuleType, referenced: frozenset[str], changed: ChangedPlaces
) -> dict[str, object]:
    """Return what may be used of a module that is a value, by name, with the names that code refers to."""
    values: dict[str, object] = {}
    _read_passed_module(values, "module", module, referenced, changed)
    return dict(sorted(values.items()))


def _read_passed_module(
    values: dict[str, object],
    name: str,
    module: ModuleType,
    referenced: frozenset[str],
    changed: ChangedPlaces,
) -> None:
    """Add what may be used of a module that is passed on: all public attributes, and those referred to."""
    if is_installed(module.__name__):
        values[name] = Release(release(module.__name__))
        return
    for attribute, value in vars(module).items():
        if isinstance(value, ModuleType):
            if attribute in referenced and value is not module and name.count(".") < _MAX_MODULE_DEPTH:
                _read_passed_module(values, f"{name}.{attribute}", value, referenced, changed)
        elif attribute in referenced or not attribute.startswith("_"):
            values[f"{name}.{attribute}"] = changed.input("global", vars(module), attribute, value)


def _read_import(
    values: dict[str, object],
    function: FunctionType,
    statement: Import,
    referenced: frozenset[str],
    changed: ChangedPlaces,
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
        _read_uses(values, top, sys.modules[top], uses[0], referenced, changed)
        if module is not sys.modules[top]:
            _read_uses(values, name, module, uses[0], referenced, changed)
        return
    for imported, used in zip(names, uses, strict=True):
        value = getattr(module, imported, _Undefined)
        if value is _Undefined and importlib.util.find_spec(f"{name}.{imported}"):
            value = importlib.import_module(f"{name}.{imported}")
        if isinstance(value, ModuleType):
            _read_uses(values, f"{name}.{imported}", value, used, referenced, changed)
        else:
            values[f"{name}.{imported}"] = changed.input("global", vars(module), imported, value)


def _read_uses(
    values: dict[str, object],
    name: str,
    module: ModuleType,
    uses: Uses,
    referenced: frozenset[str],
    changed: ChangedPlaces,
) -> None:
    """Add what is used of a module that was imported to a local variable."""
    if uses is None:
        _read_passed_module(values, name, module, referenced, changed)
    for attributes in uses or ():
        _read_module(values, name, module, attributes, referenced, changed)


class Release(str):
    """The name and version of a package, which identify an installed module."""

    __slots__ = ()


class _Undefined:
    """Stands for a global that does not exist when the run starts."""
