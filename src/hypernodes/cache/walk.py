"""One walk through a value, which makes its digest: through containers, objects and values of libraries."""

from __future__ import annotations

import collections
import copyreg
import enum
import functools
import logging
import pathlib
import threading
import types
import uuid
import warnings
import weakref
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.attribute_uses import is_private
from hypernodes.cache.changed_places import ChangedPlaces, Effect
from hypernodes.cache.code import content_of_code
from hypernodes.cache.code_walk import CodeWalk, state_of, state_of_member
from hypernodes.cache.hashing import combine
from hypernodes.cache.installed import is_class_of_library, is_installed
from hypernodes.cache.library_values import components_of
from hypernodes.cache.plain_code import keep_digest, kept_digest
from hypernodes.cache.reach import NO_REACH
from hypernodes.cache.simple_values import MIN_PACKED_LENGTH, SIMPLE_TYPES, TAGS, pack
from hypernodes.exceptions import SignatureError
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_NOT_INPUTS: Final = (
    logging.Logger,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.Condition,
    threading.Event,
    threading.Semaphore,
)


class _TooDeepError(SignatureError):
    """A value is nested too deeply. No attribute is left out for that reason: it could hold everything."""


class Walk(CodeWalk):
    """A walk through a value, which may contain itself."""

    def digest(self, value: object) -> bytes:
        """Return the digest of a part of the value."""
        kind = type(value)
        if (simple := SIMPLE_TYPES.get(kind)) is not None:
            return combine(TAGS[kind], (simple(value),))
        if (depth := self._depths.get(id(value))) is not None:
            return combine(b"again", (str(len(self._depths) - depth).encode(),))
        function = value if isinstance(value, types.FunctionType) else None
        if function is not None and self._is_as_ever():
            kept = kept_digest(function, self._depths)
            if kept is not None:
                return kept
        self._depths[id(value)] = len(self._depths)
        try:
            tag, parts = self._parts(kind, value)
            result = combine(tag, parts)
        except RecursionError:
            raise _TooDeepError(f"a {kind.__qualname__} is nested too deeply to be fingerprinted") from None
        finally:
            del self._depths[id(value)]
        if function is not None and self._is_as_ever():
            keep_digest(function, result, self._depths)
        return result

    def _is_as_ever(self) -> bool:
        """Return whether the digest of a plain function does not depend on this walk."""
        return self._is_code and not self.mentioned and not len(self._changed)

    def code_digest(self, code: types.CodeType) -> bytes:
        """Return the digest of what a code object does."""
        return code_digest(code)

    def _parts(self, kind: type, value: Any) -> tuple[bytes, Iterable[bytes]]:
        if (key := getattr(kind, "__cache_key__", None)) is not None:
            return b"key", [self.digest(kind), self.digest(key(value))]
        if (walk := _CONTAINERS.get(kind)) is not None:
            self.has_state = self.has_state or kind in (list, dict, set)
            return kind.__name__.encode(), walk(self, value)
        if kind is memoryview:
            return b"memoryview", _of_view(value)
        if isinstance(value, type):
            return b"class", self._class_parts(value)
        if isinstance(value, enum.Enum):
            return b"enum", [
                *self._all((kind, value._value_)),
                *self.attributes(value, state_of_member(value)),
            ]
        if (components := components_of(kind, value)) is not None:
            private = getattr(value, "__pydantic_private__", None)
            more = self.attributes(value, private) if isinstance(private, dict) else []
            return kind.__qualname__.encode(), [*self._all(components), *more]
        if isinstance(value, types.ModuleType):
            return b"module", self._module(value)
        if isinstance(value, _NOT_INPUTS):
            return b"no input", [kind.__qualname__.encode(), *self._added_to_no_input(kind, value)]
        if isinstance(value, weakref.ref):
            return b"reference", [self.digest(value())]
        return self._callable(kind, value) or (b"object", self._object(kind, value))

    def _added_to_no_input(self, kind: type, value: Any) -> list[bytes]:
        """Walk the attributes that a class of the user's has added to a lock or logger."""
        if is_class_of_library(kind):
            return []
        base = next(base for base in kind.__mro__ if is_class_of_library(base))
        made = getattr(vars(base).get("__init__"), "__code__", None)
        of_base = made.co_names if made is not None else ()
        own = state_of(value).items()
        state = {name: part for name, part in own if name not in of_base and name[:2] != "__"}
        return [self.digest(kind), *self.attributes(value, state)]

    def _object(self, kind: type, value: Any) -> Iterable[bytes]:
        """Return the digests of an object's class, attributes, and the state of a library's base class."""
        self.has_state = True
        cause = [self.digest(value.__cause__)] if isinstance(value, BaseException) else []
        if is_class_of_library(kind):
            return [self.digest(kind), *self._reduced(value, with_state=True), *cause]
        base = next((base for base in _BUILTIN_BASES if issubclass(kind, base)), None)
        state = state_of(value)
        if base in (pathlib.PurePath, uuid.UUID):  # Their own attributes depend on what was asked of them.
            state = {name: part for name, part in state.items() if not _is_slot_of_library(kind, name)}
        parts = [self.digest(kind), *self.attributes(value, state), *cause]
        foreign = next(base for base in kind.__mro__ if is_installed(base.__module__))
        if base is not None:
            parts.append(self.digest(_CONTENT_OF_BUILTIN[base](value)))
        elif foreign is not object:
            parts += self._reduced(value, with_state=False)
        return parts

    def attributes(self, owner: object, state: Mapping[str, object]) -> list[bytes]:
        """Walk the attributes of an object, without those that are effects of the code that uses it."""
        kind = type(owner)
        parts: list[bytes] = []
        reach, reach_inside = self._reach, None
        for name, part in sorted(state.items()):
            if _is_cached_property(kind, name) or self._changed.has("attribute", owner, name):
                continue
            private = is_private(name)
            if (private or self._is_internal) and self._is_effect(kind, name, part):
                continue
            if type(part) in SIMPLE_TYPES:
                parts += (name.encode(), self.digest(part))
                self._note(kind, name, parts[-1])
                continue
            self._reach = reach_inside = reach.inside(kind) if reach_inside is None else reach_inside
            outer, self._is_internal = self._is_internal, self._is_internal or private
            try:
                parts += (name.encode(), self.digest(part))
                self._note(kind, name, parts[-1])
            except _TooDeepError:
                raise
            except SignatureError as error:
                if not private:
                    raise SignatureError(f"attribute {name!r}: {error}") from None
                self.omissions.setdefault(kind, {})[name] = str(error)
            finally:
                self._reach, self._is_internal = reach, outer
        return parts

    def _note(self, kind: type, name: str, part: bytes) -> None:
        """Keep the digest of an attribute that code reads."""
        if self._is_code:
            self.values.setdefault(f"attribute {name!r} of class {kind.__qualname__!r}", []).append(part)

    def _reduced(self, value: object, *, with_state: bool) -> list[bytes]:
        """Walk the parts that pickle would store of an object: they may be objects of the user's classes."""
        if type(value) is object:
            raise SignatureError("an object() is only equal to itself")
        try:
            reduce = copyreg.dispatch_table.get(type(value))
            # Python 3.12 and 3.13 warn that iterators of `itertools` cannot be pickled in later versions.
            quiet = type(value).__module__ == "itertools"
            with warnings.catch_warnings(action="ignore") if quiet else nullcontext():
                parts: Any = value.__reduce_ex__(4) if reduce is None else reduce(value)
        except Exception as error:
            raise SignatureError(
                f"a {type(value).__qualname__} has no stable content ({described(error)})"
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
            kind = type(value)
            state = {
                name: part
                for name, part in state.items()
                if not _is_cached_property(kind, name) and not self._changed.has("attribute", value, name)
            }
        return self._all((make, args, state, list(items or ()), list(pairs or ())))

    def _namespace(self, namespace: types.SimpleNamespace) -> list[bytes]:
        parts: list[bytes] = []
        for name, value in sorted(vars(namespace).items()):
            if not self._changed.has("attribute", namespace, name):
                parts += [name.encode(), self._part(f"attribute {name!r}", value)]
        return parts

    def _sequence(self, values: list[Any] | tuple[Any, ...]) -> list[bytes]:
        """Walk a sequence. A long one of numbers, or of strings, is hashed in one piece."""
        if self._changed.has_any(values):
            has = self._changed.has
            return self._all(Effect if has("item", values, at) else part for at, part in enumerate(values))
        if len(values) >= MIN_PACKED_LENGTH and (packed := pack(values)) is not None:
            return [b"packed", packed]
        return self._all(values)

    def _mapping(self, mapping: dict[Any, Any]) -> list[bytes]:
        pairs = mapping.items()
        if self._changed.has_any(mapping):
            return self._all(
                part for pair in pairs if not self._changed.has("item", mapping, pair[0]) for part in pair
            )
        return self._all(part for pair in pairs for part in pair)

    def _ordered(self, mapping: collections.OrderedDict[Any, Any]) -> list[bytes]:
        own = vars(mapping)
        return [*self._mapping(mapping), *([self.digest(own)] if own else [])]

    def _set(self, values: set[Any] | frozenset[Any]) -> list[bytes]:
        return sorted(self._all(values))


def _of_view(view: memoryview) -> tuple[bytes, ...]:
    try:
        return (str((view.format, view.shape)).encode(), view.tobytes())
    except ValueError as error:  # It is released.
        raise SignatureError(f"a memoryview has no content ({error})") from None


def _is_slot_of_library(kind: type, name: str) -> bool:
    return next((is_class_of_library(base) for base in kind.__mro__ if name in vars(base)), False)


def _is_cached_property(kind: type, name: str) -> bool:
    """Return whether a `functools.cached_property` stores its result under this name."""
    for base in kind.__mro__:
        if name in base.__dict__:
            return any(one.__name__ == "cached_property" for one in type(base.__dict__[name]).__mro__)
    return False


_CONTAINERS: Final[dict[type, Callable[[Walk, Any], list[bytes]]]] = {
    list: Walk._sequence,
    tuple: Walk._sequence,
    dict: Walk._mapping,
    collections.OrderedDict: Walk._ordered,
    set: Walk._set,
    frozenset: Walk._set,
    types.MappingProxyType: Walk._mapping,
    slice: lambda walk, value: walk._all((value.start, value.stop, value.step)),
    types.SimpleNamespace: Walk._namespace,
}

_CONTENT_OF_BUILTIN: Final[dict[type, Callable[[Any], object]]] = {
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    frozenset: lambda value: frozenset(frozenset.__iter__(value)),
    str: str.__str__,
    bytes: lambda value: bytes.__getitem__(value, slice(None)),
    int: int.__int__,
    float: float.__float__,
    complex: lambda value: complex(value.real, value.imag),
    pathlib.PurePath: pathlib.PurePath.__str__,
    uuid.UUID: lambda value: value.int,
}
"""Functions that read the content of an object without methods of its class, which derives from a builtin."""

_BUILTIN_BASES: Final = tuple(_CONTENT_OF_BUILTIN)


@functools.lru_cache(maxsize=4096)
def code_digest(code: types.CodeType) -> bytes:
    """Return the digest of what a code object does, without the values that it depends on."""
    return combine(b"code", Walk(NO_REACH, ChangedPlaces(), is_code=True)._all(content_of_code(code)))
