"""The pipeline that a command line names: ``module:name`` or ``file.py:name``."""

from __future__ import annotations

import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import click

from hypernodes.exceptions import did_you_mean, listing
from hypernodes.nested import NestedPipeline
from hypernodes.node import Node
from hypernodes.pipeline import Pipeline
from hypernodes.text import described


def load(place: str, *, debug: bool = False) -> Pipeline:
    """Import the pipeline at ``module:name`` or ``file.py:name``. A function is called to make it."""
    module_name, colon, name = place.rpartition(":")
    if not colon or not name or not module_name or module_name.startswith("."):
        raise click.UsageError(
            f"{place!r} is not the place of a pipeline. Write module:name, or file.py:name."
        )
    module = _module(module_name, debug=debug)
    pipelines = [key for key, value in vars(module).items() if isinstance(value, Pipeline)]
    if (found := getattr(module, name, None)) is None:
        raise click.ClickException(
            f"module {module.__name__!r} has no {name!r}. Its pipelines: {listing(pipelines)}."
            f"{did_you_mean(name, pipelines)}"
        )
    if isinstance(found, Node | NestedPipeline):
        raise click.ClickException(
            f"{place!r} is a node, not a pipeline. Make a pipeline of it: Pipeline([{name}])."
        )
    if isinstance(found, FunctionType):
        found = _made_by(found, place, debug=debug)
    if not isinstance(found, Pipeline):
        raise click.ClickException(
            f"{place!r} is of type {type(found).__name__}, not Pipeline. Name a pipeline, or a function that "
            f"makes one. The pipelines of the module: {listing(pipelines)}."
        )
    return found


def _module(name: str, *, debug: bool) -> ModuleType:
    directory = str(Path.cwd())
    if directory not in sys.path:
        sys.path.insert(0, directory)
    file = None
    if name.endswith(".py"):
        file = Path(name).resolve()
        if not file.is_file():
            raise click.ClickException(f"the file {name!r} does not exist.")
        sys.path.insert(0, str(file.parent))
        name = file.stem
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = f"it needs {error.name!r}, which" if error.name != name else "it"
        raise click.ClickException(
            f"{name!r} cannot be imported: {missing} is neither installed nor in {directory}."
        ) from None
    except SyntaxError as error:
        raise click.ClickException(
            f"{error.filename or name}, line {error.lineno or 0}: {error.msg}."
        ) from None
    except (Exception, SystemExit) as error:
        raise _failure(f"{name!r} cannot be imported", error, debug=debug) from None
    if file is not None and Path(module.__file__ or "").resolve() != file:
        raise click.ClickException(
            f"the file {str(file)!r} cannot be imported, since {module.__file__ or 'a module of Python'} has "
            f"its name. Rename the file."
        )
    return module


def _made_by(function: FunctionType, place: str, *, debug: bool) -> Any:
    """Call the function that makes the pipeline. Others are not called: they may do anything."""
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise click.ClickException(f"{place!r} is an async or a generator function. Name a pipeline.")
    try:
        inspect.signature(function).bind()
    except TypeError:
        raise click.ClickException(
            f"{place!r} is a function that takes arguments: {function.__name__}"
            f"{inspect.signature(function)}. Name a pipeline, or a function without arguments that makes one."
        ) from None
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise _failure(f"{place!r} has made no pipeline", error, debug=debug) from None


def _failure(what: str, error: BaseException, *, debug: bool) -> click.ClickException:
    if debug:
        traceback.print_exception(error)
    where = ""
    if (frames := traceback.extract_tb(error.__traceback__)) and not debug:
        where = f" ({frames[-1].filename}, line {frames[-1].lineno}; --debug shows the traceback)"
    return click.ClickException(f"{what}: {described(error)}{where}")
