"""Which part of a value cannot travel? Errors of pickle name a type, but not where it sits."""

from __future__ import annotations

import functools
import inspect
import re
import types
from typing import TYPE_CHECKING, Any, Final

from hypernodes.serialization.pickling import serialize

if TYPE_CHECKING:
    from collections.abc import Iterator

_DEEPEST: Final = 12
_OF_MODULE: Final = re.compile(r"No module named '([\w.]+)'")


def culprit(call: tuple[Any, tuple[Any, ...], dict[str, Any]], error: BaseException) -> str:
    """Return a sentence that says which part of a call cannot be pickled.

    Example:
        >>> import threading
        >>> lock = threading.Lock()
        >>> culprit((lambda x: lock, (1,), {}), TypeError("cannot pickle"))
        "its variable 'lock' (a lock) cannot be pickled: cannot pickle"
    """
    fn, args, kwargs = call
    places = [("", fn), *((f"argument {at}", arg) for at, arg in enumerate(args))]
    places += [(f"argument {name!r}", arg) for name, arg in kwargs.items()]
    for place, value in places:
        if not _packs(value):
            return f"{where(value, place) or 'it'} cannot be pickled: {error}"
    return str(error)


def where(value: object, place: str = "") -> str:
    """Return the way to the innermost part of a value that cannot be pickled, and that part's type."""
    names = [place] if place else []
    for _ in range(_DEEPEST):
        found = next(((name, part) for name, part in _parts(value) if not _packs(part)), None)
        if found is None:
            break
        names.append(found[0])
        value = found[1]
    kind = type(value).__qualname__
    return f"its {', '.join(names)} ({'an' if kind[0] in 'aeiou' else 'a'} {kind})" if names else ""


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    match value:
        case types.FunctionType():
            read = inspect.getclosurevars(value)
            for name, part in {**read.nonlocals, **read.globals}.items():
                yield f"variable {name!r}", part
            for part in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()):
                yield "default value", part
        case types.MethodType():
            yield "object", value.__self__
        case functools.partial():
            yield "function", value.func
            for at, part in enumerate(value.args):
                yield f"argument {at}", part
            for name, part in value.keywords.items():
                yield f"argument {name!r}", part
        case dict():
            for key, part in value.items():
                yield f"key {key!r}", part
        case list() | tuple() | set() | frozenset():
            for at, part in enumerate(value):
                yield f"element {at}", part
        case _:
            for name, part in getattr(value, "__dict__", {}).items():
                yield f"attribute {name!r}", part


def _packs(value: object) -> bool:
    try:
        serialize(value)
    except Exception:
        return False
    return True


def missing_module(said: str) -> str | None:
    """Return what to do about a module that the workers lack, if that is what was said."""
    found = _OF_MODULE.search(said)
    if found is None:
        return None
    top = found[1].partition(".")[0]
    return (
        f"the workers have no module {found[1]!r}. Send your code along, with "
        f"runtime_env={{'working_dir': '.'}} or runtime_env={{'py_modules': ['path/to/{top}']}}; have a "
        f"package installed, with runtime_env={{'pip': ['{top}']}}. Give it to RayExecutor(runtime_env=...), "
        f"to ray.init(runtime_env=...), or to `ray job submit --runtime-env`"
    )
