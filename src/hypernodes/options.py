"""The options of a node: the keywords of `node(...)` other than the names of the outputs.

To add an option, add a keyword to `NodeOptionValues`, a field with its check to `NodeOptions`, and the code
that obeys it. Nothing else needs to know the option: options are passed on as one object, and a node whose
option is not the default is executed by the general path until a faster path declares that it supports the
option (`hypernodes.execution.plan.needs`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, TypedDict

from hypernodes.exceptions import GraphError, did_you_mean
from hypernodes.resources import Resources
from hypernodes.text import short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class NodeOptionValues(TypedDict, total=False):
    """The options as keywords of `node(...)`, which describes them."""

    cache: bool
    cache_version: str | int | None
    retries: int
    retry_on: ErrorTypes
    timeout: float | None
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
            GraphError: An amount of a resource is not valid.
        """
        amounts: dict[str, Any] = {name: value for name, value in values.items() if name in RESOURCE_OPTIONS}
        others: dict[str, Any] = {name: value for name, value in values.items() if name not in amounts}
        try:
            resources = Resources.of(**amounts)
        except ValueError as error:
            raise GraphError(f"node {node!r}: {error}.") from None
        return cls(resources=resources, **others)

    def check(self, node: str) -> None:
        """Check the values of the options.

        Args:
            node: The name of the node, for messages.

        Raises:
            GraphError: It names the node, the option and its value.
        """
        if not isinstance(self.cache, bool):
            raise GraphError(
                f"node {node!r}: cache is True or False, not {short(self.cache)}. The cache itself is an "
                f"argument of Pipeline(...)."
            )
        version = self.cache_version
        if version is not None and not (isinstance(version, str | int) and not isinstance(version, bool)):
            raise GraphError(f"node {node!r}: cache_version is a text or a number, not {short(version)}.")
        if not isinstance(self.retries, int) or self.retries < 0:
            raise GraphError(
                f"node {node!r}: retries must be a number of 0 or more, not {short(self.retries)}."
            )
        if not all(
            isinstance(kind, type) and issubclass(kind, BaseException) for kind in _as_tuple(self.retry_on)
        ):
            raise GraphError(
                f"node {node!r}: retry_on is an exception type or a tuple of them, not "
                f"{short(self.retry_on)}."
            )
        if self.timeout is not None and not (isinstance(self.timeout, int | float) and self.timeout > 0):
            raise GraphError(
                f"node {node!r}: timeout is a number of seconds above 0, or None, not {short(self.timeout)}."
            )


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


def _as_tuple(types: object) -> tuple[object, ...]:
    return types if isinstance(types, tuple) else (types,)
