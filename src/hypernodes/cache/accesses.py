"""How does some code use private attributes? Read from its instructions, never from its source.

Each place where an attribute ``_x`` is used is classified. Whatever does not look exactly like one of
the known patterns is a plain ``"read"`` or ``"store"``, of which nothing is assumed.
"""

from __future__ import annotations

import builtins
import dis
import functools
from dataclasses import dataclass
from types import CodeType
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

Use: TypeAlias = Literal["read", "keyed", "evict", "test", "count", "sum", "empty", "fill", "memo", "store"]
"""What is done with an attribute.

- ``read``: its value may go anywhere.
- ``keyed``: one item is looked up (``self._x[k]``, ``k in self._x``, ``self._x.get(k)``).
- ``evict``: an item is taken out of it.
- ``test``: only whether it is set is asked (``if self._x is None``, ``hasattr(self, "_x")``).
- ``count``: a constant is added to it (``self._x += 1``), and its value goes nowhere else.
- ``sum``: something else is added to it (``self._x += v``), likewise.
- ``empty``: it is set to nothing (``None``, ``0``, ``{}``), deleted or cleared.
- ``fill``: it is set where it was missing, to something that no argument of the function goes into.
- ``memo``: an item is set where it was missing, and all arguments of the function go into its key.
- ``store``: it, or an item of it, is set in any other way.
"""


class Access(NamedTuple):
    """One use of a private attribute.

    Attributes:
        attribute: Its name, as it is found on the object.
        use: What is done with it.
        on_self: Whether the object is the one that a method was called on.
    """

    attribute: str
    use: Use
    on_self: bool


@dataclass(frozen=True, slots=True)
class Accesses:
    """What some code, functions within it included, does with private attributes.

    Attributes:
        all: Every use.
        names: Every name and text that it mentions: the attributes and methods that it may ask for.
        is_dynamic: Whether it may use attributes of any object whose names it does not mention.
        is_dynamic_on_self: Whether it may do so with the object that a method was called on.
    """

    all: tuple[Access, ...]
    names: frozenset[str]
    is_dynamic: bool
    is_dynamic_on_self: bool


def is_private(name: object) -> bool:
    """Whether this is the name of a private attribute, and not one of Python's own like ``__dict__``."""
    return isinstance(name, str) and name[:1] == "_" and not (name[:2] == "__" and name[-2:] == "__")


@functools.lru_cache(maxsize=4096)
def accesses(code: CodeType, *, is_method: bool) -> Accesses:
    """Return how code uses private attributes.

    Args:
        code: The code of a function.
        is_method: Whether its first parameter is the object that it is called on.
    """
    owner = code.co_varnames[0] if is_method and code.co_argcount else None
    found: list[Access] = []
    names: set[str] = set()
    dynamic = on_self = False
    for inner, own in _with_nested(code, owner):
        reader = _Reader(inner, own)
        found += reader.read()
        dynamic = dynamic or reader.is_dynamic
        on_self = on_self or reader.is_dynamic_on_self
        names.update(inner.co_names, (text for text in inner.co_consts if isinstance(text, str)))
    return Accesses(tuple(dict.fromkeys(found)), frozenset(names), dynamic, on_self)


def _with_nested(code: CodeType, owner: str | None) -> Iterator[tuple[CodeType, str | None]]:
    yield code, owner
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _with_nested(constant, owner if owner in constant.co_freevars else None)


class _Op(NamedTuple):
    """An instruction under the name that it has in all versions of Python."""

    name: str
    arg: object
    effect: int
    target: int  # the position that it may jump to, or -1


_WITHOUT_MEANING: Final = frozenset(
    [
        "CACHE",
        "COPY_FREE_VARS",
        "EXTENDED_ARG",
        "KW_NAMES",
        "MAKE_CELL",
        "NOP",
        "NOT_TAKEN",
        "PRECALL",
        "PUSH_NULL",
        "RESUME",
        "TO_BOOL",
    ]
)
_SAME: Final = {
    "LOAD_METHOD": "LOAD_ATTR",
    "LOAD_FAST_BORROW": "LOAD_FAST",
    "LOAD_FAST_CHECK": "LOAD_FAST",
    "LOAD_SMALL_INT": "LOAD_CONST",
    "LOAD_NAME": "LOAD_GLOBAL",
    "CALL_KW": "CALL",
    "RETURN_CONST": "RETURN_VALUE",
}
_LOADS: Final = frozenset(["LOAD_FAST", "LOAD_DEREF", "LOAD_CLOSURE", "LOAD_CLASSDEREF"])
_STORES: Final = frozenset(["STORE_FAST", "STORE_DEREF"])
_LEAVES: Final = frozenset(["RETURN_VALUE", "RAISE_VARARGS", "RERAISE", "JUMP_BACKWARD", "CONTINUE_LOOP"])
_EVICTING: Final = frozenset(["move_to_end", "pop", "popitem"])
_CLOSING: Final = frozenset(["close", "disconnect", "release", "shutdown", "stop", "terminate"])
_CHANGING: Final = frozenset(
    (
        *("add", "append", "appendleft", "clear", "connect", "del", "delete", "discard", "drop", "extend"),
        *("extendleft", "fit", "insert", "learn", "load", "log", "partial", "pop", "push", "put"),
        *(
            "register",
            "remove",
            "reset",
            "reverse",
            "send",
            "set",
            "sort",
            "step",
            "train",
            "update",
            "write",
        ),
    )
)
"""The first words in names of methods that change the object which they are called on (`partial_fit`)."""
_CONTAINERS: Final = frozenset(
    [
        "dict",
        "list",
        "set",
        "bytearray",
        "Counter",
        "OrderedDict",
        "defaultdict",
        "deque",
        "LFUCache",
        "LRUCache",
        "TTLCache",
        "WeakKeyDictionary",
        "WeakValueDictionary",
    ]
)
_DYNAMIC: Final = frozenset(
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
_MISSING: Final = {False: ("AttributeError",), True: ("KeyError", "LookupError")}


def _ops(code: CodeType) -> list[_Op]:
    """Return the instructions of code, those that do two things at once taken apart."""
    ops: list[_Op] = []
    starts: dict[int, int] = {}
    carried = 0
    for step in dis.get_instructions(code):
        starts[step.offset] = len(ops)
        name = step.opname
        argument = step.arg if step.opcode >= dis.HAVE_ARGUMENT else None
        effect = dis.stack_effect(step.opcode, argument, jump=False) + carried
        carried = 0
        if name in _WITHOUT_MEANING:
            carried = effect
            continue
        target = step.argval if step.opcode in dis.hasjrel or step.opcode in dis.hasjabs else -1
        if isinstance(step.argval, tuple) and ("_FAST_" in name):
            halves = name.replace("_BORROW", "").removesuffix("_FAST").partition("_FAST_")
            for half, local in zip((f"{halves[0]}_FAST", f"{halves[2]}_FAST"), step.argval, strict=True):
                ops.append(_Op(half, local, 1 if half == "LOAD_FAST" else -1, -1))
            continue
        name = _SAME.get(name, name).replace("_FORWARD_IF", "_IF").replace("_BACKWARD_IF", "_IF")
        if name == "BINARY_OP" and step.argrepr == "[]":
            name = "BINARY_SUBSCR"
        ops.append(_Op(name, step.argval, effect, target))
    return [op._replace(target=starts.get(op.target, len(ops))) if op.target >= 0 else op for op in ops]


_Known: TypeAlias = Literal["nothing", "fixed", "container", ""]
"""What is known of a value on the stack: that it is empty, the same each time, or a class of containers."""


_UNKNOWN: Final[_Known] = ""


def _stores_of_nothing(ops: Sequence[_Op], jumps_to: Collection[int]) -> Iterator[int]:
    """Yield where an attribute is set to ``None``, zero, or an empty container.

    The instructions are walked in their order with what is on the stack; where they may come from
    elsewhere, nothing is known of it.
    """
    stack: list[_Known] = []
    constants: dict[int, object] = {}  # by how deep they lie
    for at, op in enumerate(ops):
        if at in jumps_to or ops[at - 1].name in _LEAVES or op.name in _CHANGING_DEEPER:
            stack = [_UNKNOWN] * len(stack)
        stack = [*[_UNKNOWN] * (_DEEP - len(stack)), *stack]
        match op.name:
            case "LOAD_CONST":
                is_code = isinstance(op.arg, CodeType)
                _push(stack, op, "fixed" if op.arg or is_code else "nothing")
                constants[len(stack)] = op.arg
            case "LOAD_GLOBAL":
                _push(stack, op, "container" if op.arg in _CONTAINERS else "fixed")
            case "LOAD_ATTR" if stack[-1] == "fixed":
                stack.pop()
                is_class = op.arg in _CONTAINERS and not hasattr(builtins, str(op.arg))
                _push(stack, op._replace(effect=op.effect + 1), "container" if is_class else "fixed")
            case "BUILD_MAP" | "BUILD_LIST" | "BUILD_SET" | "BUILD_TUPLE" if not op.arg:
                _push(stack, op, "nothing")
            case "COPY" if isinstance(op.arg, int):
                stack.append(stack[-op.arg])
            case "SWAP" if isinstance(op.arg, int):
                stack[-1], stack[-op.arg] = stack[-op.arg], stack[-1]
            case "UNPACK_SEQUENCE" if ops[at - 1].name == "LOAD_CONST":
                values = constants[len(stack)]
                stack.pop()
                # One that is no tuple is a text or bytes, which have no empty parts.
                parts = reversed(values) if isinstance(values, tuple) else [True] * (op.effect + 1)
                stack += ["fixed" if part else "nothing" for part in parts]
            case "CALL":
                kept = len(stack) + op.effect - 1
                called = stack[kept:]
                made = called[1:] if called[0] == _UNKNOWN else called  # without what stands for no object
                is_new = made[:1] == ["container"] and _UNKNOWN not in made
                stack = [*stack[:kept], "nothing" if is_new else _UNKNOWN]
            case "STORE_ATTR":
                if stack[-2] == "nothing":
                    yield at
                del stack[-2:]
            case _:
                stack = [*stack[: len(stack) + min(op.effect, 0)], *[_UNKNOWN] * op.effect]
                if op.effect <= 0 and op.name not in _POPPING:
                    stack[-1] = _UNKNOWN


def _push(stack: list[_Known], op: _Op, known: _Known) -> None:
    stack += [*[_UNKNOWN] * (op.effect - 1), known]


_DEEP: Final = 32
_POPPING: Final = frozenset(["STORE_FAST", "STORE_DEREF", "STORE_GLOBAL", "POP_TOP", "STORE_SUBSCR"])
_CHANGING_DEEPER: Final = frozenset(
    ["DICT_MERGE", "DICT_UPDATE", "LIST_APPEND", "LIST_EXTEND", "MAP_ADD", "SET_ADD", "SET_UPDATE"]
)


class _Reader:
    """Reads the instructions of one code object."""

    def __init__(self, code: CodeType, owner: str | None) -> None:
        self.ops = _ops(code)
        is_rebound = any(op.name in _STORES and op.arg == owner for op in self.ops)
        self.owner = None if is_rebound else owner
        count = code.co_argcount + code.co_kwonlyargcount
        count += bool(code.co_flags & 0x04) + bool(code.co_flags & 0x08)  # *args and **kwargs
        self.parameters = frozenset(code.co_varnames[:count]) | frozenset(code.co_freevars)
        self.parameters -= {owner or ""}
        self.jumps_to = {op.target for op in self.ops if op.target >= 0}
        self.is_dynamic = self.is_dynamic_on_self = False
        self._emptied = frozenset(_stores_of_nothing(self.ops, self.jumps_to))
        self._own: set[int] = set()  # stores that were counted with the read before them

    def read(self) -> Iterator[Access]:
        """Yield every use of a private attribute."""
        for at, op in enumerate(self.ops):
            if self._is_dynamic(at):
                follows = op.name == "LOAD_GLOBAL" and self._op(at + 2).name != "LOAD_ATTR"
                on_self = self._is_self(at + 1) if follows else self._is_self(at - 1)
                self.is_dynamic_on_self = self.is_dynamic_on_self or on_self
                self.is_dynamic = self.is_dynamic or not on_self
            if op.name == "LOAD_CONST" and is_private(op.arg):
                yield from self._named_as_text(at, str(op.arg))
            elif not is_private(op.arg):
                continue
            elif op.name == "LOAD_ATTR":
                use, on_self = self._loaded(at, str(op.arg))
                yield Access(str(op.arg), use, on_self)
            elif op.name == "STORE_ATTR" and at not in self._own:
                yield Access(str(op.arg), self._stored(at, str(op.arg)), self._is_self(at - 1))
            elif op.name == "DELETE_ATTR":
                yield Access(str(op.arg), "empty", self._is_self(at - 1))
            elif op.name.startswith("LOAD_SUPER"):
                yield Access(str(op.arg), "read", on_self=False)

    def _is_dynamic(self, at: int) -> bool:
        """Whether here attributes are used whose names are not written out."""
        op = self.ops[at]
        if op.name == "LOAD_GLOBAL" and op.arg in ("getattr", "setattr"):
            return not self._is_named(at)
        return op.arg in (_DYNAMIC_GLOBALS if op.name == "LOAD_GLOBAL" else _DYNAMIC) and (
            op.name == "LOAD_GLOBAL" or op.name.startswith(("LOAD_ATTR", "LOAD_SUPER"))
        )

    def _op(self, at: int) -> _Op:
        return self.ops[at] if 0 <= at < len(self.ops) else _Op("", None, 0, -1)

    def _is_named(self, at: int) -> bool:
        """Whether the second argument of a call that begins here is a text."""
        for call in range(at + 3, len(self.ops)):
            count = self.ops[call].arg
            if self.ops[call].name != "CALL" or not isinstance(count, int):
                continue
            starts = [call]
            for _ in range(count):
                starts.append(self._producer(starts[-1]))
            if starts[-1] == at + 1:
                second = self._op(starts[-2])
                is_alone = starts[-2] + 1 == (call if count == 2 else starts[-3])
                return is_alone and second.name == "LOAD_CONST" and isinstance(second.arg, str)
        return False

    def _is_self(self, at: int) -> bool:
        op = self._op(at)
        return op.name in _LOADS and op.arg == self.owner and self.owner is not None

    def _is_plain(self, at: int) -> bool:
        return self._op(at).name in _LOADS or self._op(at).name == "LOAD_GLOBAL"

    def _producer(self, end: int) -> int:
        """Return where the instructions begin that push the value on top of the stack before ``end``."""
        depth, at = 0, end
        while at > 0 and depth < 1:
            at -= 1
            depth += self.ops[at].effect
            if depth == 1 and self.ops[at].name == "COPY" and self.ops[at].arg == 1:
                depth = 0  # of what is below, which is the same
        return at

    def _is_straight(self, start: int, end: int) -> bool:
        """Whether these instructions follow each other in any case."""
        return all(self.ops[at].target < 0 for at in range(start, end)) and not any(
            at in self.jumps_to for at in range(start + 1, end + 1)
        )

    # -------------------------------------------------------------------------------------- reads

    def _named_as_text(self, at: int, name: str) -> Iterator[Access]:
        asks = self._op(at - 2)
        on_self = self._is_self(at - 1)
        if asks.name == "LOAD_GLOBAL" and asks.arg in ("hasattr", "getattr") and self._is_plain(at - 1):
            is_test = self._absence(self._after_call(at)) is not None
            yield Access(name, "test" if is_test else "read", on_self)
            return
        yield Access(name, "read", on_self=False)
        yield Access(name, "store", on_self=False)

    def _after_call(self, at: int) -> int:
        """Return the place after a call whose last argument but a constant is here."""
        at += 1
        if self._op(at).name == "LOAD_CONST":
            at += 1
        return at + 1 if self._op(at).name == "CALL" else -1

    def _loaded(self, at: int, name: str) -> tuple[Use, bool]:
        """Return what is done with an attribute that is loaded here, and whether it is one of ``self``."""
        before, after = self._op(at - 1), self._op(at + 1)
        if before.name == "COPY" and before.arg == 1:
            return self._added_to(at, name), self._is_self(at - 2)
        on_self = self._is_self(at - 1)
        store = at + 4
        if (
            after.name == "LOAD_CONST"
            and self._op(at + 2).name == "BINARY_OP"
            and self._is_plain(at - 1)
            and self._op(at + 3) == before
            and self._op(store)[:2] == ("STORE_ATTR", name)
            and self._is_straight(at, store)
            and self._op(at - 2).name != "COPY"
        ):
            self._own.add(store)
            return "count", on_self
        if after.name == "CONTAINS_OP":
            return "keyed", on_self
        if self._absence(at + 1) is not None:
            return "test", on_self
        if after.name in ("STORE_ATTR", "DELETE_ATTR") or after[:2] == ("COPY", 1):
            return "store" if self._op(
                at + 2
            ).name == "LOAD_ATTR" or after.name != "COPY" else "read", on_self
        if after.name == "LOAD_ATTR":
            return self._method(at, str(after.arg)), on_self
        if self._is_measured(at):
            return "keyed", on_self
        return self._item(at, name), on_self

    def _added_to(self, at: int, name: str) -> Use:
        """Return what ``self._x += ...`` does."""
        for store in range(at + 3, len(self.ops)):
            if self.ops[store][:2] == ("STORE_ATTR", name):
                if (
                    self.ops[store - 1].name == "SWAP"
                    and self.ops[store - 2].name == "BINARY_OP"
                    and self._producer(store - 2) == at + 1
                ):
                    self._own.add(store)
                    return "count" if store - 3 == at + 1 == self._constant(at + 1) else "sum"
                break
        return "read"

    def _constant(self, at: int) -> int:
        return at if self._op(at).name == "LOAD_CONST" else -1

    def _method(self, at: int, method: str) -> Use:
        """Return what ``self._x.method(...)`` does."""
        if method == "clear":
            return "empty"
        if method == "get":
            return "keyed"
        if method in _EVICTING:
            return "evict"
        if method in _CLOSING and self._op(at + 2).name == "CALL":
            return "test"
        if method == "setdefault":
            key = self._op(at + 2)
            taint = self._arguments_in({str(key.arg)} if key.name in _LOADS else set())
            return "memo" if self._used() <= taint else "store"
        end = at + 1
        while self._op(end).name == "LOAD_ATTR":
            if str(self._op(end).arg).partition("_")[0] in _CHANGING:
                return "store"
            end += 1
        is_set = self._op(end).name in ("STORE_ATTR", "DELETE_ATTR") or self._op(end)[:2] == ("COPY", 1)
        return "store" if is_set else "read"

    def _item(self, at: int, name: str) -> Use:
        """Return what is done with an item of an attribute that is loaded here."""
        for end in range(at + 2, len(self.ops)):
            op = self.ops[end]
            if op.target >= 0 or op.name in ("STORE_FAST", "STORE_ATTR", "POP_TOP", "RETURN_VALUE"):
                break
            is_pair = op[:2] == self._op(end + 1)[:2] == ("COPY", 2)
            if not is_pair and op.name not in ("BINARY_SUBSCR", "STORE_SUBSCR", "DELETE_SUBSCR"):
                continue
            if self._producer(end) != at + 1:
                continue
            if op.name == "BINARY_SUBSCR":
                return "keyed"
            if op.name == "DELETE_SUBSCR":
                return "evict"
            if op.name == "STORE_SUBSCR":
                return "memo" if self._is_memo(at, end, name) else "store"
            is_constant = (
                self._constant(end + 3) > 0
                and self._op(end + 4).name == "BINARY_OP"
                and [self._op(end + more).name for more in (5, 6, 7)] == ["SWAP", "SWAP", "STORE_SUBSCR"]
            )
            return "count" if is_constant else "store"
        return "read"

    # ------------------------------------------------------------------------------------- stores

    def _stored(self, at: int, name: str) -> Use:
        """Return what the store of an attribute does."""
        end = at - 1
        if self._op(end).name not in _LOADS:
            return "store"
        if at in self._emptied:
            return "empty"
        since = self._missing_since(at, name, of_items=False)
        if any(self._foreign(begin, end, name) <= {self.owner} for begin in since):
            return "fill"  # with what was made since then, of nothing else
        return "store"

    def _regions(self, name: str, *, of_items: bool) -> Iterator[tuple[int, int]]:
        """Yield where it is known that an attribute, or the item that is asked for, is missing."""
        looked_up: set[object] = set()
        is_read = False
        for at, op in enumerate(self.ops):
            region = None
            if op[:2] == ("LOAD_ATTR", name) and self._is_self(at - 1):
                is_read = True
                region = None if of_items else self._absence(at + 1)
                if of_items and self._op(at + 1).name == "CONTAINS_OP":
                    region = self._absence(at + 2, is_asked=self._op(at + 1).arg == 1)
                elif of_items and self._op(at + 1)[:2] == ("LOAD_ATTR", "get"):
                    looked_up.update(self._kept_in(at + 2))
            elif op[:2] == ("LOAD_CONST", name) and self._op(at - 2).arg in ("hasattr", "getattr"):
                region = None if of_items else self._absence(self._after_call(at))
            elif op.name in (*_LOADS, *_STORES) and op.arg in looked_up:
                region = self._absence(at + 1)
            elif (
                op.name == "LOAD_GLOBAL"
                and op.arg in _MISSING[of_items]
                and is_read
                and self._op(at + 1).name == "CHECK_EXC_MATCH"
                and self._op(at + 2).target > 0
            ):
                region = (at + 3, self._op(at + 2).target)
            if region is not None:
                yield region

    def _missing_since(self, at: int, name: str, *, of_items: bool) -> Iterator[int]:
        """Yield each place since which something is known to be missing here."""
        regions = self._regions(name, of_items=of_items)
        return (begin for begin, stop in regions if begin <= at < stop)

    def _kept_in(self, at: int) -> Iterator[object]:
        """Yield the local name in which the result of a call is kept that begins here."""
        for step in range(at, min(at + 12, len(self.ops))):
            if self.ops[step].name == "CALL":
                kept = step + 1
                if self._op(kept).name == "COPY":
                    kept += 1
                if self._op(kept).name in _STORES:
                    yield self._op(kept).arg
                return

    def _absence(self, at: int, *, is_asked: bool = False) -> tuple[int, int] | None:
        """Return where a value is known to be missing, after a jump that asks just that of it.

        Args:
            at: The place of the jump.
            is_asked: Whether it asks for what says itself that something is missing.
        """
        jump = self._op(at)
        if jump.target <= at or not jump.name.startswith("POP_JUMP_IF_"):
            return None
        if jump.name in (
            ("POP_JUMP_IF_FALSE",) if is_asked else ("POP_JUMP_IF_NOT_NONE", "POP_JUMP_IF_TRUE")
        ):
            begin, end = at + 1, jump.target
        elif self._op(jump.target - 1).name in _LEAVES:
            # What is not missing leaves before; up to where others come who have not been asked.
            later = [op.target for op in self.ops[:at] if op.target > jump.target]
            begin, end = jump.target, min([len(self.ops), *later])
        else:
            return jump.target, jump.target
        for other, op in enumerate(self.ops):
            if begin <= op.target < end and other != at and not begin <= other < end:
                return begin, begin
        return begin, end

    def _is_memo(self, at: int, end: int, name: str) -> bool:
        """Whether an item is stored where it was missing, and its key says all that goes into it."""
        if not self._is_self(at - 1):
            return False
        key = {str(op.arg) for op in self.ops[at + 1 : end] if op.name in _LOADS} - {self.owner}
        if not self._used() <= self._arguments_in(key):
            return False
        tainted = self._tainted(name)
        since = self._missing_since(at, name, of_items=True)
        return any(not tainted & self._foreign(begin, at - 1, name) for begin in since)

    def _foreign(self, begin: int, end: int, name: str) -> set[object]:
        """Return the local names that are used in a region without having been set there."""
        made: set[object] = set()
        foreign: set[object] = set()
        for at in range(begin, end):
            op = self.ops[at]
            if op.name in _STORES:
                made.add(op.arg)
            elif op.name in _LOADS and op.arg not in made:
                foreign.add(op.arg)
            elif (
                op[:2] == ("LOAD_ATTR", name)
                and self._is_self(at - 1)
                and self._absence(at + 1) is None
                and not self._makes_room(at)
            ):
                foreign.add(name)
        return foreign

    def _makes_room(self, at: int) -> bool:
        """Whether a container is asked for its size, or for room: nothing of it is kept."""
        if self._is_measured(at) or self._op(at + 1)[:2] == ("LOAD_ATTR", "clear"):
            return True
        if self._op(at + 1)[:2] != ("LOAD_ATTR", "popitem"):
            return False
        end = at + 3 if self._op(at + 2).name == "LOAD_CONST" else at + 2
        return (self._op(end).name, self._op(end + 1).name) == ("CALL", "POP_TOP")

    def _is_measured(self, at: int) -> bool:
        """Whether the size of what is loaded here is compared with something."""
        return (
            self._op(at - 2)[:2] == ("LOAD_GLOBAL", "len")
            and self._op(at + 1).name == "CALL"
            and "COMPARE_OP" in (self._op(at + 3).name, self._op(at + 4).name)
        )

    def _tainted(self, name: str) -> set[object]:
        """Return the local names into which the attribute may have gone, and its own name."""
        tainted: set[object] = {name}
        for _ in range(3):
            for target, sources, attributes in self._assignments():
                if name in attributes or tainted & sources:
                    tainted.add(target)
        return tainted

    def _used(self) -> frozenset[str]:
        """Return the parameters that the code uses at all, beside ``self``."""
        return frozenset(str(op.arg) for op in self.ops if op.name in _LOADS) & self.parameters

    def _arguments_in(self, names: Collection[str]) -> frozenset[str]:
        """Return the parameters that go into local names."""
        reached: set[object] = set(names)
        for _ in range(3):
            for target, sources, _ in self._assignments():
                if target in reached:
                    reached |= sources
        return frozenset(map(str, reached)) & self.parameters

    def _assignments(self) -> Sequence[tuple[object, set[object], set[object]]]:
        """Return each local name that is set, with the names and attributes that the statement uses."""
        found = []
        for at, op in enumerate(self.ops):
            if op.name not in _STORES:
                continue
            start = at
            while start > 0 and (
                self.ops[start - 1].effect >= 0
                or self.ops[start - 1].name not in ("STORE_ATTR", "STORE_SUBSCR", "POP_TOP", "RETURN_VALUE")
            ):
                if self.ops[start - 1].target >= 0 and self.ops[start - 1].name != "FOR_ITER":
                    break
                if self.ops[start - 1].name in _STORES and self.ops[start].name not in _STORES:
                    break
                start -= 1
            used = self.ops[start:at]
            found.append(
                (
                    op.arg,
                    {one.arg for one in used if one.name in _LOADS},
                    {one.arg for one in used if one.name == "LOAD_ATTR"},
                )
            )
        return found
