"""RayExecutor: a `concurrent.futures.Executor` whose workers are those of a Ray cluster.

executor ── the interface: submit, map, shutdown
dispatcher ─ makes Ray tasks of submissions, and settles their futures
queues ──── the tasks that are not done, and how many the cluster has resources for
task ────── a call that was submitted, and how a Ray task is made of it
future ──── the future of a task, whose result stays in the cluster, and waits that hold no CPUs
objects ─── values in the object store
worker ──── the function that runs in a Ray worker, and its answer
connection ─ connects this process to a cluster, and says what errors of Ray mean for users
"""

from hypernodes.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
