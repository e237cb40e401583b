"""What workers on other hosts of a Ray cluster have written is in the remote tier when a run ends."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from hypernodes.cache.summary import describe

if TYPE_CHECKING:
    from collections.abc import Callable

_TIMEOUT_S: Final = 120.0
"""Workers write behind the run, so that there is little left at its end."""


def finish_on_other_hosts(cache: Any, warn: Callable[[str, str], None]) -> None:
    """Have each other host of the cluster write to the tier what its directory has."""
    if (ray := sys.modules.get("ray")) is None or not ray.is_initialized():
        return
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    own = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != own]
    if not others:
        return
    finish = ray.remote(_finish)
    try:
        sent = ray.put(cache)
        # Without a CPU, since all of them may be busy with what another run does.
        tasks = [
            finish.options(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            ).remote(sent)
            for node in others
        ]
        ray.get(tasks, timeout=_TIMEOUT_S)
    except Exception as error:
        warn(
            "remote hosts",
            f"cannot write all that other hosts have computed to its remote tier ({describe(error)}); the "
            "next run there does",
        )


def _finish(cache: Any) -> None:
    cache._store.get()
    cache.flush()
