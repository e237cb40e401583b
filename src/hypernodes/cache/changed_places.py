"""Which cells, objects and dictionaries hold what some functions change?"""

from __future__ import annotations

import collections
import io
import queue
import sys
from array import array
from types import FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.cache.changes import Change, changes_in
from hypernodes.cache.installed import is_installed, is_of_library

if TYPE_CHECKING:
    import functools
    from collections.abc import Iterable, Iterator

    from hypernodes.cache.changes import Place

_Slot: TypeAlias = tuple[str, object, object, object]
"""What holds a value: the kind of place, its owner, the key under which the owner has it, and the value."""

_CONTAINERS: Final = (
    *(list, dict, set, bytearray, collections.deque, array, collections.UserDict, collections.UserList),
    *(queue.Queue, queue.SimpleQueue, io.IOBase),
)
_ADDS_TO_FIRST: Final = frozenset(("heappush", "insort", "insort_left", "insort_right"))
_CHANGES_FIRST: Final = frozenset(
    (
        *("at", "copyto", "delitem", "fill_diagonal", "heapify", "heappop", "heappushpop", "heapreplace"),
        *("place", "put", "put_along_axis", "putmask", "setitem", "shuffle"),
    )
)
"""Functions of libraries that change their first argument, and nothing else."""
_OVERWRITTEN: Final = "overwritten"
"""Stands for the method of a change by such a function."""
_MAX_CALLS: Final = 4
"""Calls in a row through which an argument is followed."""


class Effect:
    """Stands for a value that the code itself changes."""


class ChangedPlaces:
    """The places that the code of some functions changes: they are left out of fingerprints."""

    def __init__(self) -> None:
        self._owners: dict[int, object] = {}  # The references keep ids from being reused.
        self._is_set: dict[tuple[str, int, object], bool] = {}
        # Functions that only change a place: for others, which read it, it counts.
        self._only_changing: dict[tuple[str, int, object], list[object]] = {}

    def __len__(self) -> int:
        return len(self._is_set)

    def has(self, kind: str, owner: object, key: object = None) -> bool:
        """Return whether the code changes an attribute, item, global, default or argument of an owner."""
        return id(owner) in self._owners and (kind, id(owner), key) in self._is_set

    def has_any(self, owner: object) -> bool:
        """Return whether the code changes anything of an owner."""
        return id(owner) in self._owners

    def input(self, kind: str, owner: object, key: object, value: object, reader: object = None) -> object:
        """Return what counts of a value: of one that is changed in place, the code of its class."""
        place = (kind, id(owner), key)
        is_set = self._is_set.get(place) if id(owner) in self._owners else None
        if is_set is None or not any(one is reader for one in self._only_changing.get(place, (reader,))):
            return value
        return Effect if is_set or is_installed(type(value).__module__) else type(value)

    def add_function(self, function: FunctionType) -> None:
        """Add what a function changes."""
        has_defaults = bool(function.__defaults__ or function.__kwdefaults__)
        for change in _all_changes(function):
            if change.place.scope == "local" and not has_defaults:
                continue
            if (slot := _slot_of_variable(function, change.place)) is not None:
                self._add(slot, change, function)

    def add_partial(self, partial: functools.partial[Any]) -> None:
        """Add the arguments in a partial function that the function changes."""
        function = partial.func
        offset = isinstance(function, MethodType)
        function = function.__func__ if isinstance(function, MethodType) else function
        if not isinstance(function, FunctionType) or is_of_library(function):
            return
        names = function.__code__.co_varnames[: function.__code__.co_argcount][offset:]
        values: list[tuple[str, tuple[int | str, object]]] = []
        values += zip(names, enumerate(partial.args), strict=False)
        values += [(name, (name, value)) for name, value in partial.keywords.items()]
        for change in _all_changes(function):
            for name, (key, value) in values:
                if change.place[:2] == ("local", name):
                    self._add(("argument", partial, key, value), change, function)

    def _add(self, slot: _Slot, change: Change, function: FunctionType) -> None:
        slot, is_end = _slot_at(slot, change)
        kind, owner, key, value = slot
        # A part of an array may be overwritten, and another part be read.
        is_overwritten = change.method == _OVERWRITTEN or _is_array(value)
        if is_overwritten and not change.is_silent:
            return
        is_set = is_end and change.place.is_exact and not change.method
        if not is_set and not _is_container(value):
            return  # What a method of another object does is seen in the code of its class.
        if change.method and not change.place.is_exact and not all(map(_is_container, _items_of(value))):
            return  # The method is one of an item.
        if is_set and kind in ("default", "argument"):
            return  # The parameter is set anew: its value is not changed.
        place = (kind, id(owner), key)
        if not is_overwritten:
            self._only_changing.pop(place, None)
        elif place not in self._is_set or place in self._only_changing:
            self._only_changing.setdefault(place, []).append(function)
        self._owners[id(owner)] = owner
        self._is_set[place] = is_set or self._is_set.get(place, False)


def _is_container(value: object) -> bool:
    return isinstance(value, _CONTAINERS) or _is_array(value)


def _is_array(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray)


def _items_of(container: object) -> Iterable[object]:
    if isinstance(container, dict):
        return tuple(dict.values(container))
    return tuple(list.__iter__(container)) if isinstance(container, list) else ()


def _slot_of_variable(function: FunctionType, place: Place) -> _Slot | None:
    """Return what holds the value of a variable, as kind, owner and key, and the value."""
    match place.scope:
        case "global":
            scope = function.__globals__
            return "global", scope, place.name, scope.get(place.name)
        case "cell":
            names, cells = function.__code__.co_freevars, function.__closure__ or ()
            for name, cell in zip(names, cells, strict=True):
                if name == place.name:
                    try:
                        return "cell", cell, None, cell.cell_contents
                    except ValueError:  # The variable is not bound yet.
                        return "cell", cell, None, None
        case _:
            defaults = dict(defaults_of(function))
            if place.name in defaults:
                return "default", function, place.name, defaults[place.name]
    return None


def defaults_of(function: FunctionType) -> Iterator[tuple[str, object]]:
    """Iterate over the parameters of a function that have defaults."""
    if function.__defaults__ is None and function.__kwdefaults__ is None:
        return
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    defaults = function.__defaults__ or ()
    yield from zip(names[len(names) - len(defaults) :], defaults, strict=True)
    yield from sorted((function.__kwdefaults__ or {}).items())


def _slot_at(slot: _Slot, change: Change) -> tuple[_Slot, bool]:
    """Follow the path of a change as far as what it leads to can be left out on its own."""
    *_, value = slot
    path = change.place.path
    for number, (kind, key) in enumerate(path):
        is_set = number == len(path) - 1 and not change.method and change.place.is_exact
        if kind == "item":
            is_present = (type(value) is dict and (key in value or is_set)) or (
                type(value) is list and isinstance(key, int) and -len(value) <= key < len(value)
            )
            if not is_present:
                return slot, False
            assert isinstance(value, dict | list)
            position = key % len(value) if isinstance(value, list) else key
            slot = ("item", value, position, value.get(key) if isinstance(value, dict) else value[key])
        elif isinstance(value, ModuleType):
            slot = ("global", vars(value), key, vars(value).get(key))
        else:
            slot = _slot_of_attribute(value, key, is_set=is_set)
        *_, value = slot
    return slot, True


def _slot_of_attribute(value: object, name: str, *, is_set: bool) -> _Slot:
    own = getattr(value, "__dict__", {})
    if name not in own and not is_set:
        bases = value.__mro__ if isinstance(value, type) else type(value).__mro__
        for base in bases:
            if name in vars(base) and not hasattr(vars(base)[name], "__get__"):
                return "attribute", base, name, vars(base)[name]
    try:
        return "attribute", value, name, getattr(value, name, None)
    except Exception:  # The attributes of an object may be computed by any code.
        return "attribute", value, name, None


def _all_changes(function: FunctionType, calls: int = 0) -> Iterable[Change]:
    """Return the changes of a function, and those that functions make which it passes values to."""
    changes, passed = changes_in(function.__code__)
    if not passed or calls >= _MAX_CALLS:
        return changes
    more: dict[Change, None] = dict.fromkeys(changes)
    for called, position, argument, is_read in passed:
        if (slot := _slot_of_variable(function, called)) is None:
            continue
        (*_, value), _ = _slot_at(slot, Change(called))
        is_method = isinstance(value, MethodType)
        if isinstance(value, MethodType):
            value = value.__func__
        if not isinstance(value, FunctionType) or is_of_library(value):
            if position == 0 and _name_in_library(value) in _ADDS_TO_FIRST:
                more[Change(argument, "extend")] = None
            elif not argument.path and _overwrites(value, position):
                more[Change(argument, _OVERWRITTEN, not is_read)] = None
            continue
        if value is function:
            continue
        names = value.__code__.co_varnames[is_method : value.__code__.co_argcount]
        name = names[position] if isinstance(position, int) and position < len(names) else position
        for change in _all_changes(value, calls + 1):
            place = change.place
            if place[:2] == ("local", name) and (change.method or place.path):
                below = argument
                for step in place.path:
                    below = below.then(*step)
                below = below if place.is_exact else below.somewhere_below()
                more[Change(below, change.method, change.is_silent and not is_read)] = None
    return more


def _name_in_library(function: object) -> str | None:
    """Return the name of a function that Python or an installed package has."""
    name = getattr(function, "__name__", None)
    is_library = is_installed(getattr(function, "__module__", None) or "builtins")
    return name if is_library and isinstance(name, str) else None


def _overwrites(function: object, position: int | str) -> bool:
    """Return whether a function of a library overwrites an argument, perhaps in part."""
    name = _name_in_library(function)
    return name is not None and (position == "out" or (position == 0 and name in _CHANGES_FIRST))
