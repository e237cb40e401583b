"""Checks that a type checker knows the type of every public name, and of its members (`make types`).

Public is what the packages name in their ``__all__``, wherever it is defined. Types of other libraries do not
count.
"""

import inspect
import json
import pkgutil
import subprocess
import sys
from importlib import import_module

import hypernodes


def public_names():
    """Return the public names as pyright reports them: by the module that defines them."""
    modules = [hypernodes, *(import_module(f"hypernodes.{found.name}") for found in _public_modules())]
    for module in modules:
        for name in module.__all__:
            value = getattr(module, name)
            home = getattr(value, "__module__", None) or module.__name__
            is_defined_there = inspect.isclass(value) or inspect.isfunction(value)
            yield f"{home}.{value.__qualname__}" if is_defined_there else f"{module.__name__}.{name}"


def _public_modules():
    for found in pkgutil.iter_modules(hypernodes.__path__):
        if not found.name.startswith("_") and hasattr(import_module(f"hypernodes.{found.name}"), "__all__"):
            yield found


def unknown_types():
    """Return the public names, and members of them, whose type is not known, each with what pyright says."""
    options = (
        "--verifytypes",
        "hypernodes",
        "--ignoreexternal",
        "--outputjson",
        "--pythonpath",
        sys.executable,
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", *options],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if not done.stdout.startswith("{"):
        sys.exit(f"pyright does not run: {done.stdout}{done.stderr}")
    names = tuple(public_names())
    for symbol in json.loads(done.stdout)["typeCompleteness"]["symbols"]:
        is_public = any(symbol["name"] == name or symbol["name"].startswith(f"{name}.") for name in names)
        is_private = any(part.startswith("_") and part[1] != "_" for part in symbol["name"].split("."))
        if is_public and not is_private and not (symbol["isTypeKnown"] and not symbol["isTypeAmbiguous"]):
            yield symbol["name"], [found["message"] for found in symbol["diagnostics"]]


if __name__ == "__main__":
    unknown = dict(unknown_types())
    for symbol, messages in unknown.items():
        print(symbol, *messages, sep="\n    ")
    print(f"{len(unknown)} public names, or members of them, are of unknown type.")
    sys.exit(bool(unknown))
