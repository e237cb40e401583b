"""How does some code use private attributes? The answer is read from its bytecode, never from its source.

Each place where an attribute ``_x`` is used is classified. A use that does not have exactly one of the
known forms is a plain ``"read"`` or ``"store"``, and no private attribute with such uses is an effect.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

from hypernodes.cache.code_flow import LOADS, CodeFlow
from hypernodes.cache.empty_stores import empty_stores

if TYPE_CHECKING:
    from collections.abc import Iterator

Use: TypeAlias = Literal[
    "read", "lookup", "evict", "test", "count", "sum", "reset", "fill", "memoize", "store"
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
- ``store``: The attribute, or an item of it, is set in any other way.
"""


class Access(NamedTuple):
    """One use of a private attribute.

    Attributes:
        attribute: Its name on the object.
        use: What the code does with it.
        on_self: Whether the object is the one that a method is called on.
    """

    attribute: str
    use: Use
    on_self: bool


@dataclass(frozen=True, slots=True)
class Accesses:
    """What a function, with those defined in it, does with private attributes.

    Attributes:
        all: Every use.
        names: Every name and string constant: the attributes and methods that the code may access.
        is_dynamic: Whether it may use attributes of any object by names that are computed.
        is_dynamic_on_self: Whether it may do so with the object that the method is called on.
    """

    all: tuple[Access, ...]
    names: frozenset[str]
    is_dynamic: bool
    is_dynamic_on_self: bool


def is_private(name: object) -> bool:
    """Return whether a name is that of a private attribute, and not a special one like ``__dict__``."""
    return isinstance(name, str) and name[:1] == "_" and not (name[:2] == "__" and name[-2:] == "__")


@functools.lru_cache(maxsize=4096)
def accesses(code: CodeType, *, is_method: bool) -> Accesses:
    """Return how code uses private attributes.

    Args:
        code: The code of a function.
        is_method: Whether its first parameter is the object that it is called on.

    Raises:
        SignatureError: The library is not tested with the bytecode of the running Python.
    """
    owner = code.co_varnames[0] if is_method and code.co_argcount else None
    found: list[Access] = []
    names: set[str] = set()
    is_dynamic = is_dynamic_on_self = False
    for inner, owner_there in _with_owner(code, owner):
        classifier = _Classifier(inner, owner_there)
        found += classifier.accesses()
        is_dynamic = is_dynamic or classifier.is_dynamic
        is_dynamic_on_self = is_dynamic_on_self or classifier.is_dynamic_on_self
        names.update(inner.co_names, (text for text in inner.co_consts if isinstance(text, str)))
    return Accesses(tuple(dict.fromkeys(found)), frozenset(names), is_dynamic, is_dynamic_on_self)


def _with_owner(code: CodeType, owner: str | None) -> Iterator[tuple[CodeType, str | None]]:
    """Iterate over code and the functions defined in it, with the variable of the method's object in each."""
    yield code, owner
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_owner(constant, owner if owner in constant.co_freevars else None)


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
_DYNAMIC_ATTRIBUTES: Final = frozenset(
    [
        "__dict__",
        "__getattribute__",
        "__getstate__",
        "__reduce__",
        "__reduce_ex__",
        "__setattr__",
        "getmembers",
    ]
)
_DYNAMIC_GLOBALS: Final = frozenset(
    [
        "asdict",
        "astuple",
        "attrgetter",
        "cloudpickle",
        "delattr",
        "dill",
        "dump",
        "dumps",
        "eval",
        "exec",
        "joblib",
        "pickle",
        "vars",
    ]
)


class _Classifier:
    """Classifies the uses of private attributes in one code object."""

    def __init__(self, code: CodeType, owner: str | None) -> None:
        self._flow = CodeFlow(code, owner)
        self._op = self._flow.op
        self._resets = frozenset(empty_stores(self._flow.ops, self._flow.jump_targets))
        self._paired_stores: set[int] = set()  # Those of ``self._x += 1``, which the load has classified.
        self.is_dynamic = self.is_dynamic_on_self = False

    def accesses(self) -> Iterator[Access]:
        """Yield every use of a private attribute."""
        flow = self._flow
        for position, op in enumerate(flow.ops):
            self._note_dynamic(position)
            name = str(op.argument)
            if op.name == "LOAD_CONST" and is_private(op.argument):
                yield from self._named_in_string(position, name)
            elif not is_private(op.argument):
                continue
            elif op.name == "LOAD_ATTR":
                yield self._loaded(position, name)
            elif op.name == "STORE_ATTR" and position not in self._paired_stores:
                yield Access(name, self._stored(position, name), flow.loads_owner(position - 1))
            elif op.name == "DELETE_ATTR":
                yield Access(name, "reset", flow.loads_owner(position - 1))
            elif op.name.startswith("LOAD_SUPER"):
                yield Access(name, "read", on_self=False)

    def _note_dynamic(self, position: int) -> None:
        """Note an instruction after which attributes may be used by names that the code does not contain."""
        op = self._op(position)
        is_global = op.name == "LOAD_GLOBAL"
        if is_global and op.argument in ("getattr", "setattr"):
            if self._has_constant_name(position):
                return
        elif is_global:
            if op.argument not in _DYNAMIC_GLOBALS:
                return
        elif op.argument not in _DYNAMIC_ATTRIBUTES or not op.name.startswith(("LOAD_ATTR", "LOAD_SUPER")):
            return
        is_call = is_global and self._op(position + 2).name != "LOAD_ATTR"
        on_self = self._flow.loads_owner(position + 1 if is_call else position - 1)
        self.is_dynamic_on_self = self.is_dynamic_on_self or on_self
        self.is_dynamic = self.is_dynamic or not on_self

    def _has_constant_name(self, position: int) -> bool:
        """Return whether the second argument of the call that begins here is a string constant."""
        flow = self._flow
        for call in range(position + 3, len(flow.ops)):
            count = flow.ops[call].argument
            if flow.ops[call].name != "CALL" or not isinstance(count, int):
                continue
            starts = [call]  # of the arguments, the last one first
            for _ in range(count):
                starts.append(flow.producer(starts[-1]))
            if starts[-1] == position + 1:
                second = self._op(starts[-2])
                is_one_instruction = starts[-2] + 1 == (call if count == 2 else starts[-3])
                return is_one_instruction and second.name == "LOAD_CONST" and isinstance(second.argument, str)
        return False

    # -------------------------------------------------------------------------------------- reads

    def _named_in_string(self, position: int, name: str) -> Iterator[Access]:
        function, flow = self._op(position - 2), self._flow
        if (
            function.name == "LOAD_GLOBAL"
            and function.argument in ("hasattr", "getattr")
            and flow.loads_variable(position - 1)
        ):
            is_test = flow.missing_region(flow.after_call(position)) is not None
            yield Access(name, "test" if is_test else "read", flow.loads_owner(position - 1))
            return
        yield Access(name, "read", on_self=False)
        yield Access(name, "store", on_self=False)

    def _loaded(self, position: int, name: str) -> Access:
        """Classify a load of an attribute."""
        if self._op(position - 1)[:2] == ("COPY", 1):  # as in ``self._x += ...``
            return Access(name, self._augmented(position, name), self._flow.loads_owner(position - 2))
        return Access(name, self._use_of_value(position, name), self._flow.loads_owner(position - 1))

    def _use_of_value(self, position: int, name: str) -> Use:
        following = self._op(position + 1)
        if self._is_increment(position, name):
            return "count"
        if following.name == "CONTAINS_OP":
            return "lookup"
        if self._flow.missing_region(position + 1) is not None:
            return "test"
        if following.name in ("STORE_ATTR", "DELETE_ATTR"):
            return "store"
        if following[:2] == ("COPY", 1):
            return "store" if self._op(position + 2).name == "LOAD_ATTR" else "read"
        if following.name == "LOAD_ATTR":
            return self._use_of_method(position, str(following.argument))
        if self._flow.is_size_check(position):
            return "lookup"
        return self._use_of_item(position, name)

    def _is_increment(self, position: int, name: str) -> bool:
        """Return whether ``self._x = self._x + 1`` is computed here, and note its store."""
        flow, owner, store = self._flow, self._op(position - 1), position + 4
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
        flow = self._flow
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
            in_key = self._flow.parameters_in({str(key.argument)} if key.name in LOADS else set())
            return "memoize" if self._flow.used_parameters() <= in_key else "store"
        end = position + 1
        while self._op(end).name == "LOAD_ATTR":
            if str(self._op(end).argument).partition("_")[0] in _CHANGING_VERBS:
                return "store"
            end += 1
        is_set = self._op(end).name in ("STORE_ATTR", "DELETE_ATTR") or self._op(end)[:2] == ("COPY", 1)
        return "store" if is_set else "read"

    def _use_of_item(self, position: int, name: str) -> Use:
        """Classify what is done with an item of the attribute that is loaded here."""
        flow = self._flow
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
                    return "memoize" if self._is_memoized(position, end, name) else "store"
            adds_constant = (
                flow.loads_constant(end + 3)
                and self._op(end + 4).name == "BINARY_OP"
                and [self._op(end + offset).name for offset in (5, 6, 7)] == ["SWAP", "SWAP", "STORE_SUBSCR"]
            )
            return "count" if adds_constant else "store"
        return "read"

    # ------------------------------------------------------------------------------------- stores

    def _stored(self, position: int, name: str) -> Use:
        """Classify the store of an attribute."""
        flow, end = self._flow, position - 1
        if self._op(end).name not in LOADS:
            return "store"
        if position in self._resets:
            return "reset"
        since = flow.missing_attribute_since(position, name)
        if any(flow.names_from_outside(begin, end, name) <= {flow.owner} for begin in since):
            return "fill"
        return "store"

    def _is_memoized(self, position: int, end: int, name: str) -> bool:
        """Return whether an item is stored where it was missing, under a key that has all it depends on."""
        flow = self._flow
        if not flow.loads_owner(position - 1):
            return False
        key = {str(op.argument) for op in flow.ops[position + 1 : end] if op.name in LOADS} - {flow.owner}
        if not flow.used_parameters() <= flow.parameters_in(key):
            return False
        tainted = flow.tainted_by(name)
        since = flow.missing_item_since(position, name)
        return any(not tainted & flow.names_from_outside(begin, position - 1, name) for begin in since)
