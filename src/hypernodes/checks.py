"""Checks of the configuration of a pipeline, and of the options of its methods.

`where` is the pipeline, as messages name it: ``"pipeline 'p'"``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hypernodes.callbacks.base import HOOKS, PipelineCallback
from hypernodes.config import INHERIT, Cache, Inherit
from hypernodes.exceptions import GraphError, ImmutableError
from hypernodes.text import short

if TYPE_CHECKING:
    from hypernodes.engine import Engine

_COPYING_METHODS = ("engine", "cache", "callbacks", "name")


def check_engine(engine: Engine | None, where: str) -> Engine | None:
    """Return an engine.

    Raises:
        GraphError: It is not an engine.
    """
    # A class has the methods of its instances, too.
    is_engine = callable(getattr(engine, "run", None)) and hasattr(engine, "placement")
    if engine is not None and (isinstance(engine, type) or not is_engine):
        raise GraphError(
            f"{where}: engine={short(engine)} is not an engine. Give HyperNodesEngine(...), or leave it out."
        )
    return engine


def check_cache(cache: Cache | Inherit | None, where: str) -> Cache | Inherit | None:
    """Return a cache.

    Raises:
        GraphError: It is not a cache.
    """
    is_cache = cache is None or cache is INHERIT or isinstance(cache, Cache)
    if isinstance(cache, type) or not is_cache:
        raise GraphError(
            f"{where}: cache={short(cache)} is not a cache. Give DiskCache(path), or None to switch caching "
            f"off."
        )
    return cache


def check_callbacks(
    callbacks: Iterable[PipelineCallback] | Inherit | None, where: str
) -> tuple[PipelineCallback, ...] | Inherit:
    """Return callbacks as a tuple; `INHERIT` for ``None``.

    Raises:
        GraphError: They are not a list of callbacks, or one of them is a class.
    """
    if callbacks is None or isinstance(callbacks, Inherit):
        return INHERIT
    if not isinstance(callbacks, Iterable) or isinstance(callbacks, str | bytes | Mapping):
        raise GraphError(
            f"{where}: callbacks={short(callbacks)} is not a list. Give a list of callbacks: callbacks=[...]."
        )
    listed = tuple(callbacks)
    for position, callback in enumerate(listed):
        if isinstance(callback, type):
            raise GraphError(
                f"{where}: callbacks[{position}] is the class {callback.__name__}. Give an instance of it: "
                f"{callback.__name__}()."
            )
        if not isinstance(callback, PipelineCallback) and not all(
            callable(getattr(callback, hook, None)) for hook in HOOKS
        ):
            raise GraphError(
                f"{where}: callbacks[{position}] is {short(callback)}, which is no callback. Give an object "
                f"of a subclass of PipelineCallback."
            )
    return listed


def check_name(name: str | None) -> None:
    """Check the name of a pipeline.

    Raises:
        GraphError: It is not a text.
    """
    if name is not None and not isinstance(name, str):
        raise GraphError(f'a pipeline\'s name must be a text, not {short(name)}. Give name="...".')


def immutable_error(attribute: str, action: str, where: str) -> ImmutableError:
    """Return the error of code that tries to change a pipeline."""
    if attribute in _COPYING_METHODS:
        remedy = f"Use pipeline.with_{attribute}(...), which returns a copy."
    elif attribute == "bound":
        remedy = "Use pipeline.bind(...), which returns a copy."
    else:
        remedy = "Make another pipeline with Pipeline(...)."
    return ImmutableError(f"{where} is immutable: {attribute!r} cannot be {action}. {remedy}")
