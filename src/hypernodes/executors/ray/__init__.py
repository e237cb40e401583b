"""RayExecutor: a `concurrent.futures.Executor` whose workers are those of a Ray cluster.

executor ── what users call: submit, map, shutdown
dispatcher ─ what waits here, what is on the cluster, how it ends
future ──── results that stay in the cluster until somebody asks for them
worker ──── the other end: unpack, call, pack
connection ─ which Ray, and whose
capacity ── what the cluster has, and whether that is enough
"""

from hypernodes.executors.ray.executor import RayExecutor

__all__ = ["RayExecutor"]
