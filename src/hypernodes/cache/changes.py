"""Which variables, attributes and items does code change itself? They are effects and not inputs.

The answer for a code object names variables. `changed_places` finds what these names stand for.
"""

from __future__ import annotations

import functools
from types import CodeType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias

from hypernodes.cache.bytecode import nested_code
from hypernodes.cache.code_flow import CodeFlow

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hypernodes.cache.bytecode import Instruction

_Step: TypeAlias = tuple[Literal["attribute", "item"], Any]
_Path: TypeAlias = tuple[_Step, ...]

MUTATORS: Final = frozenset(
    (
        *("add", "append", "appendleft", "clear", "discard", "extend", "extendleft", "insert", "pop"),
        *("popitem", "popleft", "put", "put_nowait", "remove", "reverse", "setdefault", "sort", "update"),
        *("subtract", "move_to_end", "rotate", "fill", "write", "writelines", "popright"),
        *("difference_update", "intersection_update", "symmetric_difference_update", "frombytes"),
    )
)
"""Methods of containers, queues and files that change their object."""
SILENT_MUTATORS: Final = MUTATORS - {"pop", "popitem", "popleft", "popright", "remove", "setdefault", "write"}
"""Those of them that return nothing, whatever the object contains."""
_TAKING_METHODS: Final = frozenset(("pop", "popitem", "popleft", "popright"))
"""Those whose result is taken from the object."""
_VARIABLES: Final = {
    "LOAD_GLOBAL": "global",
    "LOAD_DEREF": "cell",
    "LOAD_CLASSDEREF": "cell",
    "LOAD_CLOSURE": "cell",
    "LOAD_FROM_DICT_OR_DEREF": "cell",
    "LOAD_FAST": "local",
}
_REBINDS: Final = {
    "STORE_GLOBAL": "global",
    "DELETE_GLOBAL": "global",
    "STORE_DEREF": "cell",
    "DELETE_DEREF": "cell",
}
_ENDS_STATEMENT: Final = frozenset((*_REBINDS, "STORE_SUBSCR", "STORE_ATTR", "STORE_FAST", "POP_TOP"))
_FIRST_INPLACE_OPERATOR: Final = 13
_MAX_ALIASES: Final = 4
"""Assignments in a row through which a variable is followed."""


class Place(NamedTuple):
    """A variable, or something in it."""

    scope: str
    name: str
    path: _Path = ()
    is_exact: bool = True

    def then(self, kind: Literal["attribute", "item"], key: object) -> Place:
        """Return the place of an attribute or item of the value here."""
        return self._replace(path=(*self.path, (kind, key))) if self.is_exact else self

    def somewhere_below(self) -> Place:
        """Return the place of an unknown item of the value here."""
        return self._replace(is_exact=False)


class Change(NamedTuple):
    """A change of the value at a place."""

    place: Place
    method: str = ""
    is_silent: bool = False  # the code does nothing else with the value


class Passed(NamedTuple):
    """A value that is passed to a function, which may change it."""

    function: Place
    position: int | str  # or the name of the parameter
    argument: Place
    is_read: bool = False  # its content may flow into the result of the code: by this call, or otherwise


class Changes(NamedTuple):
    """What some code changes, functions defined in it included."""

    all: tuple[Change, ...]
    passed: tuple[Passed, ...]


NO_CHANGES: Final = Changes((), ())


@functools.lru_cache(maxsize=4096)
def changes_in(code: CodeType) -> Changes:
    """Return what code changes of variables that exist outside of it, or come in as its parameters."""
    reader = _Reader(code)
    changes = dict.fromkeys(reader.changes())
    passed = dict.fromkeys(reader.passed())
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            inner = changes_in(constant)
            changes |= dict.fromkeys(
                change for change in inner.all if _is_visible_outside(change.place, constant)
            )
            passed |= dict.fromkeys(
                one for one in inner.passed if _is_visible_outside(one.argument, constant)
            )
    return Changes(tuple(changes), tuple(passed))


def _is_visible_outside(place: Place, code: CodeType) -> bool:
    return place.scope == "global" or (place.scope == "cell" and place.name in code.co_freevars)


class _Reader:
    """Reads the changes from the instructions of one code object."""

    def __init__(self, code: CodeType) -> None:
        self._flow = CodeFlow(code, None)
        self._ops = self._flow.ops
        count = code.co_argcount + code.co_kwonlyargcount
        self._parameters = frozenset(code.co_varnames[:count])
        self._free = frozenset(code.co_freevars)
        self._silent: dict[str, bool] = {}
        self._inner = [inner for inner in nested_code(code) if inner is not code]
        self._stores: dict[object, list[int]] = {}
        for position, op in enumerate(self._ops):
            if op.name == "STORE_FAST":
                self._stores.setdefault(op.argument, []).append(position)

    def changes(self) -> Iterator[Change]:
        for position, op in enumerate(self._ops):
            place, method = None, ""
            match op.name:
                case "STORE_GLOBAL" | "DELETE_GLOBAL" | "STORE_DEREF" | "DELETE_DEREF":
                    scope = _REBINDS[op.name]
                    if scope == "global" or op.argument in self._free:
                        place = Place(scope, str(op.argument))
                case "STORE_FAST" if self._is_inplace(position):
                    place, method = self._place(self._flow.producer(position - 1)), "extend"
                case "LOAD_ATTR" if op.argument in MUTATORS and not self._is_read(position):
                    place, method = self._place(position), str(op.argument)
                case "STORE_ATTR" | "DELETE_ATTR":
                    place = self._then(self._place(position), "attribute", op.argument)
                case "STORE_SUBSCR" | "DELETE_SUBSCR":
                    place = self._item(position)
                case "COPY":
                    place = self._augmented(position)
                case "CALL":
                    place, method = self._changed_argument(position)
            if place is not None:
                yield Change(place, method, self._is_silent(place.name))

    def _is_silent(self, name: str) -> bool:
        """Return whether each use of a variable is within a statement that changes it, without any call."""
        if name not in self._silent:
            uses = (at for at, op in enumerate(self._ops) if op.name in _VARIABLES and op.argument == name)
            is_inner = any(name in (*code.co_names, *code.co_freevars) for code in self._inner)
            self._silent[name] = not is_inner and all(map(self._is_within_change, uses))
        return self._silent[name]

    def _is_within_change(self, load: int) -> bool:
        """Return whether a variable is loaded in a statement that does nothing but change its value."""
        following = range(load, len(self._ops))
        end = next((at for at in following if self._ops[at].name in _ENDS_STATEMENT), load)
        statement = self._ops[self._flow.start_of_statement(end) : end + 1]
        first, last = statement[0], statement[-1]
        calls = sum(op.name == "CALL" for op in statement)
        if any(op.target >= 0 for op in statement):
            return False
        variable = self._ops[load].argument
        if last.name == "POP_TOP":
            is_method = len(statement) > 1 and statement[1].name == "LOAD_ATTR"
            return (
                calls == 1 and is_method and first.argument == variable and statement[1].argument in MUTATORS
            )
        if last.name == "STORE_SUBSCR":
            is_augmented = any(op.name == "COPY" for op in statement)
            start = first if is_augmented else self._flow.op(self._flow.producer(self._flow.producer(end)))
            return not calls and start.argument == variable
        return not calls and last.name in _REBINDS and last.argument == variable

    def _is_read(self, position: int) -> bool:
        """Return whether the result of a method like ``pop`` is used, or that of ``sort`` in place is."""
        method, start = self._ops[position].argument, self._flow.producer(position)
        if method in ("sort", "reverse"):
            variable = self._flow.op(start)
            loads = [op for op in self._ops if op[:2] == variable[:2]]
            return len(loads) > 1
        if method not in _TAKING_METHODS:
            return False
        for end in range(position + 1, len(self._ops)):
            if self._ops[end].name == "CALL" and self._flow.producer(end + 1) == start:
                return self._flow.op(end + 1).name != "POP_TOP"
        return True

    def passed(self) -> Iterator[Passed]:
        for position, op in enumerate(self._ops):
            if op.name != "CALL":
                continue
            function, starts = self._call(position)
            if function is None:
                continue
            count = len(starts) - len(op.keywords)
            names = (*range(count), *op.keywords)
            for name, end in zip(names, [*starts[1:], position], strict=True):
                if (argument := self._place(end)) is not None:
                    yield Passed(function, name, argument, self._is_read_beside(argument, starts, position))

    def _is_read_beside(self, place: Place, starts: list[int], call: int) -> bool:
        """Return whether the result of a call is used, or a variable is used outside of its arguments."""
        within = self._ops[starts[0] : call]
        return (
            self._flow.op(call + 1).name != "POP_TOP"
            or any(op.name == "CALL" for op in within)
            or self._loads(place, self._ops) != self._loads(place, within)
            or any(place.name in (*code.co_names, *code.co_freevars) for code in self._inner)
        )

    @staticmethod
    def _loads(place: Place, ops: Sequence[Instruction]) -> int:
        return sum(op.name in _VARIABLES and op.argument == place.name for op in ops)

    # ------------------------------------------------------------------------------------ places

    def _place(self, end: int, aliases: int = 0) -> Place | None:
        """Return the place of the value that is on top of the stack before an instruction."""
        op = self._flow.op(end - 1)
        if (scope := _VARIABLES.get(op.name)) is not None:
            return self._variable(scope, str(op.argument), aliases)
        match op.name:
            case "LOAD_ATTR":
                return self._then(self._place(end - 1, aliases), "attribute", op.argument)
            case "BINARY_SUBSCR":
                return self._item(end - 1, aliases)
            case "CALL":
                return self._result(end - 1, aliases)
        return None

    def _variable(self, scope: str, name: str, aliases: int) -> Place | None:
        if scope == "cell" and name not in self._free:
            scope = "local"  # A function within this one uses the variable, too.
        stores = self._stores.get(name, ())
        if scope != "local":
            return Place(scope, name)
        if name in self._parameters:
            return None if any(not self._is_inplace(store) for store in stores) else Place(scope, name)
        if len(stores) != 1 or aliases >= _MAX_ALIASES:
            return None
        return self._place(stores[0], aliases + 1)

    def _item(self, end: int, aliases: int = 0) -> Place | None:
        """Return the place of an item: its container and key are on top of the stack."""
        key = self._flow.producer(end)
        if (container := self._place(key, aliases)) is None:
            return None
        if key == end - 1 and self._flow.loads_constant(key):
            return container.then("item", self._ops[key].argument)
        return container.somewhere_below()

    def _result(self, call: int, aliases: int) -> Place | None:
        """Return the place of ``d.get(k)`` or ``d.setdefault(k, v)``."""
        start = self._flow.start_of_call(call)
        method = self._flow.op(start - 1)
        if method.name == "LOAD_ATTR" and method.argument in ("get", "setdefault"):
            return self._below(self._place(start - 1, aliases))
        return None

    def _augmented(self, position: int) -> Place | None:
        """Return the place that ``v.a += ...`` or ``v[k] += ...`` changes."""
        op, following = self._flow.op(position), self._flow.op(position + 1)
        if op.argument == 1 and following.name == "LOAD_ATTR":
            stored = ("STORE_ATTR", following.argument)
            if any(later[:2] == stored for later in self._ops[position:]):
                return self._then(self._place(position), "attribute", following.argument)
        if op.argument == 2 and following[:2] == ("COPY", 2):
            return self._item(position)
        return None

    def _is_inplace(self, position: int) -> bool:
        """Return whether ``v += ...`` changes the value of a local variable here."""
        operator, store = self._flow.op(position - 1), self._ops[position]
        if operator.name != "BINARY_OP" or not isinstance(operator.argument, int):
            return False
        left = self._flow.op(self._flow.producer(position - 1) - 1)
        return operator.argument >= _FIRST_INPLACE_OPERATOR and left[:2] == ("LOAD_FAST", store.argument)

    # ------------------------------------------------------------------------------------- calls

    def _call(self, call: int) -> tuple[Place | None, list[int]]:
        starts = self._flow.argument_starts(call)
        return (self._place(starts[0]) if starts else None), starts

    def _changed_argument(self, call: int) -> tuple[Place | None, str]:
        """Return what ``setattr(v, "a", ...)`` and the like change."""
        function, starts = self._call(call)
        if function is None or not starts:
            return None, ""
        called = str(function.path[-1][1]) if function.path else function.name
        ends = [*starts[1:], call]
        argument = self._place(ends[0])
        if called in ("setattr", "delattr", "__setattr__") and len(starts) > 1:
            name = self._ops[starts[1]]
            if starts[1] + 1 == ends[1] and name.name == "LOAD_CONST":
                return self._then(argument, "attribute", name.argument), ""
        return None, ""

    @staticmethod
    def _then(place: Place | None, kind: Literal["attribute", "item"], key: object) -> Place | None:
        return None if place is None else place.then(kind, key)

    @staticmethod
    def _below(place: Place | None) -> Place | None:
        return None if place is None else place.somewhere_below()
