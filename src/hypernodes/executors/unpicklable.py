"""Finds the part of a value that cannot be pickled. Errors of pickle name a type, but not where it is."""

from __future__ import annotations

import functools
import inspect
import re
import types
from typing import TYPE_CHECKING, Any, Final

from hypernodes.serialization.pickling import is_serializable
from hypernodes.text import message_of, short

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH: Final = 12
"""How many levels of nested parts are searched; each level pickles all parts of the level above again."""

_MISSING_MODULE: Final = re.compile(r"No module named '([\w.]+)'")


def describe_unpicklable_call(call: tuple[Any, tuple[Any, ...], dict[str, Any]], error: BaseException) -> str:
    """Return a sentence that says which part of a call cannot be pickled.

    >>> import threading
    >>> lock = threading.Lock()
    >>> describe_unpicklable_call((lambda x: lock, (1,), {}), TypeError("cannot pickle"))
    "its variable 'lock' (a lock) cannot be pickled: cannot pickle"
    """
    fn, args, kwargs = call
    parts = [("", fn), *((f"argument {index}", value) for index, value in enumerate(args))]
    parts += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    for name, value in parts:
        if not is_serializable(value):
            return f"{describe_unpicklable_part(value, name) or 'it'} cannot be pickled: {message_of(error)}"
    return message_of(error)


def describe_unpicklable_part(value: object, name: str = "") -> str:
    """Return the path to the innermost part of a value that cannot be pickled, and the type of that part."""
    path = [name] if name else []
    for _ in range(MAX_DEPTH):
        try:
            found = next(((name, part) for name, part in _parts(value) if not is_serializable(part)), None)
        except Exception:  # the methods of a user's class may raise anything
            break
        if found is None:
            break
        path.append(found[0])
        value = found[1]
    kind = type(value).__qualname__
    return f"its {', '.join(path)} ({'an' if kind[0] in 'aeiou' else 'a'} {kind})" if path else ""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case types.FunctionType():
            variables = inspect.getclosurevars(value)
            for name, part in {**variables.nonlocals, **variables.globals}.items():
                yield f"variable {name!r}", part
            for part in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
                yield "default value", part
        case types.MethodType():
            yield "object", value.__self__
        case functools.partial():
            yield "function", value.func
            for index, part in enumerate(value.args):
                yield f"argument {index}", part
            for name, part in value.keywords.items():
                yield f"argument {name!r}", part
        case dict():
            for key, part in value.items():
                yield f"key {short(key)}", part
        case list() | tuple() | set() | frozenset():
            for index, part in enumerate(value):
                yield f"element {index}", part
        case _:
            for name, part in getattr(value, "__dict__", {}).items():
                yield f"attribute {name!r}", part


def missing_module_advice(message: str) -> str | None:
    """Return what to do about a module that the workers lack, or ``None`` if the message is about none."""
    if (found := _MISSING_MODULE.search(message)) is None:
        return None
    package = found[1].partition(".")[0]
    return (
        f"the workers have no module {found[1]!r}. Send your code along, with "
        f"runtime_env={{'working_dir': '.'}} or runtime_env={{'py_modules': ['path/to/{package}']}}; have a "
        f"package installed, with runtime_env={{'pip': ['{package}']}}. Give it to "
        f"RayExecutor(runtime_env=...), to ray.init(runtime_env=...), or to `ray job submit --runtime-env`"
    )
