"""What belongs to Python or to an installed package, and not to the user? And of what version is it?"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import FunctionType

_INSTALLED_UNDER: Final = tuple(
    str(path).rstrip(os.sep) + os.sep
    for path in {
        *filter(None, map(sysconfig.get_paths().get, ("stdlib", "platstdlib", "purelib", "platlib"))),
        str(Path(__file__).parents[1]),  # this package counts by its version
    }
)
_INSTALLED_IN: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_installed(module: str | None) -> bool:
    """Whether a module belongs to Python or to an installed package, and not to the user's own code."""
    found = sys.modules.get(module or "")
    if (
        found is None or module == "__main__"
    ):  # which may be a program that has been installed to run users' code
        return module == "builtins"
    path = getattr(found, "__file__", None)
    if path is None:  # built in, or a package without a file of its own
        places = [os.path.join(place, "") for place in getattr(found, "__path__", ())]  # noqa: PTH118
        return module in sys.builtin_module_names or (bool(places) and all(map(_is_under_installed, places)))
    return _is_under_installed(path)


def _is_under_installed(path: str) -> bool:
    return path.startswith(_INSTALLED_UNDER) or any(part in path for part in _INSTALLED_IN)


@functools.cache
def release(module: str) -> str:
    """Return name and version of the package that a module belongs to."""
    top = module.partition(".")[0]
    if top in sys.stdlib_module_names:
        return "python-{}.{}".format(*sys.version_info[:2])
    version = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(version, str):
        return f"{top}-{version}"
    from importlib import metadata

    # Several distributions may share a package; all of them count.
    names = sorted(set(metadata.packages_distributions().get(top, ())))
    if names:
        return f"{top}-" + "+".join(f"{name}-{metadata.version(name)}" for name in names)
    found = sys.modules.get(top) or importlib.util.find_spec(top)
    file = getattr(found, "__file__", None) or getattr(found, "origin", None)
    # A file that somebody has put there by hand counts by what it says.
    return f"{top}-{hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest() if file else ''}"


def is_absent(top: str) -> bool:
    """Whether there is no such module."""
    if top in sys.modules:
        return sys.modules[top] is None
    try:
        return importlib.util.find_spec(top) is None
    except (ImportError, ValueError):
        return True


def is_installed_top(top: str) -> bool:
    """Whether a module is installed, without importing it."""
    if top in sys.modules:
        return is_installed(top)
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin in (None, "built-in", "frozen"):
        return top in sys.stdlib_module_names
    return _is_under_installed(str(spec.origin))


def is_of_library(function: FunctionType) -> bool:
    """Whether a function is a library's own, and not one that a library, or the user, has made of another.

    Told by where its code was written: `functools.wraps` gives it the module of what it wraps.
    """
    if not is_installed(function.__globals__.get("__name__")):
        return False
    if not is_made(function):
        return True
    return (
        is_installed(function.__module__) and _found(function.__module__, function.__qualname__) is function
    )


def is_made(function: FunctionType) -> bool:
    """Whether a function was made within another: a decorator's, say."""
    return "<locals>" in function.__code__.co_qualname


def is_class_of_library(kind: type) -> bool:
    """Whether a class is a library's own, and not one that a library has made for the user."""
    if not is_installed(kind.__module__):
        return False
    return not kind.__flags__ & _MADE_BY_A_STATEMENT or _found(kind.__module__, kind.__qualname__) is kind


_MADE_BY_A_STATEMENT: Final = 1 << 9  # a flag of CPython's: not a class written in C, as it stands


def _found(module: str, qualname: str) -> object:
    found: object = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
