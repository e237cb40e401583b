"""Which attributes of an object are effects of the code that works with it, and not inputs?

A private attribute is an input, unless it provably carries nothing from one call into the result of
another one. The proof needs all code that uses the attribute: the code of the pipeline, which changes it,
and the code of the object's class. `accesses` classifies each use; this module decides.
"""

from __future__ import annotations

import abc
import collections
import functools
import types
import typing
from typing import TYPE_CHECKING, Any, Final, Self

from hypernodes.cache.accesses import accesses
from hypernodes.cache.class_code import CLASS_MAKING_METHODS, CONSTRUCTING_METHODS, ClassCode, Findings
from hypernodes.cache.code import dependencies
from hypernodes.cache.installed import is_class_of_library, is_installed, is_of_library
from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypernodes.cache.attribute_uses import Access

_BASES_WITHOUT_STATE: Final = (abc.ABC, typing.Generic, typing.Protocol)
_MAX_TABLE_ITEMS: Final = 1000
"""Values of a container that are followed: a table of functions has fewer, one of data may have more."""


_METHODS_OF_BUILTINS: Final = frozenset(
    name for kind in (str, bytes, list, dict, set, collections.deque) for name in dir(kind)
)


class _Analysis:
    """The analysis of some functions, which is made when its findings are first needed.

    Afterwards it holds no reference to the functions: their closures may hold large values.
    """

    def __init__(self, functions: tuple[object, ...], outer: _Analysis | None = None) -> None:
        self._task: tuple[tuple[object, ...], _Analysis | None] = (functions, outer)
        self._findings: Findings | None = None

    @classmethod
    def done(cls, findings: Findings) -> Self:
        """Return an analysis with known findings."""
        analysis = cls(())
        analysis._findings = findings
        return analysis

    def findings(self) -> Findings:
        # The task is read first: another thread may finish the analysis and drop the task in between.
        functions, outer = self._task
        if self._findings is None:
            search = _Search()
            if outer is not None:
                search.add(outer.findings())
            for function in functions:
                search.visit(function)
            self._findings = search.findings()
            self._task = ((), None)
        return self._findings


class Reach:
    """All code that some functions reach, and the private attributes that it changes.

    The code is analysed when the first answer is needed, and as it is at that time.
    """

    def __init__(self, *functions: Callable[..., Any] | None) -> None:
        self._analysis = _Analysis(tuple(filter(None, functions)))
        self._effects: dict[type, dict[str, bool]] = {}
        self._inside: dict[type, Reach | None] = {}

    @classmethod
    def of_uses(cls, factory: Any) -> Reach:
        """Return the reach of code that calls a class or function, and any method of its result."""
        findings = cls(factory).findings
        bases = factory.__mro__ if isinstance(factory, type) else ()
        names = {name for base in bases if not is_class_of_library(base) for name in vars(base)}
        names |= {base.__name__ for base in bases}
        return _rebuild(findings._replace(names=findings.names | names))

    @classmethod
    def _of(cls, analysis: _Analysis) -> Reach:
        reach = cls()
        reach._analysis = analysis
        return reach

    def __reduce__(self) -> str | tuple[Any, ...]:
        return "NO_REACH" if self is NO_REACH else (_rebuild, (self.findings,))

    @property
    def findings(self) -> Findings:
        """What the analysis of the code has found out."""
        return self._analysis.findings()

    def effects(self, kind: type) -> dict[str, bool]:
        """Return the private attributes of a class that are effects of this code, and not inputs.

        Each has whether it is an effect only while its value is of a plain type (a number, a dictionary): the
        methods of another class may do anything when they are called.
        """
        if self is NO_REACH:
            return {}
        if (effects := self._effects.get(kind)) is None:
            is_decidable = _is_all_visible(kind) and not self.findings.is_dynamic
            effects = (
                ClassCode(kind).effects(self.findings, self.inside(kind).findings) if is_decidable else {}
            )
            self._effects[kind] = effects
        return effects

    def may_read(self, name: str) -> bool:
        """Return whether this code may read an attribute of that name."""
        return self is NO_REACH or self.findings.is_dynamic or name in self.findings.names

    @property
    def names(self) -> frozenset[str]:
        """The names that this code contains, as far as the code is known."""
        return frozenset() if self is NO_REACH else self.findings.names

    def mentions(self, names: frozenset[str]) -> bool:
        """Return whether this code contains one of these names."""
        return not names.isdisjoint(self.names)

    def may_call(self, kind: type, name: str) -> bool:
        """Return whether this code may call a method of a class: if not, its effects are not this code's.

        Methods that are called when a class is made, such as those that register it, have been called before.
        """
        if self is NO_REACH or name in CLASS_MAKING_METHODS:
            return False
        if issubclass(kind, type) and name in CONSTRUCTING_METHODS:
            return False
        names = self.inside(kind).findings.names
        if name in CONSTRUCTING_METHODS:
            return kind.__name__ in names
        return name in names or name[:2] == "__"

    def inside(self, kind: type) -> Reach:
        """Return the reach for objects in an object of a class: the methods of the class are added."""
        if self is NO_REACH:
            return self
        if kind not in self._inside:
            # None stands for this reach itself: a reference to it would be a cycle.
            is_foreign = is_class_of_library(kind)
            self._inside[kind] = None if is_foreign else Reach._of(_Analysis((kind,), self._analysis))
        return self._inside[kind] or self


NO_REACH: Final = Reach()
"""The reach of unknown code: no private attribute is known to be an effect, so that every one is an input."""


def _rebuild(findings: Findings) -> Reach:
    return Reach._of(_Analysis.done(findings))


def _is_all_visible(kind: type) -> bool:
    """Return whether all code of a class is the user's own or that of Python's builtin types."""
    return all(
        not is_class_of_library(base)
        or base in _BASES_WITHOUT_STATE
        or base.__module__ in ("builtins", "enum")
        for base in kind.__mro__
    )


class _Search:
    """A walk from functions to all of the user's code that they reach."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._outside: set[Access] = set()
        self._leaks: set[str] = set()
        self._used_by_helpers: set[str] = set()
        self._calls: set[str] = set()
        self._first: object = None
        self._is_dynamic = self._formats = False
        self._classes: list[ClassCode] = []
        self._visited: dict[int, object] = {}  # The references keep ids from being reused.

    def add(self, findings: Findings) -> None:
        """Add what an earlier analysis has found out."""
        self._names |= findings.names
        self._outside |= findings.outside
        self._leaks |= findings.leaks
        self._used_by_helpers |= findings.used_by_helpers
        self._calls |= findings.unknown_calls
        self._is_dynamic = self._is_dynamic or findings.is_dynamic
        self._formats = self._formats or findings.formats

    def findings(self) -> Findings:
        """Return what was found out."""
        count = -1
        while len(self._names) != count:
            count = len(self._names)
            for of_class in self._classes:
                self._names |= of_class.names_reached_from(self._names)
        return Findings(
            frozenset(self._names),
            frozenset(self._outside),
            self._is_dynamic,
            frozenset(self._leaks),
            frozenset(self._used_by_helpers),
            self._unknown_calls(),
            self._formats,
        )

    def _unknown_calls(self) -> frozenset[str]:
        known = {method.name for of_class in self._classes for method in of_class.methods}
        return frozenset(self._calls - known - _METHODS_OF_BUILTINS)

    def visit(self, root: object) -> None:
        """Follow a function or class, and everything that it leads to."""
        waiting = [root]
        self._first = root
        while waiting:
            if (value := waiting.pop()) is not None and id(value) not in self._visited:
                self._visited[id(value)] = value
                waiting += self._follow(value)

    def _follow(self, value: Any) -> Iterator[object]:
        """Note what a value does, and yield the values that it leads to."""
        match value:
            case types.FunctionType():
                yield from self._function(value)
            case types.MethodType():
                self._names.add(value.__func__.__name__)
                kind = type(value.__self__)
                yield kind
                if not any(function is value.__func__ for _, function, _ in ClassCode(kind).methods):
                    yield value.__func__
            case functools.partial():
                yield from (value.func, *value.args, *value.keywords.values())
            case type():
                yield from self._class(value)
            case list() | tuple() | set() | frozenset() | dict() if len(value) <= _MAX_TABLE_ITEMS:
                yield from filter(_may_lead_to_code, value.values() if isinstance(value, dict) else value)
            case types.ModuleType():
                if not is_installed(value.__name__):
                    yield from filter(_may_lead_to_code, vars(value).values())
            case _:
                yield type(value)
                yield from (_attribute(value, name) for name in ("__wrapped__", "func", "function"))

    def _function(self, function: types.FunctionType) -> Iterator[object]:
        if is_of_library(function):
            return
        found = accesses(function.__code__, is_method=False)
        self._names |= found.names
        self._outside.update(found.all)
        self._leaks |= found.leaks
        self._calls |= found.calls
        if function is not self._first:
            self._used_by_helpers |= found.used_of_others
        self._is_dynamic = self._is_dynamic or found.is_dynamic
        self._formats = self._formats or found.formats
        yield getattr(function, "__wrapped__", None)
        yield from self._dependencies(function)

    def _class(self, kind: type) -> Iterator[object]:
        if is_class_of_library(kind):
            return
        of_class = ClassCode(kind)
        self._classes.append(of_class)
        self._outside |= of_class.outside
        self._leaks |= of_class.leaks
        self._calls |= of_class.calls
        self._used_by_helpers |= of_class.used_of_others
        self._is_dynamic = self._is_dynamic or of_class.is_dynamic
        self._formats = self._formats or of_class.formats
        for _, function, _ in of_class.methods:
            self._visited[id(function)] = function  # It may be the closure value of a wrapper.
            yield from self._dependencies(function)

    def _dependencies(self, function: types.FunctionType) -> Iterator[object]:
        try:
            yield from (value for _, value in dependencies(function) if _may_lead_to_code(value))
        except SignatureError:  # The function has no fingerprint, so that no call of it is cached.
            self._is_dynamic = True


def _may_lead_to_code(value: object) -> bool:
    return not isinstance(value, str | bytes | int | float | complex | None)


def _attribute(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except Exception:  # The attributes of an object may be computed by any code.
        return None
