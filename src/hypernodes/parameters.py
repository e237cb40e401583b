"""The parameters of a callable: which of them are inputs, and which are passed by position.

Arguments go by position where they can. So they reach functions that have no names for them, although a
signature shows some: builtins, `functools.singledispatch` functions, wrappers over ``*args``.
"""

from __future__ import annotations

import functools
import inspect
from inspect import Parameter
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hypernodes.exceptions import NotANodeError
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

_VARIADIC: Final = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
_HAS_ARGS, _HAS_KWARGS = inspect.CO_VARARGS, inspect.CO_VARKEYWORDS


class Positional(NamedTuple):
    """A parameter that can be passed by position, after those before it.

    Attributes:
        name: Its name.
        default: Its default, or `inspect.Parameter.empty`.
        has_no_name: Whether it cannot be passed by name.
    """

    name: str
    default: Any
    has_no_name: bool


def check_callable(function: Any) -> None:
    """Check that a node can be made of a value.

    Raises:
        NotANodeError: It cannot be called, or is no function yet, since ``@node`` is above another decorator.
    """
    for kinds, decorator, hint in _DESCRIPTORS:
        if isinstance(function, kinds):
            raise NotANodeError(f"@node is above @{decorator}, and has to be below it. {hint}")
    if not callable(function):
        raise NotANodeError(
            f"{short(function)} cannot be a node, since it cannot be called. Give a function."
        )


_DIRECTLY: Final = "Put it directly above the function."
_NO_PROPERTY: Final = (
    "A property gives a value and no node: leave it out, and put @node directly above the method."
)
_DESCRIPTORS: Final = (
    (classmethod, "classmethod", _DIRECTLY),
    (staticmethod, "staticmethod", _DIRECTLY),
    (property, "property", _NO_PROPERTY),
    (functools.cached_property, "functools.cached_property", _NO_PROPERTY),
    (
        functools.singledispatchmethod,
        "functools.singledispatchmethod",
        "Or make a node of the method of an object: node(obj.method, output_name=...).",
    ),
)


def inputs_of(function: Callable[..., Any], name: str) -> dict[str, Parameter]:
    """Return the parameters that are the inputs of a node, by name.

    Raises:
        NotANodeError: They cannot be read, or there are none but ``*args`` and ``**kwargs``.
    """
    named = named_parameters(function, name)
    # A decorator with an option of its own has no names either for the inputs of the function that it wraps.
    options = [p.name for p in named.values() if p.kind is p.KEYWORD_ONLY and p.default is not p.empty]
    if len(_signature(function)) > len(named) == len(options):
        beside = f" beside {' and '.join(map(repr, options))}" if options else ""
        raise NotANodeError(
            f"{name!r} cannot be a node, since it takes only *args and **kwargs{beside}, which have no names "
            f"to connect. Wrap it in a function that names its parameters. If a decorator has made it, let "
            f"the decorator keep the names, by functools.wraps."
        )
    return named


def named_parameters(function: Callable[..., Any], name: str, role: str = "a node") -> dict[str, Parameter]:
    """Return the parameters of a callable, less ``*args`` and ``**kwargs``.

    Raises:
        NotANodeError: They cannot be read.
    """
    try:
        parameters = _signature(function)
    except (TypeError, ValueError) as error:
        raise NotANodeError(
            f"{name!r} cannot be {role}, since its parameters cannot be read ({error}). "
            f"Wrap it in a function that names them."
        ) from None
    return {key: parameter for key, parameter in parameters.items() if parameter.kind not in _VARIADIC}


def positional_of(
    function: Callable[..., Any], parameters: Mapping[str, Parameter]
) -> tuple[Positional, ...]:
    """Return the first parameters of a callable, as far as they can be passed by position."""
    code = _code_of(function)
    found: list[Positional] = []
    for name, parameter in parameters.items():
        if parameter.kind not in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD):
            break
        has_no_name = parameter.kind is Parameter.POSITIONAL_ONLY
        if code is not None:
            place = len(found)
            if not (code.names[place] == name if place < len(code.names) else code.has_args):
                break  # a wrapper has other parameters than it shows
            has_no_name |= name not in code.names and not code.has_kwargs
        found.append(Positional(name, parameter.default, has_no_name))
    return tuple(found)


def by_position(positional: Sequence[Positional], given: Collection[str]) -> tuple[tuple[str, Any], ...]:
    """Return the parameters that are passed by position, each with its default.

    The default is passed for one that is left out, if one after it has no name.
    """
    count = max((n for n, p in enumerate(positional, 1) if p.has_no_name and p.name in given), default=0)
    while count < len(positional) and positional[count].name in given:
        count += 1
    return tuple((parameter.name, parameter.default) for parameter in positional[:count])


def takes_any_keyword(function: Callable[..., Any]) -> bool:
    """Whether a callable takes ``**kwargs``."""
    return any(parameter.kind is Parameter.VAR_KEYWORD for parameter in _signature(function).values())


def _signature(function: Callable[..., Any]) -> Mapping[str, Parameter]:
    parameters = inspect.signature(function).parameters
    # Only where there is such an attribute: to ask for one may make the object that a holder stands for.
    has_register = "register" in getattr(function, "__dict__", ()) or hasattr(type(function), "register")
    dispatcher = getattr(function.register, "__self__", None) if has_register else None  # type: ignore[attr-defined]
    if isinstance(dispatcher, functools.singledispatchmethod) and not isinstance(
        dispatcher.func, staticmethod
    ):
        # The method is bound already, but Python shows the parameters of the function.
        return dict(list(parameters.items())[1:])
    return parameters


class _Code(NamedTuple):
    """What the code of a function takes, whatever its signature shows."""

    names: tuple[str, ...]  # of the parameters that can be passed by position
    has_args: bool
    has_kwargs: bool


def _code_of(function: Any) -> _Code | None:
    """Return what a callable takes; ``None`` if it is not written in Python, or a class."""
    if isinstance(function, FunctionType):
        code = function.__code__
        flags = code.co_flags
        return _Code(code.co_varnames[: code.co_argcount], bool(flags & _HAS_ARGS), bool(flags & _HAS_KWARGS))
    if isinstance(function, MethodType):
        inner, taken = _code_of(function.__func__), 1
    elif isinstance(function, functools.partial):
        inner, taken = _code_of(function.func), len(function.args)
    elif callable(function) and isinstance(type(function).__call__, FunctionType):
        inner, taken = _code_of(type(function).__call__), 1
    else:
        return None
    return inner and inner._replace(names=inner.names[taken:])
