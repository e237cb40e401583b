"""Which private attributes of an object are effects of the code that works with it?

A private attribute counts, unless it can be shown that it carries nothing from one call into the result of
another one. For that, all must be seen: the code of the pipeline, which changes it, and the code of the
object's class. `accesses` tells what each of them does with it; here it is put together.
"""

from __future__ import annotations

import abc
import functools
import types
import typing
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.accesses import accesses
from hypernodes.cache.code import reads_of
from hypernodes.cache.installed import is_class_of_library, is_of_library
from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from hypernodes.cache.accesses import Access, Accesses, Use

_MAKING: Final = frozenset(["__init__", "__new__", "__post_init__", "__attrs_post_init__", "__setstate__"])
_COPYING: Final = frozenset(
    [
        "__copy__",
        "__deepcopy__",
        "__getnewargs__",
        "__getnewargs_ex__",
        "__getstate__",
        "__reduce__",
        "__reduce_ex__",
    ]
)
_NEUTRAL: Final = (abc.ABC, typing.Generic, typing.Protocol)
_READING: Final = frozenset[Any](["read", "keyed", "test"])


class Reach:
    """What the code of some functions reaches, and what it changes on its way.

    It is found out when it is first asked for, and stays as it was then.
    """

    def __init__(
        self, *functions: Callable[..., Any] | None, around: Reach | None = None, kind: type | None = None
    ) -> None:
        """Prepare to follow functions.

        Args:
            functions: The functions.
            around: What is reached anyway.
            kind: A class of which there is an object, so that its methods may be called.
        """
        self._roots = (*filter(None, functions), *filter(None, (kind,)))
        self._around = around
        self._seen: Seen | None = None
        self._effects: dict[type, dict[str, bool]] = {}
        self._inside: dict[type, Reach] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.seen,)

    @property
    def seen(self) -> Seen:
        """What was found out."""
        if self._seen is None:
            search = _Search()
            if self._around is not None:
                search.add(self._around.seen)
            for root in self._roots:
                search.visit(root)
            self._seen = search.seen()
        return self._seen

    def effects(self, kind: type) -> dict[str, bool]:
        """Return the private attributes of a class that are effects of this code, and no inputs.

        Returns:
            Their names; with each, whether that holds only for plain values (a number, a dictionary), since
            an object of another class may do anything when it is added to.
        """
        if (known := self._effects.get(kind)) is None:
            if self._seen is _NOTHING:
                return {}
            is_known = _is_own(kind) and not self.seen.is_dynamic
            known = _Class(kind).effects(self.seen, self.within(kind).seen) if is_known else {}
            self._effects[kind] = known
        return known

    def within(self, kind: type) -> Reach:
        """Return what is reached of objects in an object of a class, through the methods of that class."""
        if self._seen is _NOTHING:
            return self
        if (known := self._inside.get(kind)) is None:
            known = self if is_class_of_library(kind) else Reach(around=self, kind=kind)
            self._inside[kind] = known
        return known


def _rebuilt(seen: Seen) -> Reach:
    reach = Reach()
    reach._seen = seen
    return reach


class Seen(typing.NamedTuple):
    """What was found out about some code.

    Attributes:
        names: Every name that it mentions, of attributes and methods among others.
        outside: How it uses private attributes of objects other than its own.
        is_dynamic: Whether it may use attributes that it does not mention.
    """

    names: frozenset[str]
    outside: frozenset[Access]
    is_dynamic: bool


_NOTHING: Final = Seen(frozenset(), frozenset(), is_dynamic=False)
NO_REACH: Final = _rebuilt(_NOTHING)
"""What is reached where no code is known: nothing, so that every private attribute counts."""


def _is_own(kind: type) -> bool:
    """Whether all that a class does is the user's own code, or Python's builtin types'."""
    return all(
        not is_class_of_library(base) or base in _NEUTRAL or base.__module__ == "builtins"
        for base in kind.__mro__
    )


class _Search:
    """Follows functions to all of the user's code that they reach."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._outside: set[Access] = set()
        self._is_dynamic = False
        self._classes: list[_Class] = []
        self._met: dict[int, object] = {}  # kept, so that no other object gets the id

    def add(self, seen: Seen) -> None:
        """Start from what was found out before."""
        self._names |= seen.names
        self._outside |= seen.outside
        self._is_dynamic = self._is_dynamic or seen.is_dynamic

    def seen(self) -> Seen:
        """Return what was found out."""
        before = -1
        while len(self._names) != before:
            before = len(self._names)
            for of_class in self._classes:
                self._names |= of_class.names_from(self._names)
        return Seen(frozenset(self._names), frozenset(self._outside), self._is_dynamic)

    def visit(self, root: object) -> None:
        """Follow a function or class."""
        waiting = [root]
        while waiting:
            value = waiting.pop()
            if value is not None and id(value) not in self._met:
                self._met[id(value)] = value
                waiting += self._follow(value)

    def _follow(self, value: Any) -> Iterator[object]:
        """Take note of something, and yield what it leads to."""
        match value:
            case types.FunctionType():
                yield from self._function(value)
            case types.MethodType():
                self._names.add(value.__func__.__name__)
                kind = type(value.__self__)
                yield kind
                if not any(function is value.__func__ for _, function, _ in _Class(kind).methods):
                    yield value.__func__
            case functools.partial():
                yield from (value.func, *value.args, *value.keywords.values())
            case type():
                yield from self._class(value)
            case list() | tuple() | set() | frozenset() | dict() if len(value) <= _LARGEST_TABLE:
                yield from filter(_leads_on, value.values() if isinstance(value, dict) else value)
            case types.ModuleType():
                return
            case _:
                yield type(value)
                yield from (_attribute(value, name) for name in ("__wrapped__", "func", "function"))

    def _function(self, function: types.FunctionType) -> Iterator[object]:
        if is_of_library(function):
            return
        found = accesses(function.__code__, is_method=False)
        self._names |= found.names
        self._outside.update(found.all)
        self._is_dynamic = self._is_dynamic or found.is_dynamic
        yield getattr(function, "__wrapped__", None)
        yield from self._read_by(function)

    def _class(self, kind: type) -> Iterator[object]:
        if is_class_of_library(kind):
            return
        of_class = _Class(kind)
        self._classes.append(of_class)
        self._outside |= of_class.outside
        self._is_dynamic = self._is_dynamic or of_class.is_dynamic
        for _, function, _ in of_class.methods:
            yield from self._read_by(function)

    def _read_by(self, function: types.FunctionType) -> Iterator[object]:
        try:
            yield from (value for _, value in reads_of(function) if _leads_on(value))
        except SignatureError:  # then it has no fingerprint, and nothing of it is cached
            self._is_dynamic = True


_LARGEST_TABLE: Final = 1000
"""Values in a container that are looked at: a table of functions has fewer, one of data may have more."""


def _leads_on(value: object) -> bool:
    return not isinstance(value, str | bytes | int | float | complex | None)


def _attribute(value: object, name: str) -> object:
    try:
        return getattr(value, name, None)
    except Exception:  # an object may do anything when it is asked
        return None


class _Method(typing.NamedTuple):
    name: str
    function: types.FunctionType
    found: Accesses

    @property
    def is_making(self) -> bool:
        """Whether it is called when an object is made."""
        return self.name in _MAKING

    @property
    def is_generated(self) -> bool:
        """Whether it was not written by anybody, but made for a dataclass."""
        return self.function.__code__.co_filename == "<string>"

    def is_called_by(self, names: Collection[str]) -> bool:
        """Whether code that mentions names may call it once an object is made."""
        return self.name in names or (self.name[:2] == "__" and not self.is_making)


class _Class:
    """What the code of a class does with private attributes, that of its bases included."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.methods = [
            _Method(name, function, accesses(function.__code__, is_method=is_method))
            for base in kind.__mro__
            if not is_class_of_library(base)
            for name, value in tuple(vars(base).items())
            if name not in _COPYING
            for function, is_method in _functions_of(value)
        ]
        self.outside = {one for method in self.methods for one in method.found.all if not one.on_self}
        self.is_dynamic = any(method.found.is_dynamic for method in self.methods)

    def names_from(self, names: Collection[str]) -> set[str]:
        """Return these names and those that methods mention which code with these names may call."""
        reached, before = set(names), -1
        while len(reached) != before:
            before = len(reached)
            for method in self.methods:
                if method.is_called_by(reached):
                    reached |= method.found.names
        return reached

    def effects(self, code: Seen, seen: Seen) -> dict[str, bool]:
        """Return the attributes that are effects, and whether only as plain values.

        Args:
            code: The code that works with objects of the class.
            seen: That code together with what the class reaches.
        """
        if seen.is_dynamic or any(method.found.is_dynamic_on_self for method in self.methods):
            return {}
        effects = {}
        own = {one.attribute for method in self.methods for one in method.found.all if one.on_self}
        for attribute in own | {one.attribute for one in seen.outside}:
            uses = self._uses(attribute, code, seen)
            if uses.are_of_an_effect():
                effects[attribute] = "fill" not in uses.all
        return effects

    def _uses(self, attribute: str, code: Seen, seen: Seen) -> _Uses:
        own = [
            (method, one.use)
            for method in self.methods
            for one in method.found.all
            if one.on_self and one.attribute == attribute
        ]
        outside = {one.use for one in seen.outside if one.attribute == attribute}
        return _Uses(
            made={
                use
                for method, use in own
                if method.is_making and not (method.is_generated and self._is_made_empty(attribute))
            },
            reached={use for method, use in own if method.is_called_by(seen.names)},
            unreached={use for method, use in own if not method.is_called_by(seen.names)},
            by_method=[(method.name, use) for method, use in own if not method.is_making],
            outside=outside,
            changed_outside=any(
                one.attribute == attribute and one.use not in _READING for one in code.outside
            ),
            is_empty_in_class=self._is_empty_in_class(attribute),
        )

    def _is_made_empty(self, attribute: str) -> bool:
        """Whether a dataclass always begins with an empty container there."""
        made = getattr(self.kind, "__dataclass_fields__", {}).get(attribute)
        return made is not None and not made.init and made.default_factory in (dict, list, set)

    def _is_empty_in_class(self, attribute: str) -> bool:
        """Whether the class itself gives an attribute no value but an empty one."""
        for base in self.kind.__mro__:
            if attribute in vars(base):
                value = vars(base)[attribute]
                return isinstance(value, types.MemberDescriptorType) or (
                    isinstance(value, str | bytes | int | float | None) and not value
                )
        return True


class _Uses(typing.NamedTuple):
    """The uses of one attribute.

    Attributes:
        made: Those where the object is made.
        reached: Those in methods that the code may call.
        unreached: Those in the others.
        by_method: Those in all methods but those that make the object, with the methods' names.
        outside: Those of other code.
        changed_outside: Whether the code changes it itself, from outside of the class.
        is_empty_in_class: Whether it begins with nothing, as far as the class says.
    """

    made: set[Use]
    reached: set[Use]
    unreached: set[Use]
    by_method: list[tuple[str, Use]]
    outside: set[Use]
    changed_outside: bool
    is_empty_in_class: bool

    @property
    def all(self) -> set[Use]:
        return {*(use for _, use in self.by_method), *self.outside}

    def are_of_an_effect(self) -> bool:
        if not (self.changed_outside or self.reached - _READING):
            return False
        changes = self.all - _READING
        return self._is_counter(changes) or self._is_filled(changes) or self._is_memo(changes)

    def _is_counter(self, changes: set[Use]) -> bool:
        """Whether numbers are added to it, and its value goes nowhere.

        What counts calls may be read in methods that the code does not call.
        """
        if not changes <= {"count", "sum", "empty"} or changes == {"empty"} or _READING & self.outside:
            return False
        return not _READING & (self.all if "sum" in changes else self.reached)

    def _is_filled(self, changes: set[Use]) -> bool:
        """Whether it is set on first use, to what follows from the rest of the object.

        What methods do with it which the code does not call (train it, say) cannot be known.
        """
        return (
            "fill" in self.reached
            and "read" not in self.unreached
            and changes <= {"fill", "empty"}
            and self.made <= {"empty", "read", "test"}
            and self.is_empty_in_class
            and self.outside <= _READING
        )

    def _is_memo(self, changes: set[Use]) -> bool:
        """Whether it holds results by arguments, for the methods alone that fill it."""
        filling = {name for name, use in self.by_method if use == "memo"}
        return (
            "memo" in self.reached
            and changes <= {"memo", "empty", "evict"}
            and self.made <= {"empty"}
            and self.is_empty_in_class
            and not self.outside
            and all(
                use in ("empty", "test") or (name in filling and use != "read")
                for name, use in self.by_method
            )
        )


def _functions_of(value: object) -> Iterator[tuple[types.FunctionType, bool]]:
    """Yield the functions behind an attribute of a class, and whether they take the object first."""
    waiting, seen = [(value, True)], set[int]()
    while waiting:
        one, is_method = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        match one:
            case types.FunctionType():
                if not is_of_library(one):
                    yield one, is_method
                cells = (cell.cell_contents for cell in one.__closure__ or () if _is_bound(cell))
                waiting += [(inner, is_method) for inner in cells if callable(inner)]
                waiting.append((getattr(one, "__wrapped__", None), is_method))
            case staticmethod() | classmethod():
                waiting.append((one.__func__, False))
            case property():
                waiting += [(function, True) for function in (one.fget, one.fset, one.fdel)]
            case type():
                continue
            case _ if one is not None:
                waiting += [(getattr(one, name, None), is_method) for name in ("func", "__wrapped__", "fget")]
                if not is_class_of_library(type(one)):  # a descriptor, say, which works on the object
                    waiting += [(inner, False) for inner in vars(type(one)).values()]


def _is_bound(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
