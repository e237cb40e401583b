"""What the cluster has, and whether that is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hypernodes.exceptions import ResourcesError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ENOUGH: Final = 1e-9


def hosts() -> list[dict[str, float]]:
    """Return what each host of the cluster offers in all, by Ray's names."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def is_dead(node: str) -> bool:
    """Whether a host is known to be gone from the cluster."""
    import ray

    return any(each["NodeID"] == node and not each["Alive"] for each in ray.nodes())


def room(demand: Mapping[str, float], offers: list[dict[str, float]]) -> int:
    """Return how many calls that each ask for this fit at once.

    >>> room({"CPU": 2}, [{"CPU": 5}, {"CPU": 1}])
    2
    """
    if not demand:
        return sum(max(1, int(offer.get("CPU", 1))) for offer in offers)
    return sum(
        int(min((offer.get(name, 0) + _ENOUGH) // amount for name, amount in demand.items()))
        for offer in offers
    )


def check(demand: Mapping[str, float], offers: list[dict[str, float]]) -> None:
    """Refuse what would wait forever.

    Raises:
        ResourcesError: No host has that much.
    """
    if not room(demand, offers):
        raise shortage(demand, offers)


def shortage(demand: Mapping[str, float], offers: list[dict[str, float]]) -> ResourcesError:
    """Return the error that says what is asked for, and what there is."""
    asked = ", ".join(_amount(name, amount) for name, amount in demand.items())
    names = dict.fromkeys(("CPU", "GPU", *demand))
    most = ", ".join(_amount(name, max((o.get(name, 0) for o in offers), default=0)) for name in names)
    return ResourcesError(
        f"a call asks for {asked}, but no host of the cluster has that: of its {len(offers)} "
        f"host{'s' if len(offers) != 1 else ''}, the largest amounts on one are {most}. Ask for less, add a "
        f"host, or, on a cluster that grows when work waits, use RayExecutor(autoscaling=True)."
    )


def _amount(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / 2**30:.1f} GiB of memory"
    return f"{amount:g} {name}"
