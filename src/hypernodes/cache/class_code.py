"""Which private attributes of a class are effects, by all uses in its methods and in other code?"""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypernodes.cache.accesses import accesses
from hypernodes.cache.installed import is_class_of_library, is_of_library

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from hypernodes.cache.accesses import Access, Accesses, Use

_CONSTRUCTING_METHODS: Final = frozenset(
    ["__init__", "__new__", "__post_init__", "__attrs_post_init__", "__setstate__"]
)
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


class Findings(NamedTuple):
    """What an analysis has found out about some code.

    Attributes:
        names: Every name that it mentions, of attributes and methods among others.
        outside: How it uses private attributes of objects other than its own.
        is_dynamic: Whether it may use attributes by names that it does not mention.
    """

    names: frozenset[str]
    outside: frozenset[Access]
    is_dynamic: bool


class _Method(NamedTuple):
    name: str
    function: types.FunctionType
    accesses: Accesses

    @property
    def is_constructing(self) -> bool:
        """Whether it is called when an object is made."""
        return self.name in _CONSTRUCTING_METHODS

    @property
    def is_generated(self) -> bool:
        """Whether it was generated, for a dataclass, and not written by a person."""
        return self.function.__code__.co_filename == "<string>"

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
        self.outside = {one for method in self.methods for one in method.accesses.all if not one.on_self}
        self.is_dynamic = any(method.accesses.is_dynamic for method in self.methods)

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
        """Return the attributes that are effects, each with whether only plain values of it are.

        Args:
            code: The code that works with objects of the class.
            with_class: That code together with what the class reaches.
        """
        if with_class.is_dynamic or any(method.accesses.is_dynamic_on_self for method in self.methods):
            return {}
        effects = {}
        own = {one.attribute for method in self.methods for one in method.accesses.all if one.on_self}
        for attribute in own | {one.attribute for one in with_class.outside}:
            uses = self._uses(attribute, code, with_class)
            if uses.are_effects():
                effects[attribute] = "fill" not in uses.all
        return effects

    def _uses(self, attribute: str, code: Findings, with_class: Findings) -> _Uses:
        own = [
            (method, one.use)
            for method in self.methods
            for one in method.accesses.all
            if one.on_self and one.attribute == attribute
        ]
        names = with_class.names
        return _Uses(
            constructing={
                use
                for method, use in own
                if method.is_constructing and not (method.is_generated and self._has_empty_factory(attribute))
            },
            reached={use for method, use in own if method.may_be_called_by(names)},
            unreached={use for method, use in own if not method.may_be_called_by(names)},
            by_method=[(method.name, use) for method, use in own if not method.is_constructing],
            outside={one.use for one in with_class.outside if one.attribute == attribute},
            is_changed_outside=any(
                one.attribute == attribute and one.use not in _READING for one in code.outside
            ),
            is_empty_in_class=self._is_empty_in_class(attribute),
        )

    def _has_empty_factory(self, attribute: str) -> bool:
        """Return whether a dataclass always sets the attribute to an empty container."""
        field = getattr(self.kind, "__dataclass_fields__", {}).get(attribute)
        return field is not None and not field.init and field.default_factory in (dict, list, set)

    def _is_empty_in_class(self, attribute: str) -> bool:
        """Return whether the class has no value of the attribute, or an empty one."""
        for base in self.kind.__mro__:
            if attribute in vars(base):
                value = vars(base)[attribute]
                return isinstance(value, types.MemberDescriptorType) or (
                    isinstance(value, str | bytes | int | float | None) and not value
                )
        return True


class _Uses(NamedTuple):
    """All uses of one attribute.

    Attributes:
        constructing: The uses in methods that are called when the object is made.
        reached: The uses in methods that the code may call.
        unreached: The uses in the other methods.
        by_method: The uses in all methods apart from those that make the object, with the methods' names.
        outside: The uses in code outside of the class.
        is_changed_outside: Whether the code changes the attribute itself, from outside of the class.
        is_empty_in_class: Whether it is empty at first, as far as the class says.
    """

    constructing: set[Use]
    reached: set[Use]
    unreached: set[Use]
    by_method: list[tuple[str, Use]]
    outside: set[Use]
    is_changed_outside: bool
    is_empty_in_class: bool

    @property
    def all(self) -> set[Use]:
        return {*(use for _, use in self.by_method), *self.outside}

    def are_effects(self) -> bool:
        if not (self.is_changed_outside or self.reached - _READING):
            return False
        changes = self.all - _READING
        return self._is_counter(changes) or self._is_filled(changes) or self._is_memo(changes)

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
            case staticmethod() | classmethod():
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
