"""What is each use of an attribute in some code?

A use that does not have exactly one of the known forms is a plain ``"read"`` or ``"store"``, and no attribute
with such uses is an effect.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from hypernodes.cache.changes import SILENT_MUTATORS
from hypernodes.cache.code_flow import LOADS
from hypernodes.cache.empty_stores import empty_stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.cache.code_flow import CodeFlow

Use: TypeAlias = Literal[
    "read",
    "lookup",
    "evict",
    "test",
    "count",
    "sum",
    "reset",
    "fill",
    "memoize",
    "set",
    "write",
    "store",
]
"""What code does with an attribute.

- ``read``: The value may flow anywhere.
- ``lookup``: One item is looked up (``self._x[k]``, ``k in self._x``, ``self._x.get(k)``).
- ``evict``: An item is removed.
- ``test``: The code only tests whether it is set (``if self._x is None``, ``hasattr(self, "_x")``).
- ``count``: A constant is added (``self._x += 1``), and the value flows nowhere else.
- ``sum``: Another value is added (``self._x += v``), and the sum flows nowhere else.
- ``reset``: It is set to an empty value (``None``, ``0``, ``{}``), deleted or cleared.
- ``fill``: It is set where it was missing, to a value into which no argument of the function flows.
- ``memoize``: An item is set where it was missing, and all arguments of the function are in its key.
- ``set``: It is set to any other value.
- ``write``: An item of it is set, or a value is added to it, as in ``self._x.append(v)``.
- ``store``: It may be changed in any way.
"""


class Access(NamedTuple):
    """One use of an attribute."""

    attribute: str
    use: Use
    on_self: bool


_EVICTING_METHODS: Final = frozenset(["move_to_end", "pop", "popitem"])
_CLOSING_METHODS: Final = frozenset(["close", "disconnect", "release", "shutdown", "stop", "terminate"])
_CHANGING_VERBS: Final = frozenset(
    (
        *("add", "append", "appendleft", "clear", "connect", "del", "delete", "discard", "drop", "extend"),
        *("extendleft", "fit", "insert", "learn", "load", "log", "partial", "pop", "push", "put"),
        *("register", "remove", "reset", "reverse", "send", "set", "sort", "step", "train", "update"),
        "write",
    )
)
"""First words in names of methods that change their object, such as `partial_fit`."""
_PURE: Final = frozenset(
    (
        *("abs", "float", "get", "int", "len", "max", "min", "monotonic", "perf_counter", "process_time"),
        *("repr", "round", "str", "sum", "time"),
    )
)
"""Functions and methods through which the values of their arguments flow nowhere but into their result."""
_REPORTING_METHODS: Final = frozenset(
    ("critical", "debug", "error", "exception", "info", "log", "warning", "warn")
)
_LOGGERS: Final = ("log", "logger", "logging")
_FORMATTED_ATTRIBUTE: Final = re.compile(r"\{[^{}]*\.(\w+)")


def is_private(name: object) -> bool:
    """Return whether a name is that of a private attribute, and not a special one like ``__dict__``."""
    return isinstance(name, str) and name[:1] == "_" and not (name[:2] == "__" and name[-2:] == "__")


class AttributeUses:
    """Classifies the uses of attributes in one code object."""

    def __init__(self, flow: CodeFlow) -> None:
        self.flow = flow
        self._op = self.flow.op
        self._resets = frozenset(empty_stores(self.flow.ops, self.flow.jump_targets))
        self._paired_stores: set[int] = set()  # Those of ``self._x += 1``, which the load has classified.

    def accesses(self) -> Iterator[Access]:
        """Yield every use of an attribute."""
        flow = self.flow
        for position, op in enumerate(flow.ops):
            name = str(op.argument)
            if op.name == "LOAD_CONST" and isinstance(op.argument, str):
                yield from self._named_in_string(position, name)
            elif op.name == "LOAD_ATTR":
                if not (self._is_set_before(position, name) or self._is_reported(position)):
                    yield self._loaded(position, name)
            elif op.name == "STORE_ATTR" and position not in self._paired_stores:
                yield Access(name, self._stored(position, name), flow.loads_owner(position - 1))
            elif op.name == "DELETE_ATTR":
                yield Access(name, "reset", flow.loads_owner(position - 1))
            elif op.name.startswith("LOAD_SUPER"):
                yield Access(name, "read", on_self=False)

    # -------------------------------------------------------------------------------------- reads

    def _named_in_string(self, position: int, name: str) -> Iterator[Access]:
        function, flow = self._op(position - 2), self.flow
        if (stored := self._set_by_call(position)) is not None:
            yield Access(name, stored, flow.loads_owner(position - 1))
            return
        if (
            function.name == "LOAD_GLOBAL"
            and function.argument in ("hasattr", "getattr")
            and flow.loads_variable(position - 1)
        ):
            is_test = flow.missing_region(flow.after_call(position)) is not None
            yield Access(name, "test" if is_test else "read", flow.loads_owner(position - 1))
            return
        if "{" in name:
            yield from (Access(used, "read", on_self=False) for used in _FORMATTED_ATTRIBUTE.findall(name))
        if not is_private(name):
            return  # It is the name of an attribute by chance: otherwise the code is dynamic.
        yield Access(name, "read", on_self=False)
        yield Access(name, "store", on_self=False)

    def _loaded(self, position: int, name: str) -> Access:
        """Classify a load of an attribute."""
        if self._op(position - 1)[:2] == ("COPY", 1):  # as in ``self._x += ...``
            return Access(name, self._augmented(position, name), self.flow.loads_owner(position - 2))
        return Access(name, self._use_of_value(position, name), self.flow.loads_owner(position - 1))

    def _use_of_value(self, position: int, name: str) -> Use:
        following = self._op(position + 1)
        if self._is_increment(position, name):
            return "count"
        if following.name == "CONTAINS_OP":
            return "lookup"
        if self.flow.missing_region(position + 1) is not None:
            return "test"
        if self._is_own_update(position, name):
            return "count"
        if following.name in ("STORE_ATTR", "DELETE_ATTR"):
            return "write"
        if following[:2] == ("COPY", 1):
            return "write" if self._op(position + 2).name == "LOAD_ATTR" else "read"
        if following.name == "LOAD_ATTR":
            return self._use_of_method(position, str(following.argument))
        if self.flow.is_size_check(position):
            return "lookup"
        return self._use_of_item(position, name)

    def _is_increment(self, position: int, name: str) -> bool:
        """Return whether ``self._x = self._x + 1`` is computed here, and note its store."""
        flow, owner, store = self.flow, self._op(position - 1), position + 4
        if (
            flow.loads_constant(position + 1)
            and self._op(position + 2).name == "BINARY_OP"
            and flow.loads_variable(position - 1)
            and self._op(position + 3) == owner
            and self._op(store)[:2] == ("STORE_ATTR", name)
            and flow.is_straight(position, store)
            and self._op(position - 2).name != "COPY"
        ):
            self._paired_stores.add(store)
            return True
        return False

    def _augmented(self, position: int, name: str) -> Use:
        """Classify ``self._x += ...``."""
        flow = self.flow
        for store in range(position + 3, len(flow.ops)):
            if flow.ops[store][:2] != ("STORE_ATTR", name):
                continue
            if (
                flow.ops[store - 1].name == "SWAP"
                and flow.ops[store - 2].name == "BINARY_OP"
                and flow.producer(store - 2) == position + 1
            ):
                self._paired_stores.add(store)
                is_constant = store - 3 == position + 1 and flow.loads_constant(position + 1)
                return "count" if is_constant else "sum"
            break
        return "read"

    def _use_of_method(self, position: int, method: str) -> Use:
        """Classify ``self._x.method(...)``."""
        if method == "clear":
            return "reset"
        if method == "get":
            return "lookup"
        if method in _EVICTING_METHODS:
            return "evict"
        if method in _CLOSING_METHODS and self._op(position + 2).name == "CALL":
            return "test"
        if method == "setdefault":
            key = self._op(position + 2)
            in_key = self.flow.parameters_in({str(key.argument)} if key.name in LOADS else set())
            return "memoize" if self.flow.used_parameters() <= in_key else "store"
        if method in SILENT_MUTATORS and self._is_discarded(position):
            return "write"
        end = position + 1
        while self._op(end).name == "LOAD_ATTR":
            if str(self._op(end).argument).partition("_")[0] in _CHANGING_VERBS:
                return "store"
            end += 1
        is_set = self._op(end).name in ("STORE_ATTR", "DELETE_ATTR") or self._op(end)[:2] == ("COPY", 1)
        return "write" if is_set else "read"

    def _is_discarded(self, position: int) -> bool:
        """Return whether the result of the method call ``self._x.method(...)`` is dropped."""
        start = self.flow.producer(position + 1)
        for end in range(position + 2, len(self.flow.ops)):
            if self._op(end).name == "POP_TOP" and self.flow.producer(end) == start:
                return self.flow.is_straight(start, end)
        return False

    def _use_of_item(self, position: int, name: str) -> Use:
        """Classify what is done with an item of the attribute that is loaded here."""
        flow = self.flow
        for end in range(position + 2, len(flow.ops)):
            op = flow.ops[end]
            if op.target >= 0 or op.name in ("STORE_FAST", "STORE_ATTR", "POP_TOP", "RETURN_VALUE"):
                break
            is_augmented = op[:2] == self._op(end + 1)[:2] == ("COPY", 2)
            if not is_augmented and op.name not in ("BINARY_SUBSCR", "STORE_SUBSCR", "DELETE_SUBSCR"):
                continue
            if flow.producer(end) != position + 1:
                continue
            match op.name:
                case "BINARY_SUBSCR":
                    return "lookup"
                case "DELETE_SUBSCR":
                    return "evict"
                case "STORE_SUBSCR":
                    return "memoize" if self._is_memoized(position, end, name) else "write"
            adds_constant = (
                flow.loads_constant(end + 3)
                and self._op(end + 4).name == "BINARY_OP"
                and [self._op(end + offset).name for offset in (5, 6, 7)] == ["SWAP", "SWAP", "STORE_SUBSCR"]
            )
            return "count" if adds_constant else "write"
        return "read"

    def _is_own_update(self, position: int, name: str) -> bool:
        """Return whether the value flows only into the same attribute: ``self._x = max(self._x, v)``."""
        flow, owner = self.flow, self._op(position - 1)
        if not flow.loads_variable(position - 1):
            return False
        for store in range(position + 2, len(flow.ops)):
            op = flow.ops[store]
            if op.target >= 0 or op.name == "RETURN_VALUE":
                return False
            end = -1
            if op[:2] == ("STORE_ATTR", name):
                end = store - 1
            elif op.name == "STORE_SUBSCR" and self._op(flow.producer(store) - 1)[:2] == ("LOAD_ATTR", name):
                end = flow.producer(store) - 2
            elif op[:2] == ("CALL", 3) and self._set_by_call(flow.producer(store) - 1) is not None:
                end = store
                if self._op(flow.producer(store) - 1)[:2] != ("LOAD_CONST", name):
                    return False
                owner_there = self._op(flow.producer(store) - 2)
                start = flow.producer(store)
                return owner_there == owner and start < position < end and self._is_pure(start, end)
            if end >= 0:
                start = flow.producer(end)
                return self._op(end) == owner and start < position < end and self._is_pure(start, end)
        return False

    def _is_set_before(self, position: int, name: str) -> bool:
        """Return whether each way to a read of an attribute sets it first, so that no earlier call did."""
        flow = self.flow
        if not flow.loads_owner(position - 1) or self._op(position + 1)[:2] == ("COPY", 1):
            return False
        for store in range(position - 2, 0, -1):
            if flow.ops[store].name == "PUSH_EXC_INFO":
                return False
            if flow.ops[store][:2] == ("STORE_ATTR", name) and flow.loads_owner(store - 1):
                is_new = ("LOAD_ATTR", name) not in (
                    op[:2] for op in flow.ops[flow.producer(store - 1) : store]
                )
                return is_new and not any(
                    store < op.target <= position and not store < other < position
                    for other, op in enumerate(flow.ops)
                )
        return False

    def _is_reported(self, position: int) -> bool:
        """Return whether the value is only printed or logged."""
        flow = self.flow
        start = flow.start_of_statement(position)
        for end in range(position + 1, len(flow.ops)):
            if flow.ops[end].name == "POP_TOP" and flow.producer(end) == start:
                function = start
                while self._op(function + 1).name == "LOAD_ATTR":
                    function += 1
                is_print = function == start and self._op(start)[:2] == ("LOAD_GLOBAL", "print")
                logger = str(self._op(function - 1).argument).lower().strip("_")
                is_log = self._op(function).argument in _REPORTING_METHODS and logger in _LOGGERS
                return (is_print or is_log) and function < position and self._is_pure(start, end - 1)
            if flow.ops[end].target >= 0:
                break
        return False

    def _is_pure(self, start: int, end: int) -> bool:
        """Return whether instructions only compute with values, and call nothing but known functions."""
        flow = self.flow
        if not flow.is_straight(start, end):
            return False
        for position in range(start, end):
            op = flow.ops[position]
            if op.name.startswith(("STORE_", "YIELD", "MAKE_FUNCTION")):
                return False
            if op.name == "CALL" and str(self._op(flow.start_of_call(position) - 1).argument) not in _PURE:
                return False
        return True

    # ------------------------------------------------------------------------------------- stores

    def _stored(self, position: int, name: str) -> Use:
        """Classify the store of an attribute."""
        flow, end = self.flow, position - 1
        if not flow.loads_variable(end):
            return "set"
        if position in self._resets:
            return "reset"
        return "fill" if self._is_filled_at(position, end, name) else "set"

    def _is_filled_at(self, position: int, end: int, name: str) -> bool:
        """Return whether an attribute is missing here, and its new value follows from the object alone."""
        flow = self.flow
        is_flag = flow.loads_constant(end - 1) and self._op(end - 1).argument is not None
        return any(
            flow.names_from_outside(begin, end, name) <= {flow.owner}
            and not (is_flag and flow.has_result(begin, limit))
            for begin, limit in flow.missing_attribute_regions(position, name)
        )

    def _set_by_call(self, position: int) -> Use | None:
        """Classify ``setattr(v, "_x", ...)`` and ``object.__setattr__(v, "_x", ...)``."""
        flow = self.flow
        setter = self._op(position - 2)
        if setter.argument not in ("setattr", "__setattr__") or not flow.loads_variable(position - 1):
            return None
        start = position - 2 if setter.name == "LOAD_GLOBAL" else flow.producer(position - 2)
        for end in range(position + 1, len(flow.ops)):
            if self._op(end).name == "CALL" and flow.producer(end + 1) == start:
                value = flow.producer(end)
                name = str(self._op(position).argument)
                if value + 1 == end and flow.loads_constant(value) and not self._op(value).argument:
                    return "reset"
                return "fill" if self._is_filled_at(end, end, name) else "set"
        return None

    def _is_memoized(self, position: int, end: int, name: str) -> bool:
        """Return whether an item is stored where it was missing, under a key that has all it depends on."""
        flow = self.flow
        if not flow.loads_owner(position - 1):
            return False
        key = {str(op.argument) for op in flow.ops[position + 1 : end] if op.name in LOADS} - {flow.owner}
        if not flow.used_parameters() <= flow.parameters_in(key):
            return False
        tainted = flow.tainted_by(name)
        since = flow.missing_item_since(position, name)
        return any(not tainted & flow.names_from_outside(begin, position - 1, name) for begin in since)
