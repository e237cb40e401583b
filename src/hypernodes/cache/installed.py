"""Which code belongs to Python or to an installed package and not to the user, and which version is it?"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FunctionType

_INSTALLED_UNDER: Final = tuple(
    str(path).rstrip(os.sep) + os.sep
    for path in {
        *filter(None, map(sysconfig.get_paths().get, ("stdlib", "platstdlib", "purelib", "platlib"))),
        str(Path(__file__).parents[1]),  # This package is identified by its version.
    }
)
_INSTALLED_IN: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def is_installed(module: str | None) -> bool:
    """Return whether a module belongs to Python or to an installed package, and not to the user's code."""
    found = sys.modules.get(module or "")
    if found is None or module == "__main__":  # An installed program may run the user's code as __main__.
        return module == "builtins"
    path = getattr(found, "__file__", None)
    if path is None:  # The module is built in, or a namespace package.
        folders = [f"{folder.rstrip(os.sep)}{os.sep}" for folder in getattr(found, "__path__", ())]
        is_installed_package = bool(folders) and all(map(_is_under_installed, folders))
        return module in sys.builtin_module_names or is_installed_package
    return _is_under_installed(path)


def _is_under_installed(path: str) -> bool:
    return path.startswith(_INSTALLED_UNDER) or any(part in path for part in _INSTALLED_IN)


def release(module: str) -> str:
    """Return the name and version of the package that a module belongs to."""
    return _release_of(module.partition(".")[0])


@functools.cache
def _release_of(top: str) -> str:
    if top in sys.stdlib_module_names:
        return "python-{}.{}".format(*sys.version_info[:2])
    if top == __name__.partition(".")[0]:  # It is imported, and the name of its distribution is another one.
        return f"{top}-{sys.modules[top].__version__}"
    # What is said must not depend on whether the module has been imported: a worker may not have done so yet.
    found = sys.modules.get(top) or importlib.util.find_spec(top)
    file = getattr(found, "__file__", None) or getattr(found, "origin", None)
    from importlib import metadata

    if file is not None:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return f"{top}-{metadata.version(top)}"
    # Several distributions may share a namespace package: all of them count.
    if top not in _distributions():
        _distributions.cache_clear()  # It may have been installed since.
    if names := sorted(set(_distributions().get(top, ()))):
        return f"{top}-" + "+".join(f"{name}-{metadata.version(name)}" for name in names)
    # A file that belongs to no distribution is identified by its content.
    return f"{top}-{hashlib.blake2b(Path(file).read_bytes(), digest_size=16).hexdigest() if file else ''}"


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    """Return the distributions of each top-level module, for which Python reads the files of all packages."""
    from importlib import metadata

    return metadata.packages_distributions()


def is_absent(top: str) -> bool:
    """Return whether there is no such top-level module."""
    if top in sys.modules:
        return sys.modules[top] is None
    try:
        return importlib.util.find_spec(top) is None
    except (ImportError, ValueError):
        return True


def is_installed_top(top: str) -> bool:
    """Return whether a top-level module is installed, without importing it."""
    if top in sys.modules:
        return is_installed(top)
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin in (None, "built-in", "frozen"):
        return top in sys.stdlib_module_names
    return _is_under_installed(str(spec.origin))


def is_of_library(function: FunctionType) -> bool:
    """Return whether a function is a library's own, and not a wrapper around a function of the user's.

    The globals of the function decide: `functools.wraps` copies only the name of the module.
    """
    if not is_installed(function.__globals__.get("__name__")):
        return False
    if not _is_inner(function):
        return True
    return (
        is_installed(function.__module__) and _resolve(function.__module__, function.__qualname__) is function
    )


def _is_inner(function: FunctionType) -> bool:
    """Return whether a function was defined within another one, such as a decorator."""
    return "<locals>" in function.__code__.co_qualname


def is_class_of_library(kind: type) -> bool:
    """Return whether a class is a library's own, and not one that a library has generated for the user."""
    if not is_installed(kind.__module__):
        return False
    return not kind.__flags__ & _HEAP_TYPE or _resolve(kind.__module__, kind.__qualname__) is kind


_HEAP_TYPE: Final = 1 << 9
"""CPython's flag for classes that are created at run time: a static class in C does not have it."""


def _resolve(module: str, qualname: str) -> object:
    """Return the object that a module has under a qualified name."""
    found: object = sys.modules.get(module)
    for name in qualname.split("."):
        found = getattr(found, name, None)
    return found
