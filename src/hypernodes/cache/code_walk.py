"""The digests of code: of functions, and of classes with their methods and attributes."""

from __future__ import annotations

import abc
import collections
import contextlib
import enum
import functools
import sys
import types
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.changes import NO_CHANGES, SILENT_MUTATORS, changes_in
from hypernodes.cache.code import Release, attributes_of_module, dependencies
from hypernodes.cache.installed import is_class_of_library, is_installed, is_of_library, release
from hypernodes.cache.references import references_of
from hypernodes.exceptions import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hypernodes.cache.changed_places import ChangedPlaces
    from hypernodes.cache.reach import Reach

_PYTHON: Final = "python-{}.{}".format(*sys.version_info[:2]).encode()
_SET_ON_FUNCTIONS: Final = ("cache_parameters",)  # by functools.lru_cache

_CODE: Final = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType, Release)

_READS_NAME: Final = frozenset(["__name__", "__qualname__"])
_READS_DOC: Final = frozenset(["__doc__", "getdoc"])
_READS_ANNOTATIONS: Final = frozenset(
    ["__annotations__", "get_annotations", "get_type_hints", "getfullargspec", "signature"]
)
_READS_SUBCLASSES: Final = frozenset(["__subclasses__"])
_DESCRIBING: Final = _READS_NAME | _READS_DOC | _READS_ANNOTATIONS | _READS_SUBCLASSES
"""Names by which code asks for what a function is called, says of itself, and has as types."""

PLAIN: Final = {
    *(type(None), bool, int, float, complex, str, bytes, tuple, dict, list, set, bytearray),
    *(collections.deque, collections.Counter, collections.OrderedDict, collections.defaultdict),
}
"""Types whose methods are known to do nothing but what their names say."""


class CodeWalk(abc.ABC):
    """A walk through a value, as far as it is code."""

    def __init__(
        self,
        reach: Reach,
        changed: ChangedPlaces,
        *,
        is_code: bool,
        mentioned: frozenset[str] = frozenset(),
    ) -> None:
        self._depths: dict[int, int] = {}  # of the values around the current one, by id
        self._reach = reach
        self._changed = changed
        self._is_internal = self._is_code = is_code
        self._mentioned = mentioned
        self.mentioned = set(mentioned)  # the names that describe code, as far as the walk has met them
        self._methods: list[tuple[type, str]] = []  # The methods that the walk is in.
        self.omissions: dict[type, dict[str, str]] = {}
        self.has_state = False
        self.values: dict[str, list[bytes]] = {}  # the digests of the values that code reads, by description

    @abc.abstractmethod
    def digest(self, value: object) -> bytes:
        """Return the digest of a part of the value."""

    @abc.abstractmethod
    def code_digest(self, code: types.CodeType) -> bytes:
        """Return the digest of what a code object does, without the values that it depends on."""

    @abc.abstractmethod
    def attributes(self, owner: object, state: Mapping[str, object]) -> list[bytes]:
        """Return the names and digests of the attributes of an object that count."""

    def _all(self, values: Iterable[object]) -> list[bytes]:
        return [self.digest(value) for value in values]

    def _part(self, description: str, value: object) -> bytes:
        try:
            return self.digest(value)
        except SignatureError as error:
            raise type(error)(f"{description}: {error}") from None

    def _callable(self, kind: type, value: Any) -> tuple[bytes, Iterable[bytes]] | None:
        if kind is types.FunctionType:
            return b"function", self._function(value)
        if kind is types.MethodType:
            return b"method", self._all((value.__func__, value.__self__))
        if kind is functools.partial:
            return b"partial", self._partial(value)
        if kind in (staticmethod, classmethod):
            return kind.__name__.encode(), [self.digest(value.__func__)]
        if kind is property:
            return b"property", self._all((value.fget, value.fset, value.fdel))
        if kind is functools.cached_property:
            return b"property", [self.digest(value.func)]
        if kind.__name__ == "_lru_cache_wrapper":
            return b"memoized", [self.digest(value.__wrapped__), *self._added_to_function(value)]
        if isinstance(value, types.BuiltinFunctionType):
            owner = value.__self__
            parts = [release(value.__module__ or "builtins").encode(), value.__qualname__.encode()]
            bound = owner is not None and not isinstance(owner, types.ModuleType | type)
            if bound and type(owner) in PLAIN and value.__name__ in SILENT_MUTATORS:
                bound = False  # ``log.append`` can only change the list.
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
        parts = [_PYTHON, self.code_digest(function.__code__)]
        if self._is_reached(function.__code__):
            self._changed.add_function(function)
        parts += self._added_to_function(function)
        parts += self._described(function)
        for description, value in dependencies(function, self._changed):
            description_of = f"{description} of {function.__name__!r}"
            part = self._part(description_of, value)
            if not isinstance(value, _CODE):
                self.values.setdefault(description_of, []).append(part)
            parts += [description.encode(), part]
        return parts

    def _described(self, function: types.FunctionType) -> list[bytes]:
        """Return the name, docstring and annotations of a function, as far as the code may ask for them."""
        parts = []
        self.mentioned |= references_of(function.__code__).all & _DESCRIBING
        if self._reads(_READS_NAME):
            parts += [b"name", self.digest(function.__name__)]
        if self._reads(_READS_DOC):
            parts += [b"doc", self.digest(function.__doc__)]
        if self._reads(_READS_ANNOTATIONS):
            for name, annotation in function.__annotations__.items():
                parts += [name.encode(), self._annotation(annotation)]
        return parts

    def _reads(self, names: frozenset[str]) -> bool:
        """Return whether the code asks by one of these names: that of the value, or that which takes it."""
        if self._is_code or not self._mentioned.isdisjoint(names):
            return not self._mentioned.isdisjoint(names)
        return self._reach.mentions(names)

    def _is_reached(self, code: types.CodeType) -> bool:
        """Return whether code, if it changes anything, may be called by the code that uses the value."""
        if changes_in(code) == NO_CHANGES:
            return False
        return all(self._reach.may_call(kind, name) for kind, name in self._methods)

    def _added_to_function(self, function: Any) -> list[bytes]:
        """Walk the attributes that were set on a function, and that code may read."""
        own = {name: value for name, value in vars(function).items() if name not in _SET_ON_FUNCTIONS}
        own = {name: value for name, value in own.items() if not name.startswith("__")}
        parts: list[bytes] = []
        for name, value in sorted(own.items()):
            if self._reach.may_read(name) and not self._changed.has("attribute", function, name):
                parts += [name.encode(), self._part(f"attribute {name!r} of {function.__name__!r}", value)]
        return parts

    def _partial(self, value: functools.partial[Any]) -> Iterable[bytes]:
        self._changed.add_partial(value)
        arguments = [*enumerate(value.args), *value.keywords.items()]
        parts = [self.digest(value.func)]
        for key, argument in arguments:
            counts = self._changed.input("argument", value, key, argument)
            parts += [str(key).encode(), self.digest(counts)]
        return [*parts, *self.attributes(value, state_of(value))]

    def _class_parts(self, kind: type) -> Iterable[bytes]:
        if is_class_of_library(kind):
            return [release(kind.__module__).encode(), kind.__qualname__.encode()]
        # A class that is pickled by value has another qualified name where it is unpickled.
        parts = [_PYTHON, kind.__name__.encode(), *self._all(kind.__bases__)]
        if not is_installed(type(kind).__module__):
            parts.append(self.digest(type(kind)))
        own = dict(vars(kind))
        if issubclass(kind, enum.Enum):
            members = kind.__members__
            for name, member in members.items():
                parts += [name.encode(), self.digest(member._value_)]
                parts += self.attributes(member, state_of_member(member))
            own = {name: value for name, value in own.items() if name not in members}
            own = {name: value for name, value in own.items() if not _is_set_by_enum(name)}
        annotations = own.pop("__annotations__", None)
        for name, annotation in annotations.items() if isinstance(annotations, dict) else ():
            # Dataclasses and models make fields from annotations.
            parts += [name.encode(), self._annotation(annotation)]
        parts.extend(map(self._annotation, own.pop("__orig_bases__", ())))
        # A model writes its docstring into its schema.
        if hasattr(kind, "model_fields") or self._reads(_READS_DOC):
            parts.append(self.digest(own.get("__doc__")))
        if self._reads(_READS_SUBCLASSES):
            parts += sorted(self._all(kind.__subclasses__()))
        if (decorators := own.pop("__pydantic_decorators__", None)) is not None:
            # Their repr has the address of the class. The decorated functions are attributes of the class.
            by_kind = state_of(decorators).items()
            infos = [(what, name, one.info) for what, ones in by_kind for name, one in ones.items()]
            parts.append(self.digest(infos))
        for name, value in sorted(own.items()):
            if name in _SKIPPED_CLASS_ATTRIBUTES or self._changed.has("attribute", kind, name):
                continue
            if not hasattr(type(value), "__get__") and self._is_effect(kind, name, value):
                continue
            self._methods.append((kind, name))
            try:
                parts += [name.encode(), self._part(f"{name!r} of class {kind.__qualname__!r}", value)]
            finally:
                self._methods.pop()
        return parts

    def _annotation(self, annotation: object) -> bytes:
        try:
            return self.digest(annotation)
        except SignatureError:  # It may be a forward reference.
            return repr(annotation).encode()

    def _module(self, module: types.ModuleType) -> list[bytes]:
        """Walk what code may use of a module that an object, a table or an argument holds."""
        values = attributes_of_module(module, self._reach.names, self._changed)
        return [part for name, value in values.items() for part in (name.encode(), self._part(name, value))]

    def _is_effect(self, kind: type, name: str, value: object) -> bool:
        """Return whether the code that uses an attribute changes it, and does nothing else with it."""
        effects = self._reach.effects(kind)
        return name in effects and (type(value) in PLAIN or not effects[name])


def state_of(value: Any) -> dict[str, Any]:
    """Return the attributes of an object, slots included."""
    state = dict(getattr(value, "__dict__", ()))
    for base in type(value).__mro__:
        own = vars(base)
        for name, slot in own.items() if "__slots__" in own else ():
            if isinstance(slot, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):  # The slot may be empty.
                    # A subclass may hide the slot by an attribute, or by a slot of the same name.
                    state[f"{base.__qualname__}.{name}" if name in state else name] = slot.__get__(value)
    return state


def state_of_member(member: enum.Enum) -> dict[str, Any]:
    """Return the attributes of an enumeration's member, without those that `enum` itself sets."""
    return {name: part for name, part in state_of(member).items() if not (name[0] == "_" and name[-1] == "_")}


def _is_set_by_enum(name: str) -> bool:
    """Return whether a name of a class is one that `enum` itself sets, and not code of the user's."""
    is_reserved = name[:1] == name[-1:] == "_" and name[:2] != "__"
    return is_reserved and name not in ("_missing_", "_generate_next_value_")


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
        "__parameters__",
        "__class_vars__",
        "__pydantic_complete__",
        "__pydantic_core_schema__",
        "__pydantic_serializer__",
        "__pydantic_validator__",
        "__pydantic_parent_namespace__",
    ]
)
