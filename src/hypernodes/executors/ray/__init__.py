"""RayExecutor: a `concurrent.futures.Executor` whose workers are those of a Ray cluster.

executor ── the interface: submit, map, shutdown
dispatcher ─ makes Ray tasks of submissions, and settles their futures
queues ──── the tasks that are not done
submitter ─ makes a Ray task of a task
task ────── a call that was submitted
future ──── the future of a task, whose result stays in the cluster until it is asked for
objects ─── values in the object store
nesting ─── waits without holding CPUs, in a Ray worker
worker ──── the function that runs in a Ray worker
messages ── the request and the answer of a Ray task
errors ──── what errors of Ray mean for users
capacity ── the resources of the cluster
connection ─ connects this process to a cluster
"""

from hypernodes.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
