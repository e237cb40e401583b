"""The resources of the cluster, and how many calls they are enough for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hypernodes.exceptions import ResourcesError

ROUNDING_ERROR: Final = 1e-9
"""By how much a sum of fractions of a resource may miss the amount, in units of the resource."""


def host_resources() -> list[dict[str, float]]:
    """Return the total resources of each host that is alive, by Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def is_dead(node_id: str) -> bool:
    """Whether Ray has declared a host dead."""
    import ray

    return any(node["NodeID"] == node_id and not node["Alive"] for node in ray.nodes())


def count_slots(demand: Mapping[str, float], hosts: list[dict[str, float]]) -> int:
    """Return how many calls that each take these resources can run at once.

    >>> count_slots({"CPU": 2}, [{"CPU": 5}, {"CPU": 1}])
    2
    """
    if not demand:
        return sum(max(1, int(host.get("CPU", 1))) for host in hosts)
    return sum(
        int(min((host.get(name, 0) + ROUNDING_ERROR) // amount for name, amount in demand.items()))
        for host in hosts
    )


def insufficient(demand: Mapping[str, float], hosts: list[dict[str, float]]) -> ResourcesError:
    """Return the error that says what a call asks for, and what the hosts have."""
    asked = ", ".join(_amount(name, amount) for name, amount in demand.items())
    names = dict.fromkeys(("CPU", "GPU", *demand))
    largest = ", ".join(_amount(name, max((h.get(name, 0) for h in hosts), default=0)) for name in names)
    return ResourcesError(
        f"a call asks for {asked}, but no host of the cluster has that: of its {len(hosts)} "
        f"host{'s' if len(hosts) != 1 else ''}, the largest amounts on one are {largest}. Ask for less, add "
        f"a host, or, on a cluster that grows when work waits, use RayExecutor(autoscaling=True)."
    )


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of memory"
    return f"{amount:g} {name}"
