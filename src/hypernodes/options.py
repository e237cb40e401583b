"""The options of a node: the keywords of `node(...)` other than the names of the outputs.

To add an option, add a keyword to `NodeOptionValues`, a field with its check to `NodeOptions`, and the code
that obeys it. Nothing else needs to know the option: options are passed on as one object, and a node whose
option is not the default is executed by the general path until a faster path declares that it supports the
option (`hypernodes.execution.plan.needs`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
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
    readonly: bool
    retries: int
    retry_on: type[BaseException] | Iterable[type[BaseException]]
    retry_delay: float | timedelta | Sequence[float] | Callable[[int, Exception], float | None] | None
    max_concurrent: int | None
    rate: str | None
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
        readonly: Whether it promises to change none of its inputs in place.
        retries: How often a call is repeated when it raises one of `retry_on`.
        retry_on: The exception types that are retried.
        retry_delay: The seconds between two attempts: a number that grows, one number for each attempt, or a
            function of attempt and error; ``None`` for none.
        max_concurrent: How many calls of the node may be under way in a run; ``None`` for no limit.
        rate: How many calls of the node may begin in a second of a run; ``None`` for no limit.
        timeout: The seconds that one call may take; ``None`` for no limit.
        resources: The resources that one call takes on a cluster.
        batch: The function for several items, with an array for each parameter that varies.
    """

    cache: bool = True
    cache_version: str | int | None = None
    readonly: bool = False
    retries: int = 0
    retry_on: ErrorTypes = Exception
    retry_delay: float | tuple[float, ...] | Callable[..., Any] | None = None
    max_concurrent: int | None = None
    rate: float | None = None
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
        for name, partner in _PARTNERS.items():
            if values.get(name) is not None and partner not in values:
                raise GraphError(
                    f"node {node!r}: {name} has no effect without {partner}, since calls are not repeated. "
                    f"Give {partner}=..., or leave {name} out."
                )
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


def _delay(value: Any) -> Any:
    """Return a number of seconds, a tuple of them, or a function."""
    if value is None or callable(value):
        return value
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        delays = tuple(0.0 if one == 0 else seconds("retry_delay", one) for one in value)
        if delays:
            return delays
        raise error_of("retry_delay", "at least one number", value)
    return seconds("retry_delay", value)


_RATE: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(?:/|per)\s*(s|sec|second|m|min|minute|h|hour|d|day)\s*")
_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _per_second(value: Any) -> float | None:
    """Return a rate as calls per second.

    >>> _per_second("18/s"), _per_second("90 / min")
    (18.0, 1.5)
    """
    if value is None:
        return None
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    if found is None or not float(found[1]):
        raise error_of("rate", "a text such as '18/s' or '100/min'", value)
    return float(found[1]) / _SECONDS[found[2][0]]


_READERS: Final[dict[str, tuple[Callable[[Any], Any], str]]] = {
    "cache": (
        partial(flag, "cache"),
        "is True or False, not {}. The cache itself is an argument of Pipeline(...).",
    ),
    "cache_version": (_version, "is a text or a number, not {}."),
    "readonly": (partial(flag, "readonly"), "is True or False, not {}."),
    "retries": (partial(whole_number, "retries", least=0), "must be a number of 0 or more, not {}."),
    "retry_on": (_error_types, "is an exception type or a tuple of them, not {}."),
    "retry_delay": (
        _delay,
        "is a number of seconds above 0, a list of them, a function of attempt and error, or None, not {}.",
    ),
    "max_concurrent": (
        lambda value: None if value is None else whole_number("max_concurrent", value, least=1),
        "must be a number of 1 or more, or None, not {}.",
    ),
    "rate": (_per_second, "is a text such as '18/s', '100/min' or '1000/h', or None, not {}."),
    "timeout": (
        lambda value: None if value is None else seconds("timeout", value),
        "is a number of seconds above 0, a timedelta, or None, not {}.",
    ),
}
"""How each option is read, and what it is to be; the resources and the batch function are read elsewhere."""


_PARTNERS: Final = {"retry_on": "retries", "retry_delay": "retries"}
"""Options that say more about another one."""


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
