"""Which attributes of a class are effects, by all uses in its methods and in other code?"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypernodes.cache.accesses import accesses
from hypernodes.cache.attribute_uses import is_private
from hypernodes.cache.installed import is_class_of_library, is_of_library
from hypernodes.cache.leaks import PASSED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hypernodes.cache.accesses import Accesses
    from hypernodes.cache.attribute_uses import Access, Use

CONSTRUCTING_METHODS: Final = frozenset(
    ["__init__", "__new__", "__post_init__", "__attrs_post_init__", "__setstate__"]
)
CLASS_MAKING_METHODS: Final = frozenset(["__init_subclass__", "__prepare__", "__set_name__"])
_COPYING_METHODS: Final = frozenset(
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
_READING: Final = frozenset[Any](["read", "lookup", "test"])
_WRITING: Final = frozenset[Any](["set", "write", "count", "sum", "reset"])


class Findings(NamedTuple):
    """What an analysis has found out about some code."""

    names: frozenset[str]  # that it mentions, of attributes and methods among others
    outside: frozenset[Access]  # how it uses private attributes of objects other than its own
    is_dynamic: bool  # it may use attributes by names that it does not mention
    leaks: frozenset[str]
    used_by_helpers: frozenset[str]
    unknown_calls: frozenset[str]
    formats: bool


class _Method(NamedTuple):
    name: str
    function: types.FunctionType
    accesses: Accesses

    @property
    def is_constructing(self) -> bool:
        """Whether it is called when an object is made."""
        return self.name in CONSTRUCTING_METHODS

    @property
    def is_generated(self) -> bool:
        """Whether it was generated, for a dataclass, and not written by a person."""
        return self.function.__code__.co_filename.startswith(("<string>", "<attrs generated"))

    def may_be_called_by(self, names: Collection[str]) -> bool:
        """Return whether code that mentions these names may call it once an object is made."""
        return self.name in names or (self.name[:2] == "__" and not self.is_constructing)


class ClassCode:
    """The code of a class and its bases, and what it does with private attributes."""

    def __init__(self, kind: type) -> None:
        self.kind = kind
        self.methods = [
            _Method(name, function, accesses(function.__code__, is_method=is_method))
            for base in kind.__mro__
            if not is_class_of_library(base)
            for name, value in tuple(vars(base).items())
            if name not in _COPYING_METHODS
            for function, is_method in _functions_of(value)
        ]
        written = [method for method in self.methods if not method.is_generated]
        self.outside = {one for method in written for one in method.accesses.all if not one.on_self}
        self.is_dynamic = any(method.accesses.is_dynamic for method in written)
        self.is_dynamic_on_self = any(method.accesses.is_dynamic_on_self for method in written)
        self.leaks = frozenset[str]().union(*(method.accesses.leaks for method in self.methods))
        self.calls = frozenset[str]().union(*(method.accesses.calls for method in self.methods))
        self.used_of_others = frozenset[str]().union(
            *(method.accesses.used_of_others for method in self.methods)
        )
        self.formats = any(method.accesses.formats for method in written)

    def names_reached_from(self, names: Collection[str]) -> set[str]:
        """Return these names, and all that are mentioned in methods which code with these names may call."""
        reached, count = set(names), -1
        while len(reached) != count:
            count = len(reached)
            for method in self.methods:
                if method.may_be_called_by(reached):
                    reached |= method.accesses.names
        return reached

    def effects(self, code: Findings, with_class: Findings) -> dict[str, bool]:
        """Return the attributes that are effects, each with whether only plain values of it are."""
        if with_class.is_dynamic or self.is_dynamic_on_self:
            return {}
        own: dict[str, list[tuple[_Method, Use]]] = {}
        outside: dict[str, list[Access]] = {}
        for method in self.methods:
            for one in method.accesses.all:
                if one.on_self:
                    own.setdefault(one.attribute, []).append((method, one.use))
        for one in with_class.outside:
            outside.setdefault(one.attribute, []).append(one)
        reached = [method for method in self.methods if self._is_reached(method, with_class)]
        names = {method.name for method in self.methods}
        is_leaked = (
            not names.isdisjoint(with_class.leaks)
            or (PASSED in with_class.leaks and not names.isdisjoint(with_class.used_by_helpers))
            or any(method.accesses.leaks_self for method in reached)
            or not with_class.unknown_calls <= names
        )
        effects = {}
        for attribute in own.keys() | {one.attribute for one in code.outside if one.use not in _READING}:
            uses = self._uses(
                attribute, own.get(attribute, ()), outside.get(attribute, ()), code.outside, reached
            )
            if uses.are_effects(is_leaked=is_leaked or attribute in with_class.leaks, name=attribute):
                effects[attribute] = uses.are_in_place
        return effects

    def _is_reached(self, method: _Method, code: Findings) -> bool:
        """Return whether code may call a method once an object is made.

        The methods that are generated for a dataclass compare all fields, or make a text of them.
        """
        if method.is_generated:
            return method.name == "__repr__" and code.formats
        return method.may_be_called_by(code.names)

    def _uses(
        self,
        attribute: str,
        own: Collection[tuple[_Method, Use]],
        outside: Collection[Access],
        of_code: Collection[Access],
        reached: Collection[_Method],
    ) -> _Uses:
        return _Uses(
            constructing={
                use
                for method, use in own
                if method.is_constructing and not (method.is_generated and self._has_empty_factory(attribute))
            },
            reached={use for method, use in own if method in reached},
            unreached={use for method, use in own if method not in reached and not method.is_generated},
            by_method=[
                (method.name, use)
                for method, use in own
                if not method.is_constructing and (method in reached or not method.is_generated)
            ],
            outside={one.use for one in outside},
            is_changed_outside=any(one in of_code and one.use not in _READING for one in outside),
            # What a class method sets in the class is a global, which counts only if it is not changed.
            is_empty_in_class=self._is_empty_in_class(attribute)
            or any(use == "fill" and self._is_class_method(method) for method, use in own),
        )

    def _is_class_method(self, method: _Method) -> bool:
        return any(isinstance(vars(base).get(method.name), classmethod) for base in self.kind.__mro__)

    def _has_empty_factory(self, attribute: str) -> bool:
        """Return whether a dataclass always sets the attribute to an empty container."""
        field = getattr(self.kind, "__dataclass_fields__", {}).get(attribute)
        return field is not None and not field.init and field.default_factory in (dict, list, set)

    def _is_empty_in_class(self, attribute: str) -> bool:
        """Return whether the class has no value of the attribute, or an empty one."""
        for base in self.kind.__mro__:
            if attribute in vars(base):
                value = vars(base)[attribute]
                # A container in a class is filled in place, so that it need not be empty any more.
                return isinstance(value, types.MemberDescriptorType | dict | list | set) or (
                    isinstance(value, str | bytes | int | float | None) and not value
                )
        return True


class _Uses(NamedTuple):
    """All uses of one attribute."""

    constructing: set[Use]  # in methods that are called when the object is made
    reached: set[Use]  # in methods that the code may call
    unreached: set[Use]  # in the other methods
    by_method: list[tuple[str, Use]]  # in all methods apart from those that make the object
    outside: set[Use]  # in code outside of the class
    is_changed_outside: bool  # such code changes the attribute itself
    is_empty_in_class: bool  # it is empty at first, as far as the class says

    @property
    def all(self) -> set[Use]:
        return {*(use for _, use in self.by_method), *self.outside}

    @property
    def are_in_place(self) -> bool:
        """Whether the value itself is changed, by methods of its own, and not only replaced."""
        return not self.all & {"fill", "set"} or "write" in self.all

    def are_effects(self, name: str, *, is_leaked: bool) -> bool:
        """Return whether the attribute carries nothing from one call into the result of another."""
        if not (self.is_changed_outside or self.reached - _READING):
            return False
        changes = self.all - _READING
        if self._is_only_written(changes):
            return not is_leaked
        if is_leaked and not is_private(name):
            return False
        return self._is_counter(changes) or self._is_filled(changes) or self._is_memo(changes)

    def _is_only_written(self, changes: set[Use]) -> bool:
        """Return whether the code that is called only changes it, in one of the known forms."""
        is_counter = changes <= {"count", "sum", "reset"}
        return (
            not is_counter
            and "store" not in changes
            and self.reached <= _WRITING
            and self.outside <= _WRITING
        )

    def _is_counter(self, changes: set[Use]) -> bool:
        """Return whether numbers are added to it, and its value flows nowhere.

        A counter may be read in methods that the code does not call.
        """
        if not changes <= {"count", "sum", "reset"} or changes == {"reset"} or _READING & self.outside:
            return False
        return not _READING & (self.all if "sum" in changes else self.reached)

    def _is_filled(self, changes: set[Use]) -> bool:
        """Return whether it is set on first use, to a value that follows from the rest of the object.

        Methods that the code does not call must not read it: they could change its value, by training it.
        """
        return (
            "fill" in self.reached
            and "read" not in self.unreached
            and changes <= {"fill", "reset"}
            and self.constructing <= {"reset", "read", "test"}
            and self.is_empty_in_class
            and self.outside <= _READING
        )

    def _is_memo(self, changes: set[Use]) -> bool:
        """Return whether it holds results by arguments, and only the methods that fill it use it."""
        filling = {name for name, use in self.by_method if use == "memoize"}
        return (
            "memoize" in self.reached
            and changes <= {"memoize", "reset", "evict"}
            and self.constructing <= {"reset"}
            and self.is_empty_in_class
            and not self.outside
            and all(
                use in ("reset", "test") or (name in filling and use != "read")
                for name, use in self.by_method
            )
        )


def _functions_of(value: object) -> Iterator[tuple[types.FunctionType, bool]]:
    """Yield the functions behind an attribute of a class, and whether their first argument is the object."""
    waiting, visited = [(value, True)], set[int]()
    while waiting:
        one, is_method = waiting.pop()
        if id(one) in visited:
            continue
        visited.add(id(one))
        match one:
            case types.FunctionType():
                if not is_of_library(one):
                    yield one, is_method
                cells = (cell.cell_contents for cell in one.__closure__ or () if _is_bound(cell))
                waiting += [(inner, is_method) for inner in cells if callable(inner)]
                waiting.append((getattr(one, "__wrapped__", None), is_method))
            case classmethod():
                waiting.append((one.__func__, True))
            case staticmethod():
                waiting.append((one.__func__, False))
            case property():
                waiting += [(function, True) for function in (one.fget, one.fset, one.fdel)]
            case type():
                continue
            case _ if one is not None:
                waiting += [(getattr(one, name, None), is_method) for name in ("func", "__wrapped__", "fget")]
                if not is_class_of_library(type(one)):  # It may be a descriptor, which works on the object.
                    waiting += [(inner, False) for inner in vars(type(one)).values()]


def _is_bound(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
