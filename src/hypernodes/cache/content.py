"""When are two values the same? They are if their content and types have the same digest, in every process.

Functions and classes are values whose content is their code. A value without stable content raises
`SignatureError`: its digest is never guessed.
"""

from __future__ import annotations

import collections
import enum
import functools
import logging
import sys
import threading
import types
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from hypernodes.cache.accesses import is_private
from hypernodes.cache.code import content_of_code, dependencies
from hypernodes.cache.hashing import combine
from hypernodes.cache.installed import is_class_of_library, is_installed, is_of_library, release
from hypernodes.cache.library_values import components_of
from hypernodes.cache.reach import NO_REACH
from hypernodes.cache.simple_values import MIN_PACKED_LENGTH, SIMPLE_TYPES, TAGS, pack
from hypernodes.exceptions import SignatureError
from hypernodes.text import described, message_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hypernodes.cache.reach import Reach

_PYTHON: Final = "python-{}.{}".format(*sys.version_info[:2]).encode()
_NOT_INPUTS: Final = (
    types.ModuleType,
    logging.Logger,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Event,
    threading.Semaphore,
)


Omissions: TypeAlias = "Mapping[type, Mapping[str, str]]"
"""Private attributes without stable content, by class, each with the reason why it has none."""


def digest(value: object, reach: Reach = NO_REACH) -> bytes:
    """Return the digest of a value's content and type.

    Args:
        value: The value.
        reach: The code that works with the value. Private attributes which that code itself changes, such as
            counters and caches, are effects and are left out.

    Raises:
        SignatureError: The value, or a part of it, has no content that is equal in every process.

    Example:
        >>> digest(1) == digest(1), digest(1) == digest(True), digest([1]) == digest((1,))
        (True, False, False)
        >>> digest({"a": {3, 1, 2}}) == digest({"a": {1, 2, 3}})
        True
    """
    return digest_and_omissions(value, reach)[0]


def digest_and_omissions(value: object, reach: Reach = NO_REACH) -> tuple[bytes, Omissions]:
    """Return the digest of a value, and the private attributes that it leaves out for lack of stable content.

    Raises:
        SignatureError: The value, or a part of it, has no content that is equal in every process.
    """
    simple = SIMPLE_TYPES.get(type(value))
    if simple is not None:  # Most arguments of most calls are simple: they need no walk.
        return combine(TAGS[type(value)], (simple(value),)), _NO_OMISSIONS
    walk = _Walk(reach)
    try:
        return walk.digest(value), walk.omissions
    except SignatureError:
        raise
    except Exception as error:  # a method of a value, or a property, may raise anything
        raise SignatureError(
            f"a {type(value).__qualname__} has no stable content ({described(error)})"
        ) from None


_NO_OMISSIONS: Final[Omissions] = {}


class _TooDeepError(SignatureError):
    """A value is nested too deeply. No attribute is left out for that reason: it could hold everything."""


class _Walk:
    """One walk through a value, which may contain itself."""

    def __init__(self, reach: Reach = NO_REACH) -> None:
        self._depths: dict[int, int] = {}  # of the values around the current one, by id
        self._reach = reach
        self.omissions: dict[type, dict[str, str]] = {}

    def digest(self, value: object) -> bytes:
        kind = type(value)
        if (simple := SIMPLE_TYPES.get(kind)) is not None:
            return combine(TAGS[kind], (simple(value),))
        if (depth := self._depths.get(id(value))) is not None:
            return combine(b"again", (str(len(self._depths) - depth).encode(),))
        self._depths[id(value)] = len(self._depths)
        try:
            tag, parts = self._parts(kind, value)
            return combine(tag, parts)
        except RecursionError:
            raise _TooDeepError(f"a {kind.__qualname__} is nested too deeply to be fingerprinted") from None
        finally:
            del self._depths[id(value)]

    def _all(self, values: Iterable[object]) -> list[bytes]:
        return [self.digest(value) for value in values]

    def _parts(self, kind: type, value: Any) -> tuple[bytes, Iterable[bytes]]:
        if (key := getattr(kind, "__cache_key__", None)) is not None:
            return b"key", [self._class(kind), self.digest(key(value))]
        if (walk := _CONTAINERS.get(kind)) is not None:
            return kind.__name__.encode(), walk(self, value)
        if isinstance(value, type):
            return b"class", self._class_parts(value)
        if isinstance(value, enum.Enum):
            return b"enum", [
                *self._all((kind, value._value_)),
                *self._attributes(kind, _of_member(value)),
            ]
        if (components := components_of(kind, value)) is not None:
            private = getattr(value, "__pydantic_private__", None)
            more = self._attributes(kind, private) if isinstance(private, dict) else []
            return kind.__qualname__.encode(), [*self._all(components), *more]
        if isinstance(value, _NOT_INPUTS):
            return b"no input", [kind.__qualname__.encode()]
        return self._callable(kind, value) or (b"object", self._object(kind, value))

    def _callable(self, kind: type, value: Any) -> tuple[bytes, Iterable[bytes]] | None:
        if kind is types.FunctionType:
            return b"function", self._function(value)
        if kind is types.MethodType:
            return b"method", self._all((value.__func__, value.__self__))
        if kind is functools.partial:
            return b"partial", self._all((value.func, value.args, value.keywords))
        if kind in (staticmethod, classmethod):
            return kind.__name__.encode(), [self.digest(value.__func__)]
        if kind is property:
            return b"property", self._all((value.fget, value.fset, value.fdel))
        if kind is functools.cached_property:
            return b"property", [self.digest(value.func)]
        if kind.__name__ == "_lru_cache_wrapper":
            return b"memoized", [self.digest(value.__wrapped__)]
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            parts = [release(value.__module__ or "builtins").encode(), value.__qualname__.encode()]
            bound = owner is not None and not isinstance(owner, types.ModuleType | type)
            return b"builtin", [*parts, *([self.digest(owner)] if bound else [])]
        if isinstance(
            value, types.MethodDescriptorType | types.WrapperDescriptorType | types.GetSetDescriptorType
        ):
            return b"descriptor", [value.__objclass__.__qualname__.encode(), value.__name__.encode(), _PYTHON]
        if kind is types.MemberDescriptorType:
            return b"slot", [value.__name__.encode()]
        return None

    def _function(self, function: types.FunctionType) -> Iterable[bytes]:
        if is_of_library(function):
            return [release(function.__module__).encode(), function.__qualname__.encode()]
        if callable(getattr(function, "dispatch", None)) and hasattr(function, "registry"):
            # A functools.singledispatch function counts by what is registered, without its cache.
            return sorted(self._all(tuple(function.registry.items())))
        parts = [_PYTHON, code_digest(function.__code__)]
        for description, value in dependencies(function):
            part = self._part(f"{description} of {function.__name__!r}", value)
            parts += [description.encode(), part]
        return parts

    def _part(self, description: str, value: object) -> bytes:
        try:
            return self.digest(value)
        except SignatureError as error:
            raise type(error)(f"{description}: {error}") from None

    def _class(self, kind: type) -> bytes:
        return self.digest(kind)

    def _class_parts(self, kind: type) -> Iterable[bytes]:
        if is_class_of_library(kind):
            return [release(kind.__module__).encode(), kind.__qualname__.encode()]
        parts = [_PYTHON, kind.__qualname__.encode(), *self._all(kind.__bases__)]
        if not is_installed(type(kind).__module__):
            parts.append(self.digest(type(kind)))
        own = dict(vars(kind))
        if issubclass(kind, enum.Enum):
            members = kind.__members__
            parts += self._all([(name, member._value_) for name, member in members.items()])
            own = {name: value for name, value in own.items() if name not in members and name[0] != "_"}
        annotations = own.pop("__annotations__", None)
        for name, annotation in annotations.items() if isinstance(annotations, dict) else ():
            # Dataclasses and models make fields from annotations.
            parts += [name.encode(), self._annotation(annotation)]
        if (decorators := own.pop("__pydantic_decorators__", None)) is not None:
            # Their repr has the address of the class. The decorated functions are attributes of the class.
            by_kind = _state(decorators).items()
            infos = [(what, name, one.info) for what, ones in by_kind for name, one in ones.items()]
            parts.append(self.digest(infos))
        for name, value in sorted(own.items()):
            if name not in _SKIPPED_CLASS_ATTRIBUTES:
                parts += [name.encode(), self._part(f"{name!r} of class {kind.__qualname__!r}", value)]
        return parts

    def _annotation(self, annotation: object) -> bytes:
        try:
            return self.digest(annotation)
        except SignatureError:  # It may be a forward reference.
            return repr(annotation).encode()

    def _object(self, kind: type, value: Any) -> Iterable[bytes]:
        """Return the digests of an object's class, attributes, and the state of a library's base class."""
        if is_class_of_library(kind):
            return [self.digest(kind), *self._reduced(value, with_state=True)]
        parts = [self.digest(kind), *self._attributes(kind, _state(value))]
        foreign = next(base for base in kind.__mro__ if is_installed(base.__module__))
        if issubclass(kind, _BUILTIN_BASES):
            base = next(base for base in _BUILTIN_BASES if issubclass(kind, base))
            parts.append(self.digest(base(value)))
        elif foreign is not object:
            parts += self._reduced(value, with_state=False)
        return parts

    def _attributes(self, kind: type, state: Mapping[str, object]) -> list[bytes]:
        """Walk the attributes of an object, without those that are effects of the code that uses it."""
        parts: list[bytes] = []
        reach = self._reach
        reach_inside, effects = None, None
        for name, part in sorted(state.items()):
            if _is_cached_property(kind, name):
                continue
            private = is_private(name)
            if private:
                effects = reach.effects(kind) if effects is None else effects
                if name in effects and (type(part) in _PLAIN or not effects[name]):
                    continue
            if type(part) in SIMPLE_TYPES:
                parts += (name.encode(), self.digest(part))
                continue
            self._reach = reach_inside = reach.inside(kind) if reach_inside is None else reach_inside
            try:
                parts += (name.encode(), self.digest(part))
            except _TooDeepError:
                raise
            except SignatureError as error:
                if not private:
                    raise SignatureError(f"attribute {name!r}: {error}") from None
                self.omissions.setdefault(kind, {})[name] = str(error)
            finally:
                self._reach = reach
        return parts

    def _reduced(self, value: object, *, with_state: bool) -> list[bytes]:
        """Walk the parts that pickle would store of an object: they may be objects of the user's classes."""
        if type(value) is object:
            raise SignatureError("an object() is only equal to itself")
        try:
            parts: Any = value.__reduce_ex__(4)
        except Exception as error:
            raise SignatureError(
                f"a {type(value).__qualname__} has no stable content ({message_of(error)})"
            ) from None
        if isinstance(parts, str):
            return [parts.encode()]
        make, args, state, items, pairs = (*parts, None, None, None)[:5]
        if (
            not with_state
            and isinstance(state, dict | tuple)
            and (isinstance(state, dict) or len(state) == 2)
        ):
            state = None  # The caller walks the attributes itself.
        elif isinstance(state, dict):
            state = {name: part for name, part in state.items() if not _is_cached_property(type(value), name)}
        return self._all((make, args, state, list(items or ()), list(pairs or ())))

    def _sorted_items(self, mapping: dict[str, Any]) -> list[bytes]:
        parts: list[bytes] = []
        for name, value in sorted(mapping.items()):
            parts += [name.encode(), self._part(f"attribute {name!r}", value)]
        return parts

    def _sequence(self, values: list[Any] | tuple[Any, ...]) -> list[bytes]:
        """Walk a sequence. A long one of numbers, or of strings, is hashed in one piece."""
        if len(values) >= MIN_PACKED_LENGTH and (packed := pack(values)) is not None:
            return [b"packed", packed]
        return self._all(values)

    def _mapping(self, mapping: dict[Any, Any]) -> list[bytes]:
        return self._all(part for pair in mapping.items() for part in pair)

    def _set(self, values: set[Any] | frozenset[Any]) -> list[bytes]:
        return sorted(self._all(values))


@functools.lru_cache(maxsize=4096)
def code_digest(code: types.CodeType) -> bytes:
    """Return the digest of what a code object does, without the values that it depends on."""
    return combine(b"code", _Walk()._all(content_of_code(code)))


def _state(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, slots included."""
    state = dict(getattr(value, "__dict__", ()))
    for base in type(value).__mro__:
        slots = base.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            is_mangled = slot.startswith("__") and not slot.endswith("__")
            name = f"_{base.__name__.lstrip('_')}{slot}" if is_mangled else slot
            if slot not in ("__dict__", "__weakref__") and hasattr(value, name):
                state[name] = getattr(value, name)
    return state


def _of_member(member: enum.Enum) -> dict[str, Any]:
    """Return the attributes of an enumeration's member, without those that `enum` itself sets."""
    return {name: part for name, part in _state(member).items() if not (name[0] == "_" and name[-1] == "_")}


def _is_cached_property(kind: type, name: str) -> bool:
    """Return whether a `functools.cached_property` stores its result under this name."""
    for base in kind.__mro__:
        if name in base.__dict__:
            return any(one.__name__ == "cached_property" for one in type(base.__dict__[name]).__mro__)
    return False


_CONTAINERS: Final[dict[type, Callable[[_Walk, Any], list[bytes]]]] = {
    list: _Walk._sequence,
    tuple: _Walk._sequence,
    dict: _Walk._mapping,
    set: _Walk._set,
    frozenset: _Walk._set,
    types.MappingProxyType: _Walk._mapping,
    slice: lambda walk, value: walk._all((value.start, value.stop, value.step)),
    types.SimpleNamespace: lambda walk, value: walk._sorted_items(vars(value)),
}

_PLAIN: Final = {
    *(type(None), bool, int, float, complex, str, bytes, tuple, dict, list, set, bytearray),
    *(collections.deque, collections.Counter, collections.OrderedDict, collections.defaultdict),
}
"""Types whose methods are known to do nothing but what their names say."""

_BUILTIN_BASES: Final = (dict, list, tuple, set, frozenset, str, bytes, int, float, complex)

_SKIPPED_CLASS_ATTRIBUTES: Final = {"__slotnames__"} | frozenset(
    [
        "__dict__",
        "__weakref__",
        "__doc__",
        "__module__",
        "__qualname__",
        "__signature__",
        "__firstlineno__",
        "__static_attributes__",
        "__abstractmethods__",
        "_abc_impl",
        "__dataclass_params__",
        "__match_args__",
        "__parameters__",
        "__orig_bases__",
        "__class_vars__",
        "__pydantic_complete__",
        "__pydantic_core_schema__",
        "__pydantic_serializer__",
        "__pydantic_validator__",
        "__pydantic_parent_namespace__",
    ]
)
