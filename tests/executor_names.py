"""The names by which tests ask for executors. Workers import this module, so it needs nothing."""

ALIASES = ("sequential", "async", "threaded", "parallel", "ray")
INSTANCES = (
    "AsyncExecutor",
    "ThreadPoolExecutor",
    "ParallelExecutor",
    "RayExecutor",
    "loky",
    "dask",
)
