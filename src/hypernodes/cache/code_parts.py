"""The parts of a node's code, by name: they tell which function, global or package has changed."""

from __future__ import annotations

import functools
from types import FunctionType, MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from hypernodes.cache.changed_places import ChangedPlaces
from hypernodes.cache.code import Release, dependencies
from hypernodes.cache.content import attributes_within, digest_within, fingerprint
from hypernodes.cache.installed import is_class_of_library, is_installed, is_of_library, release
from hypernodes.cache.provenance import CodePart
from hypernodes.cache.reach import Reach
from hypernodes.cache.summary import summarize
from hypernodes.cache.walk import code_digest

if TYPE_CHECKING:
    from collections.abc import Callable

_OWN_CODE = "own code"


def code_parts_of(function: Callable[..., Any]) -> dict[str, CodePart]:
    """Return the parts of a function's code, each with a digest of its own.

    >>> from functools import partial
    >>> code_parts_of(partial(lambda x, rate: x * rate, rate=2))["argument rate"].summary
    '2'
    """
    reach = Reach(function)
    changed = ChangedPlaces()
    fingerprint(function, reach, changed)
    walk = _Walk(reach, changed)
    walk.visit(function, _OWN_CODE)
    python = release("sys")
    walk.parts["python"] = CodePart(python, python.removeprefix("python-"))
    return walk.parts


class _Walk:
    """A walk through all code that a function reaches. It does not go into values."""

    def __init__(self, reach: Reach, changed: ChangedPlaces) -> None:
        self.parts: dict[str, CodePart] = {}
        self._reach = reach
        self._changed = changed
        self._visited: dict[int, object] = {}  # The references keep ids from being reused.

    def visit(self, value: Any, label: str) -> None:
        """Add a function or class and all that it reaches, or any other value by its content."""
        if id(value) in self._visited:
            return
        self._visited[id(value)] = value
        wrapped = getattr(value, "__wrapped__", None) if not isinstance(value, FunctionType) else None
        if isinstance(value, FunctionType):
            self._function(value, label)
        elif isinstance(value, type):
            self._class(value, label)
        elif isinstance(value, MethodType):
            self.visit(value.__func__, label)
            self._instance(value.__self__)
        elif isinstance(value, functools.partial):
            self.visit(value.func, label)
            for name, argument in [*enumerate(value.args), *value.keywords.items()]:
                self._value(self._changed.input("argument", value, name, argument), f"argument {name}")
        elif isinstance(value, staticmethod | classmethod):
            self.visit(value.__func__, label)
        elif isinstance(value, property):
            for function in filter(None, (value.fget, value.fset, value.fdel)):
                self.visit(function, label)
        elif type(value).__name__ == "Node" and hasattr(value, "function"):
            self.visit(value.function, label)
        elif callable(wrapped):
            self.visit(wrapped, label)
        elif callable(value) and not is_installed(type(value).__module__):
            self._instance(value)
        else:
            self._value(value, label)

    def _function(self, function: FunctionType, label: str) -> None:
        if is_of_library(function):
            self._add_release(release(function.__module__))
            return
        of_function = "" if label == _OWN_CODE else f" of {label.partition(' ')[2]}"
        if label in self.parts:
            label = f"{label} ({function.__module__}, line {function.__code__.co_firstlineno})"
        self.parts[label] = CodePart(code_digest(function.__code__).hex())
        of_named = of_function or f" of {function.__name__}"
        for name, value in vars(function).items():
            if name[:2] != "__" and not self._changed.has("attribute", function, name):
                self._value(value, f"attribute {name}{of_named}")
        for description, value in dependencies(function, self._changed):
            if isinstance(value, Release):
                self._add_release(value)
            elif isinstance(value, type):
                self.visit(value, f"class {value.__qualname__}")
            elif callable(value):
                self.visit(value, f"helper {description.rpartition(' ')[2]}")
            else:
                self._value(value, description + of_function)

    def _class(self, kind: type, label: str) -> None:
        if is_class_of_library(kind):
            self._add_release(release(kind.__module__))
            return
        name = kind.__qualname__.rpartition(".")[2]
        for base in kind.__bases__:
            self.visit(base, f"class {base.__qualname__}")
        for attribute, value in sorted(vars(kind).items()):
            if callable(value) or isinstance(value, staticmethod | classmethod | property):
                self.visit(value, f"method {name}.{attribute}")
            elif attribute[:2] != "__" and not self._changed.has("attribute", kind, attribute):
                self._value(value, f"attribute {attribute} of class {name}")
        self._value(kind, label if label != _OWN_CODE else f"class {name}")

    def _instance(self, value: object) -> None:
        kind = type(value)
        self.visit(kind, f"class {kind.__qualname__}")
        self._value(value, f"state of {kind.__qualname__}")

    def _add_release(self, package: str) -> None:
        name, _, version = package.rpartition("-")
        if name != "python":
            self.parts[f"package {name}"] = CodePart(package, version)

    def _value(self, value: object, label: str) -> None:
        try:
            part = digest_within(value, self._reach, self._changed).hex()
            kind = type(value)
            if isinstance(value, type) or (is_installed(kind.__module__) and kind is not SimpleNamespace):
                self.parts[label] = CodePart(part, summarize(value))
                return
            self.parts[label] = CodePart(part)
            for name, attribute in attributes_within(value, self._reach, self._changed).items():
                summary = summarize(getattr(value, name, None))
                self.parts[f"attribute {name} of {label.removeprefix('state of ')}"] = CodePart(
                    attribute.hex(), summary
                )
        except Exception:  # It has no fingerprint, or its attributes raise errors when they are read.
            self.parts.setdefault(label, CodePart(""))
