"""What one call takes of a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Resources:
    """What one call takes of a cluster; ``None`` is whatever the executor takes for each call.

    Attributes:
        num_cpus: CPUs.
        num_gpus: GPUs.
        memory: Bytes of memory.
        custom: Resources of the cluster's own, by name.
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
        """Check amounts, and take them together.

        Raises:
            ValueError: An amount below 0, or one that is no number.

        Example:
            >>> Resources.of(num_gpus=1, resources={"tpu": 4}).demand
            {'GPU': 1, 'tpu': 4}
        """
        amounts = {"num_cpus": num_cpus, "num_gpus": num_gpus, "memory": memory, **(resources or {})}
        for name, amount in amounts.items():
            if amount is not None and (
                not isinstance(amount, int | float) or isinstance(amount, bool) or not amount >= 0
            ):
                raise ValueError(f"{name} must be a number of 0 or more, not {amount!r}")
        return cls(num_cpus, num_gpus, memory, tuple(sorted((resources or {}).items())))

    def over(self, other: Resources) -> Resources:
        """Return these, with what they leave open taken from others."""
        return Resources(
            other.num_cpus if self.num_cpus is None else self.num_cpus,
            other.num_gpus if self.num_gpus is None else self.num_gpus,
            other.memory if self.memory is None else self.memory,
            tuple(sorted({**dict(other.custom), **dict(self.custom)}.items())),
        )

    def with_most_of(self, other: Resources) -> Resources:
        """Return what suffices for either, one after the other."""
        mine, others = dict(self.custom), dict(other.custom)
        return Resources(
            _most(self.num_cpus, other.num_cpus),
            _most(self.num_gpus, other.num_gpus),
            None if (most := _most(self.memory, other.memory)) is None else int(most),
            tuple(sorted((name, max(mine.get(name, 0), others.get(name, 0))) for name in {**mine, **others})),
        )

    @property
    def demand(self) -> dict[str, float]:
        """The amounts that are not 0, by Ray's names."""
        amounts = {"CPU": self.num_cpus, "GPU": self.num_gpus, "memory": self.memory, **dict(self.custom)}
        return {name: amount for name, amount in amounts.items() if amount}

    @property
    def is_scarce(self) -> bool:
        """Whether they name more than CPUs and memory, so that whatever waits for them should wait alone."""
        return bool(self.num_gpus or any(amount for _, amount in self.custom))


def _most(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else max(one, other)
