"""`stateful`: objects that are made once in each process, and that travel as what they are made of.

Model("small") ─▶ holder: class and arguments ─▶ pickle ─▶ holder in a worker
                     │ first use                              │ first use
                     ▼                                        ▼
                  the object of this process               the object of that process
"""

from __future__ import annotations

import functools
import inspect
import sys
import typing
import uuid
from dataclasses import replace
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from hypernodes.cache.content import digest
from hypernodes.cache.reach import Reach
from hypernodes.exceptions import OptionError, SignatureError
from hypernodes.node import Node
from hypernodes.process_objects import OBJECTS, ProcessObject
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_SPECIAL: Final = (
    "__call__",
    "__contains__",
    "__getitem__",
    "__iter__",
    "__len__",
    "__setitem__",
    "__delitem__",
    "__enter__",
    "__exit__",
    "__aenter__",
    "__aexit__",
)
"""The special methods that a holder has if the class of its object has them."""
_OF_ANY_OBJECT: Final = ("__call__", "__contains__", "__getitem__", "__iter__", "__len__")
"""Those of a holder for a function whose return type is not known."""


class _Recipe:
    """How the object of a holder is made, and which object that is in this process."""

    __slots__ = ("args", "found", "is_original", "keys", "kwargs")

    def __init__(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], key: bytes | None, *, is_original: bool
    ) -> None:
        self.args = args
        self.kwargs = kwargs
        # Equal holders have equal keys, in every process. There is one key at most: threads that compute it
        # at the same time agree on the first one by `setdefault`.
        self.keys: dict[None, bytes] = {} if key is None else {None: key}
        self.is_original = is_original  # it was not unpickled
        self.found: ProcessObject | None = None


class _HolderType(type):
    """The class of holders of one class or loader: for the rest, it looks like the class itself."""

    _made_by: Any  # the class or function
    _kind: type | None  # of the objects, if it is known
    _loader: Any  # the loader, if it is the class of its holders

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_") or cls._kind is None:
            raise AttributeError(f"stateful class {cls.__name__!r} has no attribute {name!r}")
        return getattr(cls._kind, name)

    def __cache_key__(cls) -> object:
        """Return the class or function: what is generated around it is the same for all of them."""
        return cls._made_by

    @property
    def __wrapped__(cls) -> Any:
        """The plain class. Only the class of holders has it: holders are not what they stand for."""
        return cls._made_by

    @property
    def __signature__(cls) -> inspect.Signature:
        return inspect.signature(cls._made_by)


class Holder(metaclass=_HolderType):
    """Stands for an object that each process makes for itself on first use.

    It holds the arguments of the object, which travel and identify it. Attributes and methods are those of
    the object.
    """

    __slots__ = ("__weakref__", "_recipe")
    _made_by: Any = None
    _kind: type | None = None
    _loader: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        inspect.signature(type(self)._made_by).bind(*args, **kwargs)
        object.__setattr__(self, "_recipe", _Recipe(args, kwargs, None, is_original=True))

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.__mro__[1] is not Holder:
            base = cls.__mro__[1].__name__
            raise TypeError(
                f"{cls.__name__!r} cannot derive from the stateful class {base!r}. Derive it from the plain "
                f"class, {base}.__wrapped__, and mark it with @stateful, too."
            )

    def __cache_key__(self) -> object:
        """Return the class or function, and its arguments."""
        recipe = self._recipe
        return type(self)._made_by, recipe.args, recipe.kwargs

    def __reduce__(self) -> tuple[Any, ...]:
        kind = type(self)
        return _restored, (kind._loader or kind, self._recipe.args, self._recipe.kwargs, _key(self))

    def __getattr__(self, name: str) -> Any:
        kind = type(self)._kind
        if name.startswith("__") and name.endswith(
            "__"
        ):  # Python itself asks for them, and must not make it.
            call = None if kind is None else _static(kind, "__call__")
            if name == "__signature__" and isinstance(call, FunctionType):
                return inspect.signature(call.__get__(self))
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        found = None if kind is None else _static(kind, name)
        if isinstance(found, FunctionType):
            return HeldMethod(self, found, name)
        if isinstance(found, Node):
            return _bound_node(self, found, name)
        if isinstance(found, staticmethod | classmethod):
            return getattr(kind, name)
        return getattr(_made(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(_made(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_made(self), name)

    def __repr__(self) -> str:
        recipe = self._recipe
        shown = [*map(short, recipe.args), *(f"{name}={short(part)}" for name, part in recipe.kwargs.items())]
        return f"<stateful {type(self).__name__}({', '.join(shown)})>"


class HeldMethod:
    """A method of an object that is made when the method is called."""

    def __init__(self, holder: Holder, function: FunctionType, name: str, batch_of: str = "") -> None:
        self._holder = holder
        self._name = name
        self._batch_of = batch_of  # the node whose batch function this is
        self.__func__ = function
        self.__name__ = function.__name__
        self.__qualname__ = function.__qualname__
        self.__module__ = function.__module__
        self.__doc__ = function.__doc__
        self.__annotations__ = function.__annotations__
        self.__globals__ = function.__globals__

    @property
    def __signature__(self) -> inspect.Signature:
        return inspect.signature(self.__func__.__get__(self._holder))

    def __cache_key__(self) -> object:
        """Return the code of the method and what identifies its object."""
        return self.__func__, self._holder

    def __reduce__(self) -> tuple[Any, ...]:
        return (
            (_batch_function, (self._holder, self._batch_of))
            if self._batch_of
            else (
                _method,
                (self._holder, self._name),
            )
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the method of the object of this process."""
        return self.__func__(_made(self._holder), *args, **kwargs)

    def __repr__(self) -> str:
        return f"<method {self._name} of {self._holder!r}>"


class Loader:
    """A function whose result each process makes for itself, once for each set of arguments."""

    def __init__(self, function: Callable[..., Any]) -> None:
        functools.update_wrapper(self, function)
        self._holders = _holder_type(function, _returned(function), self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return a holder of the function's result, without calling the function."""
        return self._holders(*args, **kwargs)

    def __cache_key__(self) -> object:
        """Return the function."""
        return self._holders._made_by

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it by its name if that refers to it, and otherwise with its function."""
        function = self._holders._made_by
        module = sys.modules.get(function.__module__)
        found: Any = module if function.__module__ != "__main__" else None
        for part in function.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is self:
            return _by_name, (function.__module__, function.__qualname__)
        return Loader, (function,)


@overload
def stateful(factory: type[T]) -> type[T]: ...
@overload
def stateful(factory: Callable[..., T]) -> Callable[..., T]: ...
def stateful(factory: Any) -> Any:
    """Mark a class, or a function that loads something, whose objects are made once in each process.

    A call of the class then returns a holder: it has the arguments of the constructor only. They travel to
    workers and identify it in the cache, together with the code of the class. The object itself is made where
    it is used first, once in each process, for all threads. What comes from the cache makes no object. When
    the process ends, the object's ``close()`` is called, if it has one; in the process in which the holder
    was made, as soon as no holder is left.

    Args:
        factory: The class, or the function. Equal arguments are the same object.

    Raises:
        OptionError: `factory` is neither a class nor a function, or is an ``async def``.

    Example:
        >>> from hypernodes import Pipeline, node
        >>> @stateful
        ... class Model:
        ...     def __init__(self, factor):
        ...         print("loading")
        ...         self.factor = factor
        ...     def predict(self, x):
        ...         return self.factor * x
        >>> model = Model(3)
        >>> pipeline = Pipeline([node(model.predict, output_name="y")])
        >>> pipeline.map({"x": [1, 2]}, map_over="x")
        loading
        {'y': [3, 6]}
    """
    if isinstance(factory, type):
        return factory if issubclass(factory, Holder) else _holder_type(factory, factory)
    if not callable(factory) or inspect.iscoroutinefunction(factory) or isinstance(factory, Node):
        raise OptionError(
            f"stateful takes a class, or a plain function that returns an object, and not {short(factory)}."
        )
    return factory if isinstance(factory, Loader) else Loader(factory)


def _holder_type(made_by: Any, kind: type | None, loader: Loader | None = None) -> _HolderType:
    """Return the class of the holders of a class or loader."""
    names = _OF_ANY_OBJECT if kind is None else [name for name in _SPECIAL if hasattr(kind, name)]
    members: dict[str, Any] = {name: _special(name, getattr(kind, name, None)) for name in names}
    for name in ("__module__", "__qualname__", "__doc__"):
        members[name] = getattr(made_by, name, None)
    members["__slots__"] = ()
    made = _HolderType(made_by.__name__, (Holder,), members)
    made._kind, made._loader, made._made_by = kind, loader, made_by
    return made


def _special(name: str, original: Any) -> Any:
    """Return a special method that calls that of the object."""

    def call(self: Holder, *args: Any, **kwargs: Any) -> Any:
        made = _made(self)
        return getattr(type(made), name)(made, *args, **kwargs)

    async def call_async(self: Holder, *args: Any, **kwargs: Any) -> Any:
        made = _made(self)
        return await getattr(type(made), name)(made, *args, **kwargs)

    method = call_async if inspect.iscoroutinefunction(original) else call
    return functools.wraps(original)(method) if isinstance(original, FunctionType) else method


def _made(holder: Holder) -> Any:
    """Return the object of this process."""
    recipe = holder._recipe
    found = recipe.found
    if found is None or found.generation is not OBJECTS.generation:
        found = recipe.found = OBJECTS.of(_key(holder), holder, closes=recipe.is_original)
    return found.get(lambda: type(holder)._made_by(*recipe.args, **recipe.kwargs))


def _key(holder: Holder) -> bytes:
    """Return what is the same for equal holders; holders without stable content are equal to their copies."""
    recipe: _Recipe = holder._recipe
    if not recipe.keys:
        try:
            # What the class itself changes, such as a log of the objects that were made, does not count.
            key = digest(holder, Reach.of_uses(type(holder)._made_by))
        except SignatureError:
            key = uuid.uuid4().bytes
        recipe.keys.setdefault(None, key)
    return recipe.keys[None]


@functools.lru_cache(maxsize=1024)
def _static(kind: type, name: str) -> Any:
    return inspect.getattr_static(kind, name, None)


def _bound_node(holder: Holder, found: Node[..., Any], name: str) -> Node[..., Any]:
    """Return a node of a class body, bound to the object of a holder."""
    options = found.options
    if isinstance(options.batch, FunctionType):
        options = replace(options, batch=HeldMethod(holder, options.batch, options.batch.__name__, name))
    if not isinstance(found.function, FunctionType):
        return found.__get__(holder)
    bound: Node[..., Any] = found._copy(function=HeldMethod(holder, found.function, name), options=options)
    return bound


def _returned(function: Callable[..., Any]) -> type | None:
    """Return the class that a loader returns by its hint, so that nodes can be made of its methods."""
    try:
        hint = typing.get_type_hints(function).get("return")
    except Exception:  # The names of a hint need not resolve.
        return None
    return hint if isinstance(hint, type) and hint.__module__ != "builtins" else None


def _restored(made_by: Any, args: tuple[Any, ...], kwargs: dict[str, Any], key: bytes) -> Holder:
    """Return an unpickled holder."""
    kind = made_by._holders if isinstance(made_by, Loader) else made_by
    holder: Holder = object.__new__(kind)
    object.__setattr__(holder, "_recipe", _Recipe(args, kwargs, key, is_original=False))
    return holder


def _method(holder: Holder, name: str) -> Any:
    found = getattr(holder, name)
    return found.function if isinstance(found, Node) else found


def _batch_function(holder: Holder, node: str) -> Any:
    return getattr(holder, node).options.batch


def _by_name(module: str, qualname: str) -> Any:
    from importlib import import_module

    found: Any = import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return found
