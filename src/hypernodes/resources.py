"""The resources that one call of a node takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hypernodes.arguments import amount, error_of, text


@dataclass(frozen=True, slots=True)
class Resources:
    """The resources that one call takes; ``None`` means the default of the executor.

    Attributes:
        num_cpus: The number of CPUs; may be a fraction.
        num_gpus: The number of GPUs; may be a fraction.
        memory: Bytes of memory.
        custom: Pairs of a custom resource of the cluster and its amount, sorted by name.
    """

    num_cpus: float | None = None
    num_gpus: float | None = None
    memory: int | None = None
    custom: tuple[tuple[str, float], ...] = ()

    @classmethod
    def of(
        cls,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        memory: int | None = None,
        resources: Mapping[str, float] | None = None,
    ) -> Resources:
        """Make resources of checked amounts.

        Args:
            num_cpus: The number of CPUs.
            num_gpus: The number of GPUs.
            memory: Bytes of memory.
            resources: Amounts of custom resources, by name.

        Raises:
            OptionError: An amount is negative or not a number.

        Example:
            >>> Resources.of(num_gpus=1, resources={"tpu": 4}).demand
            {'GPU': 1, 'tpu': 4}
        """
        if not isinstance(resources, Mapping | None):
            raise error_of("resources", "a mapping of names to amounts, as in {'tpu': 1}", resources)
        custom = [
            (text("a name of resources", name), amount(name, number))
            for name, number in (resources or {}).items()
        ]
        return cls(
            None if num_cpus is None else amount("num_cpus", num_cpus),
            None if num_gpus is None else amount("num_gpus", num_gpus),
            None if memory is None else int(amount("memory", memory)),
            tuple(sorted(custom)),
        )

    def with_defaults(self, other: Resources) -> Resources:
        """Return a copy whose missing amounts are taken from other resources."""
        return Resources(
            other.num_cpus if self.num_cpus is None else self.num_cpus,
            other.num_gpus if self.num_gpus is None else self.num_gpus,
            other.memory if self.memory is None else self.memory,
            tuple(sorted({**dict(other.custom), **dict(self.custom)}.items())),
        )

    def maximum(self, other: Resources) -> Resources:
        """Return the larger amount of each resource: enough for two calls, one after the other."""
        own, others = dict(self.custom), dict(other.custom)
        return Resources(
            _larger(self.num_cpus, other.num_cpus),
            _larger(self.num_gpus, other.num_gpus),
            None if (memory := _larger(self.memory, other.memory)) is None else int(memory),
            tuple(sorted((name, max(own.get(name, 0), others.get(name, 0))) for name in {**own, **others})),
        )

    @property
    def demand(self) -> dict[str, float]:
        """The amounts that are not 0, by the names that Ray uses."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory, **dict(self.custom)}
        return {name: amount for name, amount in amounts.items() if amount}

    @property
    def is_scarce(self) -> bool:
        """Whether a GPU or a custom resource is among them.

        Calls that wait for such a resource are not put into a chunk with others, which would wait with them.
        """
        return bool(self.num_gpus or any(amount for _, amount in self.custom))


def _larger(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else max(one, other)
