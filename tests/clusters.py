"""Clusters of Ray on this machine, whose hosts have few processes: each takes a second to start."""

import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

SMALL_HOST = {"include_log_monitor": False}
"""For hosts of clusters without a test that reads what workers print."""
SMALL_HEAD = {"num_cpus": 2, "include_dashboard": False, "no_monitor": True}
IDLE_AGENT = [sys.executable, "-I", "-S", str(Path(__file__).with_name("idle_agent.py"))]
FORKED_WORKERS = [sys.executable, "-I", "-S", str(Path(__file__).with_name("forked_workers.py"))]
AGENTS = {"--dashboard_agent_command": "metrics", "--runtime_env_agent_command": "runtime_env"}
"""The options of a raylet that have the commands of its agents, and what these agents are for."""


def start_cluster(*, has_metrics=False, **head):
    """Start a Ray whose head has few processes, and connect to it.

    Args:
        has_metrics: Whether its hosts have Ray's own agent, which serves metrics.
        head: Options of the head.
    """
    import ray
    from ray._private import services
    from ray.cluster_utils import Cluster

    folder = tempfile.TemporaryDirectory(prefix="hypernodes-ray-")
    address = f"{folder.name}/forks"
    forks = subprocess.Popen([sys.executable, FORKED_WORKERS[-1], "serve", address])

    # The raylets of earlier versions wait for what Ray's own agents tell them.
    takes_small_processes = tuple(map(int, ray.__version__.split(".")[:2])) >= (2, 60)

    def with_small_processes(argument):
        option, _, command = argument.partition("=")
        if not takes_small_processes:
            return argument
        if option == "--python_worker_command":
            return f"{option}={' '.join([*FORKED_WORKERS, 'ask', address, command])}"
        agent = AGENTS.get(option)
        if agent is None or (agent == "metrics" and has_metrics):
            return argument
        return f"{option}={' '.join([*IDLE_AGENT, agent, command])}"

    class SmallCluster(Cluster):
        """A cluster without the process of the dashboard, which is there even if the dashboard is not."""

        def add_node(self, *args, **options):
            start = services.start_ray_process

            def start_smaller(command, *rest, **given):
                return start([*map(with_small_processes, command)], *rest, **given)

            with (
                patch.object(services, "start_api_server", lambda *_, **__: ("", None)),
                patch.object(services, "start_ray_process", start_smaller),
            ):
                return super().add_node(*args, **options)

        def shutdown(self):
            super().shutdown()
            forks.terminate()
            forks.wait()
            folder.cleanup()

    cluster = SmallCluster(initialize_head=True, head_node_args={**SMALL_HEAD, **head})
    ray.init(address=cluster.address, logging_level="error", log_to_driver=False)
    return cluster
