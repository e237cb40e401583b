"""The pickler: that of cloudpickle, but it keeps file names, and takes more objects of `functools`."""

from __future__ import annotations

import functools
import sys
import threading
from pickle import PicklingError
from types import CodeType
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import cloudpickle

from hypernodes._compat.cloudpickle import Pickler as CloudPickler
from hypernodes._compat.cloudpickle import reduce_code
from hypernodes.text import described

if TYPE_CHECKING:
    from collections.abc import Callable


class Pickler(CloudPickler):
    """A pickler for values, functions and classes that travel between processes."""

    keeps_file_names = True
    """Whether functions keep the name of their file, for tracebacks, warnings and logs."""

    def dump(self, obj: Any) -> None:
        """Pickle an object; what would end the program is an error like any other."""
        try:
            super().dump(obj)
        except (SystemExit, GeneratorExit) as error:
            raise PicklingError(f"its pickling raises {described(error)}") from error

    def reducer_override(self, obj: Any) -> Any:
        """Return how an object is pickled that the standard pickler does not know."""
        if isinstance(obj, CodeType) and self.keeps_file_names:
            return reduce_code(self, obj)
        if isinstance(obj, functools._lru_cache_wrapper) and not is_importable(obj):
            return _cached_function, (obj.__wrapped__, obj.cache_parameters(), _own_attributes(obj))
        if isinstance(obj, functools.cached_property):
            return _cached_property, (type(obj), {k: v for k, v in vars(obj).items() if k != "lock"})
        if type(obj) is WeakKeyDictionary:  # `functools.singledispatch` has one.
            return WeakKeyDictionary, (dict(obj),)
        return super().reducer_override(obj)


def is_importable(named: Any) -> bool:
    """Whether another process finds a function or class by its name, by the rules of cloudpickle."""
    name = named.__module__
    by_value = cloudpickle.list_registry_pickle_by_value()
    if name == "__main__" or any(name == module or name.startswith(f"{module}.") for module in by_value):
        return False
    found = sys.modules.get(name)
    for part in named.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is named


def _own_attributes(function: Any) -> dict[str, Any]:
    """Return the attributes of a cached function that the decorator does not set again."""
    wrapped = vars(function.__wrapped__)
    return {
        name: value
        for name, value in vars(function).items()
        if name not in ("__wrapped__", "cache_parameters") and name not in wrapped
    }


def _cached_function(
    wrapped: Callable[..., Any], parameters: dict[str, Any], attributes: dict[str, Any]
) -> Any:
    function = functools.lru_cache(**parameters)(wrapped)
    vars(function).update(attributes)
    return function


def _cached_property(kind: type[functools.cached_property[Any]], attributes: dict[str, Any]) -> Any:
    made = kind.__new__(kind)
    vars(made).update(attributes)
    if sys.version_info < (3, 12):
        vars(made)["lock"] = threading.RLock()
    return made
