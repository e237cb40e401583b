"""Of what is the code of a node made? Its parts by name, so that one can say which of them changed."""

from __future__ import annotations

import functools
from types import FunctionType, MethodType
from typing import Any, cast

from hypernodes.cache.about import Part, shown
from hypernodes.cache.code import Release, reads_of
from hypernodes.cache.content import code_digest, digest
from hypernodes.cache.installed import is_class_of_library, is_installed, is_of_library, release
from hypernodes.cache.reach import Reach
from hypernodes.exceptions import SignatureError


def parts(function: object) -> dict[str, Part]:
    """Return what the code of a function is made of, each part with a digest of its own.

    Example:
        >>> from functools import partial
        >>> parts(partial(lambda x, rate: x * rate, rate=2))["argument rate"].shown
        '2'
    """
    trace = _Trace(Reach(cast("Any", function)))
    trace.visit(function, "own code")
    python = release("sys")
    trace.found["python"] = Part(python, python.removeprefix("python-"))
    return trace.found


class _Trace:
    """A walk through what a function reaches, that goes into code and not into values."""

    def __init__(self, reach: Reach) -> None:
        self.found: dict[str, Part] = {}
        self._reach = reach
        self._seen: list[object] = []  # kept, so that no other object gets its id

    def visit(self, value: Any, label: str) -> None:
        """Note a function or class and what it reaches; anything else as a value."""
        if any(value is seen for seen in self._seen):
            return
        self._seen.append(value)
        inner = getattr(value, "__wrapped__", None) if not isinstance(value, FunctionType) else None
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
                self._value(argument, f"argument {name}")
        elif isinstance(value, staticmethod | classmethod):
            self.visit(value.__func__, label)
        elif isinstance(value, property):
            for function in filter(None, (value.fget, value.fset, value.fdel)):
                self.visit(function, label)
        elif type(value).__name__ == "Node" and hasattr(value, "function"):
            self.visit(value.function, label)
        elif callable(inner):
            self.visit(inner, label)
        elif callable(value) and not is_installed(type(value).__module__):
            self._instance(value)
        else:
            self._value(value, label)

    def _function(self, function: FunctionType, label: str) -> None:
        if is_of_library(function):
            self._package(function.__module__)
            return
        of = "" if label == "own code" else f" of {label.partition(' ')[2]}"
        if label in self.found:
            label = f"{label} ({function.__module__}, line {function.__code__.co_firstlineno})"
        self.found[label] = Part(code_digest(function.__code__).hex())
        for what, value in reads_of(function):
            if isinstance(value, Release):
                self._note_release(value)
            elif isinstance(value, type):
                self.visit(value, f"class {value.__qualname__}")
            elif callable(value):
                self.visit(value, f"helper {what.rpartition(' ')[2]}")
            else:
                self._value(value, what + of)

    def _class(self, kind: type, label: str) -> None:
        if is_class_of_library(kind):
            self._package(kind.__module__)
            return
        name = kind.__qualname__.rpartition(".")[2]
        for base in kind.__bases__:
            self.visit(base, f"class {base.__qualname__}")
        for attribute, value in sorted(vars(kind).items()):
            if callable(value) or isinstance(value, staticmethod | classmethod | property):
                self.visit(value, f"method {name}.{attribute}")
        self._value(kind, label if label != "own code" else f"class {name}")

    def _instance(self, value: object) -> None:
        kind = type(value)
        self.visit(kind, f"class {kind.__qualname__}")
        self._value(value, f"state of {kind.__qualname__}")

    def _package(self, module: str) -> None:
        self._note_release(release(module))

    def _note_release(self, named: str) -> None:
        name, _, version = named.rpartition("-")
        if name != "python":
            self.found[f"package {name}"] = Part(named, version)

    def _value(self, value: object, label: str) -> None:
        try:
            self.found[label] = Part(digest(value, self._reach).hex(), shown(value))
        except SignatureError:
            self.found[label] = Part("")
