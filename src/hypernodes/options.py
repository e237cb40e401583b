"""The options of a node: what `node(...)` takes beside the function and the names of its outputs.

A new option is a field here, with its check, and the code that obeys it. Nothing in between has to know it:
options travel as one object, and a plan whose option is not the default is executed by the general path until
a faster path declares that it supports the option (`hypernodes.execution.plan.needs`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias, TypedDict

from hypernodes.exceptions import GraphError, did_you_mean
from hypernodes.resources import Resources

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ErrorTypes: TypeAlias = type[BaseException] | tuple[type[BaseException], ...]


class NodeOptionValues(TypedDict, total=False):
    """The options as keywords of `node(...)`; see there for what they mean."""

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


_AMOUNTS = ("num_cpus", "num_gpus", "memory", "resources")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """How a node is executed and cached.

    Attributes:
        cache: Whether its results may be cached.
        cache_version: Counts in its signature, whatever its code.
        retries: How often it is called again when it raises one of `retry_on`.
        retry_on: The exception types that are worth another attempt.
        timeout: Seconds that a call may take.
        resources: What a call takes of a cluster.
        batch: The function for many items at once, with arrays for those parameters that vary.
    """

    cache: bool = True
    cache_version: str | int | None = None
    retries: int = 0
    retry_on: ErrorTypes = Exception
    timeout: float | None = None
    resources: Resources = Resources()  # noqa: RUF009  it is frozen
    batch: Callable[..., Any] | None = None

    @classmethod
    def of(cls, node: str, values: NodeOptionValues) -> Self:
        """Make options of the keywords of `node(...)`.

        Raises:
            GraphError: A value that the option does not take.
        """
        amounts: dict[str, Any] = {name: values[name] for name in _AMOUNTS if name in values}  # type: ignore[literal-required]
        others: dict[str, Any] = {name: value for name, value in values.items() if name not in _AMOUNTS}
        try:
            resources = Resources.of(**amounts)
        except ValueError as error:
            raise GraphError(f"node {node!r}: {error}.") from None
        return cls(resources=resources, **others)

    def check(self, node: str) -> None:
        """Refuse values that an option does not take.

        Raises:
            GraphError: It names the node and the option.
        """
        version = self.cache_version
        if version is not None and not (isinstance(version, str | int) and not isinstance(version, bool)):
            raise GraphError(f"node {node!r}: cache_version is a text or a number, not {version!r}.")
        if not isinstance(self.retries, int) or self.retries < 0:
            raise GraphError(f"node {node!r}: retries must be a number of 0 or more, not {self.retries!r}.")
        if self.timeout is not None and not (isinstance(self.timeout, int | float) and self.timeout > 0):
            raise GraphError(
                f"node {node!r}: timeout is a number of seconds above 0, or None, not {self.timeout!r}."
            )


DEFAULTS = NodeOptions()
"""What holds for a node that sets no option."""


def check_names(values: NodeOptionValues) -> None:
    """Refuse keywords of `node(...)` that are no options.

    Raises:
        TypeError: It names the keyword, as Python does, and those that are close to it.
    """
    known = NodeOptionValues.__annotations__
    for name in values:
        if name not in known:
            raise TypeError(
                f"node() got an unexpected keyword argument {name!r}.{did_you_mean(name, known)} "
                f"It takes output_name, {', '.join(known)}."
            )
