"""Do type hints fit together, and values to hints? What cannot be decided fits.

A value that flows from one node to another has two hints: what the first returns, and what the second takes.
Hints are gradual: ``Any``, a missing hint, a bare ``list`` and a name that does not resolve say nothing, and
fit everything.
"""

from __future__ import annotations

import collections
import collections.abc as cabc
import functools
import inspect
import numbers
import types
import typing
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_UNKNOWN: Final = (Any, object, inspect.Parameter.empty)
_WRAPPERS: Final = frozenset(("Annotated", "Final", "ClassVar", "Required", "NotRequired", "ReadOnly"))
_NUMBERS: Final[dict[Any, type]] = {int: numbers.Integral, float: numbers.Real, complex: numbers.Complex}
"""An int is taken for a float, and a number of NumPy for one of Python."""
_ITERATORS: Final = (cabc.Iterator, cabc.Generator, cabc.AsyncIterator, cabc.AsyncGenerator)
_ITERABLES: Final = (*_ITERATORS, cabc.Iterable, cabc.AsyncIterable)
_NEVER: Final = (typing.Never, typing.NoReturn)
_AWAITED: Final = (cabc.Awaitable, cabc.Coroutine)
_COLLECTIONS: Final = (
    *(list, tuple, set, frozenset, collections.deque),
    *(cabc.Sequence, cabc.MutableSequence, cabc.Collection, cabc.Iterable, cabc.Set, cabc.MutableSet),
)
_NO_COLLECTIONS: Final = (int, float, complex, bool, str, bytes, bytearray, type(None))


def hints_of_function(
    function: Callable[..., Any], known: Mapping[str, Any] = types.MappingProxyType({})
) -> dict[str, Any]:
    """Return the hints of a callable that resolve, by parameter, and ``"return"``.

    `known` are names that resolve although they may be imported for type checkers only.
    """
    called: Any = function
    while isinstance(called, functools.partial):
        called = called.func
    if not (
        inspect.isroutine(called)
        or inspect.isclass(called)
        or "__globals__" in getattr(called, "__dict__", ())
    ):
        called = type(called).__call__
    if inspect.isclass(called):
        constructor: Any = called.__init__
        return {**_resolved(constructor, known), "return": called}
    return _resolved(inspect.unwrap(called), known)


def _resolved(called: Any, known: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = typing.get_type_hints(called, include_extras=True)
    except Exception:  # A name is imported for type checkers only, or the callable is no function at all.
        found = dict(_resolved_one_by_one(called, known))
    try:
        parameters = inspect.signature(called).parameters
    except (TypeError, ValueError):
        return found
    for name, parameter in parameters.items():
        if parameter.default is None and name in found:
            found[name] = Union[found[name], None]  # noqa: UP007  the hint need not be a type
    return found


def _resolved_one_by_one(called: Any, known: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    names = {**known, **getattr(called, "__globals__", {})}
    for name, hint in dict(getattr(called, "__annotations__", None) or {}).items():
        try:
            holder = types.SimpleNamespace(__annotations__={name: hint})
            yield name, typing.get_type_hints(holder, names, include_extras=True)[name]
        except Exception:  # This one does not resolve.
            continue


def returned_hints(hint: Any, outputs: int, *, is_generator: bool = False) -> list[Any]:
    """Return the hint of each output; what is returned as an iterator arrives as a list.

    >>> returned_hints(tuple[int, str], 2), returned_hints(int, 2)
    ([<class 'int'>, <class 'str'>], [typing.Any, typing.Any])
    """
    hint = _plain(hint)
    if get_origin(hint) in _AWAITED and get_args(hint):
        hint = _plain(get_args(hint)[-1])
    if get_origin(hint) in _ITERABLES or hint in _ITERABLES or (is_generator and hint not in _UNKNOWN):
        item = next(iter(get_args(hint)), Any)
        return [list[item]] if outputs == 1 else [item] * outputs  # type: ignore[valid-type]
    if outputs == 1:
        return [hint]
    parts = get_args(hint)
    if get_origin(hint) is tuple and len(parts) == outputs and ... not in parts:
        return list(parts)
    return [Any] * outputs


def element(hint: Any) -> Any | None:
    """Return the hint of the items of a collection; ``None`` if values of the hint are none.

    >>> element(list[int]), element(dict), element(int)
    (<class 'int'>, typing.Any, None)
    """
    hint = _plain(hint)
    if (parts := _union(hint)) is not None:
        found = [element(part) for part in parts]
        return None if None in found else Union[tuple(found)]  # noqa: UP007
    origin, parts = get_origin(hint), get_args(hint)
    if origin is tuple and parts and ... not in parts:
        return Union[parts]  # noqa: UP007
    if origin in _COLLECTIONS and parts:
        return parts[0]
    return None if hint in _NO_COLLECTIONS else Any


def fits(given: Any, taken: Any) -> bool:
    """Whether values of one hint can be taken where another one is asked for, as far as that can be decided.

    >>> fits(int, float), fits(str, int), fits(list, list[int]), fits(list[str], list[int])
    (True, False, True, False)
    """
    try:
        return _fits(given, taken)
    except Exception:  # A hint of a library may refuse every question.
        return True


def _fits(given: Any, taken: Any) -> bool:
    given, taken = _plain(given), _plain(taken)
    if given in _UNKNOWN or taken in _UNKNOWN or given == taken or given in _NEVER:
        return True
    if get_origin(taken) in _ITERATORS:  # It arrives as a list, and most functions only iterate over it.
        taken = cabc.Iterable[get_args(taken)[0]]  # type: ignore[misc]
    if (get_origin(given) or given) is cabc.Callable is get_origin(taken) and not get_args(given):
        return True
    if (parts := _union(given)) is not None:
        return all(_fits(part, taken) for part in parts)
    if (parts := _union(taken)) is not None:
        return any(_fits(given, part) for part in parts)
    if get_origin(given) is Literal:
        return all(_is_of(value, taken) for value in get_args(given))
    if typing.is_typeddict(given):
        return _typed_dict_fits(given, taken)
    if typing.is_typeddict(taken):
        return _is_kind(get_origin(given) or given, cabc.Mapping)
    if getattr(get_origin(taken) or taken, "_is_protocol", False):
        return _has_members(get_origin(given) or given, get_origin(taken) or taken)
    outer, inner = get_origin(taken), get_origin(given)
    if outer is None and isinstance(taken, type):
        return _is_kind(inner if isinstance(inner, type) else given, taken)
    if inner is None and isinstance(given, type) and isinstance(outer, type):
        return _is_kind(given, outer)  # the hint does not say what is in the collection
    if isinstance(inner, type) and isinstance(outer, type) and outer not in (cabc.Callable, type):
        return _is_kind(inner, outer) and _parts_fit(inner, get_args(given), outer, get_args(taken))
    return _decided_by_beartype(given, taken)


def _parts_fit(inner: type, given: tuple[Any, ...], outer: type, taken: tuple[Any, ...]) -> bool:
    if inner is tuple and outer is not tuple:  # as a sequence
        return len(taken) != 1 or all(_fits(part, taken[0]) for part in given if part is not ...)
    if inner is tuple and ... in taken:
        return all(_fits(part, taken[0]) for part in given if part is not ...)
    if inner is tuple and ... in given:
        return all(_fits(given[0], part) for part in taken)
    if len(given) != len(taken):
        return inner is not tuple
    if inner is not outer and not (issubclass(inner, _COLLECTIONS) or issubclass(inner, cabc.Mapping)):
        return True  # a class of its own, whose parameters may mean something else
    return all(map(_fits, given, taken))


def _decided_by_beartype(given: Any, taken: Any) -> bool:
    """Have beartype decide about anything else: literals, callables, classes as values ..."""
    if any(part in _UNKNOWN for hint in (given, taken) for part in _all_parts(hint)):
        given, taken = get_origin(given) or given, get_origin(taken) or taken
    from beartype.door import is_subhint

    return is_subhint(given, taken)


def _all_parts(hint: Any) -> Iterator[Any]:
    for part in get_args(hint):
        if isinstance(part, list):
            yield from part
        else:
            yield part
            yield from _all_parts(part)


def _is_kind(given: Any, taken: type) -> bool:
    if not isinstance(given, type):
        return _decided_by_beartype(given, taken)
    return issubclass(given, _NUMBERS.get(taken, taken))


def _typed_dict_fits(given: Any, taken: Any) -> bool:
    if not typing.is_typeddict(taken):
        return _is_kind(dict, get_origin(taken) or taken)
    own, others = _fields(given), _fields(taken)
    return taken.__required_keys__ <= own.keys() and all(
        _fits(own[name], hint) for name, hint in others.items() if name in own
    )


def _fields(kind: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(kind, include_extras=True)
    except Exception:  # A name is imported for type checkers only.
        return dict.fromkeys(kind.__annotations__, Any)


def _has_members(given: Any, protocol: Any) -> bool:
    """Whether a class has the methods of a protocol; attributes may be set by the constructor."""
    if not isinstance(given, type) or (protocol in given.__mro__):
        return True
    return all(hasattr(given, name) for name in _members(protocol))


def _members(protocol: Any) -> Iterator[str]:
    for base in protocol.__mro__:
        if getattr(base, "_is_protocol", False) and base.__module__ != "typing":
            yield from (
                name
                for name, value in vars(base).items()
                if not name.startswith("_") or (inspect.isfunction(value) and name not in _OF_PROTOCOL)
            )


_OF_PROTOCOL: Final = frozenset(("__init__", "__subclasshook__", "__init_subclass__", "__class_getitem__"))


def _plain(hint: Any) -> Any:
    """Return a hint without what does not count here: annotations, aliases, type variables."""
    while True:
        if hint is None:
            return type(None)
        if isinstance(hint, str | typing.ForwardRef | typing.TypeVar | typing.ParamSpec):
            return Any
        if getattr(hint, "__supertype__", None) is not None and not isinstance(hint, type):  # NewType
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":
            hint = hint.__value__
        elif get_origin(hint) is Annotated or getattr(get_origin(hint), "_name", None) in _WRAPPERS:
            hint = get_args(hint)[0]
        elif get_origin(hint) is typing.TypeGuard:
            return bool
        elif getattr(hint, "_name", None) in ("Self", "LiteralString", "AnyStr"):
            return str if hint._name == "LiteralString" else Any
        else:
            return _BARE.get(hint, hint) if isinstance(hint, cabc.Hashable) else hint


_BARE: Final[dict[Any, Any]] = {
    alias: get_origin(alias)
    for alias in (typing.List, typing.Dict, typing.Set, typing.FrozenSet, typing.Tuple, typing.Type)  # noqa: UP006
}


def _union(hint: Any) -> tuple[Any, ...] | None:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else None


def is_of_hint(value: Any, hint: Any) -> bool:
    """Whether a value is of a hint, its elements included, as far as that can be decided.

    >>> is_of_hint([1, "a"], list[int]), is_of_hint(1, float), is_of_hint({"a": 1}, dict[str, int])
    (False, True, True)
    """
    try:
        return _is_of(value, hint)
    except Exception:  # A value may refuse every question, too.
        return True


def _is_of(value: Any, hint: Any) -> bool:
    if get_origin(hint) is Annotated:
        from beartype.door import is_bearable

        return _is_of(value, get_args(hint)[0]) and is_bearable(value, hint)
    hint = _plain(hint)
    if hint in _UNKNOWN:
        return True
    if (parts := _union(hint)) is not None:
        return any(_is_of(value, part) for part in parts)
    if hint in _NUMBERS:
        return isinstance(value, _NUMBERS[hint])
    if typing.is_typeddict(hint):
        return (
            isinstance(value, dict)
            and hint.__required_keys__ <= value.keys()
            and all(_is_of(value[name], part) for name, part in _fields(hint).items() if name in value)
        )
    origin, parts = get_origin(hint), get_args(hint)
    if getattr(origin or hint, "_is_protocol", False):
        return all(hasattr(value, name) for name in _members(origin or hint))
    if isinstance(hint, type) and origin is None:
        return isinstance(value, hint)
    if isinstance(value, tuple) and origin is tuple and ... not in parts:
        return len(value) == len(parts) and all(map(_is_of, value, parts))
    if isinstance(value, list | tuple | set | frozenset) and isinstance(origin, type) and parts:
        return isinstance(value, origin) and all(_is_of(part, parts[0]) for part in value)
    if isinstance(value, dict) and isinstance(origin, type) and len(parts) == 2:
        return isinstance(value, origin) and all(
            _is_of(key, parts[0]) and _is_of(part, parts[1]) for key, part in value.items()
        )
    from beartype.door import is_bearable

    return is_bearable(value, hint)


def shown(hint: Any) -> str:
    """Return a hint as a person writes it.

    >>> shown(int), shown(list[int] | None)
    ('int', 'list[int] | None')
    """
    if isinstance(hint, type) and get_origin(hint) is None:
        return "None" if hint is type(None) else hint.__qualname__
    return str(hint).replace("typing.", "").replace("collections.abc.", "").replace("NoneType", "None")
