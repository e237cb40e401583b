"""The options of a node: the keywords of `node(...)` other than the names of the outputs.

To add an option, add a keyword to `NodeOptionValues`, a field with its check to `NodeOptions`, and the code
that obeys it. Nothing else needs to know the option: options are passed on as one object, and a node whose
option is not the default is executed by the general path until a faster path declares that it supports the
option (`hypernodes.execution.plan.needs`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypedDict

from hypernodes.arguments import error_of, flag, seconds, whole_number
from hypernodes.exceptions import GraphError, OptionError, did_you_mean
from hypernodes.resources import Resources
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class NodeOptionValues(TypedDict, total=False):
    """The options as keywords of `node(...)`, which describes them."""

    cache: bool
    cache_version: str | int | None
    retries: int
    retry_on: type[BaseException] | Iterable[type[BaseException]]
    timeout: float | timedelta | None
    num_cpus: float | None
    num_gpus: float | None
    memory: int | None
    resources: Mapping[str, float] | None
    batch: Callable[..., Any] | None


RESOURCE_OPTIONS: Final = ("num_cpus", "num_gpus", "memory", "resources")
"""The keywords that make up the field `NodeOptions.resources`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """How a node is executed and cached.

    Attributes:
        cache: Whether its results may be cached.
        cache_version: A part of its signature that the user sets.
        retries: How often a call is repeated when it raises one of `retry_on`.
        retry_on: The exception types that are retried.
        timeout: The seconds that one call may take; ``None`` for no limit.
        resources: The resources that one call takes on a cluster.
        batch: The function for several items, with an array for each parameter that varies.
    """

    cache: bool = True
    cache_version: str | int | None = None
    retries: int = 0
    retry_on: ErrorTypes = Exception
    timeout: float | None = None
    resources: Resources = field(default_factory=Resources)
    batch: Callable[..., Any] | None = None

    @classmethod
    def of(cls, node: str, values: NodeOptionValues) -> Self:
        """Make options of the keywords of `node(...)`.

        Args:
            node: The name of the node, for messages.
            values: The keywords.

        Raises:
            GraphError: It names the node, the option and its value.
        """
        amounts: dict[str, Any] = {name: value for name, value in values.items() if name in RESOURCE_OPTIONS}
        others: dict[str, Any] = {name: value for name, value in values.items() if name not in amounts}
        try:
            others["resources"] = Resources.of(**amounts)
        except OptionError as error:
            raise GraphError(f"node {node!r}: {error}") from None
        for name, (read, wanted) in _READERS.items():
            if name in others:
                try:
                    others[name] = read(others[name])
                except OptionError:
                    raise GraphError(f"node {node!r}: {name} {wanted.format(short(others[name]))}") from None
        return cls(**others)


def _version(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else whole_number("cache_version", value)


def _error_types(value: Any) -> ErrorTypes:
    """Return one exception type, or a tuple of those in any sequence or set of them."""
    kinds = value if isinstance(value, Iterable) and not isinstance(value, type) else (value,)
    listed = tuple(kinds)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in listed):
        raise error_of("retry_on", "exception types", value)
    return listed if kinds is value else listed[0]


_READERS: Final[dict[str, tuple[Callable[[Any], Any], str]]] = {
    "cache": (
        partial(flag, "cache"),
        "is True or False, not {}. The cache itself is an argument of Pipeline(...).",
    ),
    "cache_version": (_version, "is a text or a number, not {}."),
    "retries": (partial(whole_number, "retries", least=0), "must be a number of 0 or more, not {}."),
    "retry_on": (_error_types, "is an exception type or a tuple of them, not {}."),
    "timeout": (
        lambda value: None if value is None else seconds("timeout", value),
        "is a number of seconds above 0, a timedelta, or None, not {}.",
    ),
}
"""How each option is read, and what it is to be; the resources and the batch function are read elsewhere."""


DEFAULTS: Final = NodeOptions()
"""The options of a node that sets none."""


def check_option_names(values: NodeOptionValues) -> None:
    """Check that the keywords of `node(...)` are options.

    Raises:
        TypeError: It names the unknown keyword, as Python does, and similar options.
    """
    known = NodeOptionValues.__annotations__
    for name in values:
        if name not in known:
            raise TypeError(
                f"node() got an unexpected keyword argument {name!r}.{did_you_mean(name, known)} "
                f"It takes output_name, {', '.join(known)}."
            )
