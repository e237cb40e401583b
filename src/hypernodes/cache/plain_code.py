"""The digests of plain functions, kept from run to run while nothing that they depend on has been replaced.

A function is plain if all that it depends on is known by identity: code, numbers, texts, installed modules,
and other plain functions. Objects and containers can change in place: a function that reads one is not plain.
"""

from __future__ import annotations

import builtins
from contextlib import suppress
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypernodes.cache.changed_places import ChangedPlaces
from hypernodes.cache.code import imports_in
from hypernodes.cache.installed import is_class_of_library, is_installed, is_of_library
from hypernodes.cache.references import references_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

IMMUTABLE: Final = frozenset((type(None), bool, int, float, complex, str, bytes))
_MAX_KEPT: Final = 4096
_NOTHING: Final = object()


class _Function(NamedTuple):
    """A function, and what it consisted of when it was read."""

    function: Any  # a types.FunctionType, which NamedTuple would take for a method
    code: CodeType
    defaults: tuple[Any, ...] | None
    closure: tuple[Any, ...]


class _Dependencies(NamedTuple):
    """All functions that a function reaches, itself included, and the globals that they read."""

    functions: dict[int, _Function]
    globals: dict[tuple[int, str], tuple[dict[str, Any], str, object]]

    def are_unchanged(self) -> bool:
        for function, code, defaults, closure in self.functions.values():
            if (
                function.__code__ is not code
                or function.__defaults__ is not defaults
                or function.__kwdefaults__
                or function.__dict__
            ):
                return False
            if closure:
                try:
                    if any(
                        cell.cell_contents is not value
                        for cell, value in zip(function.__closure__ or (), closure, strict=True)
                    ):
                        return False
                except ValueError:  # A variable is not bound any more.
                    return False
        return all(scope.get(name, _NOTHING) is value for scope, name, value in self.globals.values())


_kept: dict[int, tuple[bytes, _Dependencies]] = {}  # by the id of the function, which is kept alive


def kept_digest(function: Callable[..., Any], around: Collection[int]) -> bytes | None:
    """Return the kept digest of a plain function; `around` has the ids of the objects that contain it."""
    if (found := _kept.get(id(function))) is None:
        return None
    digest, dependencies = found
    if not dependencies.are_unchanged():
        _kept.pop(id(function), None)
        return None
    return digest if dependencies.functions.keys().isdisjoint(around) else None


def keep_digest(function: FunctionType, digest: bytes, around: Collection[int]) -> None:
    """Keep the digest of a function, if it is plain."""
    dependencies = _Dependencies({}, {})
    if not _add(function, dependencies) or not dependencies.functions.keys().isdisjoint(around):
        return
    changed = ChangedPlaces()
    for reached, *_ in dependencies.functions.values():
        changed.add_function(reached)
    if not len(changed):
        _kept[id(function)] = (digest, dependencies)
        while len(_kept) > _MAX_KEPT:
            with suppress(RuntimeError):  # Another thread has added one meanwhile.
                _kept.pop(next(iter(_kept)), None)


def _add(function: FunctionType, found: _Dependencies) -> bool:
    """Add what a function depends on, and return whether all of it is plain."""
    if id(function) in found.functions:
        return True
    if (known := _kept.get(id(function))) is not None and known[1].are_unchanged():
        found.functions.update(known[1].functions)
        found.globals.update(known[1].globals)
        return True
    if function.__kwdefaults__ or function.__dict__ or is_of_library(function) or imports_in(function):
        return False
    try:
        closure = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:
        return False
    defaults = function.__defaults__
    found.functions[id(function)] = _Function(function, function.__code__, defaults, closure)
    read = {}
    for name, _ in references_of(function.__code__).names:
        value = function.__globals__.get(name, _NOTHING)
        if value is _NOTHING and not hasattr(builtins, name):
            return False
        read[name] = value
        found.globals[id(function.__globals__), name] = (function.__globals__, name, value)
    return all(_is_plain(value, found) for value in (*(defaults or ()), *closure, *read.values()))


def _is_plain(value: object, found: _Dependencies) -> bool:
    if type(value) in IMMUTABLE or value is _NOTHING:
        return True
    match value:
        case FunctionType():
            return is_of_library(value) or _add(value, found)
        case ModuleType():
            return is_installed(value.__name__)
        case BuiltinFunctionType():
            return value.__self__ is None or isinstance(value.__self__, ModuleType)
        case type():
            return is_class_of_library(value)
    return False
