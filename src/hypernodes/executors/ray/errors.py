"""Translates errors of Ray into errors that say what has happened to a call, and what to do."""

from __future__ import annotations

from hypernodes.exceptions import ClusterConnectionError, ResourcesError, TransportError, WorkerDiedError
from hypernodes.executors.unpicklable import missing_module_advice


def translate_error(error: BaseException, death_message: str) -> BaseException:
    """Return the error that users see in place of an error that Ray has raised."""
    from ray import exceptions

    message = str(error).strip() or type(error).__name__
    translated: BaseException
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        translated = ClusterConnectionError(f"the runtime_env could not be set up on the cluster: {message}")
    elif isinstance(error, exceptions.TaskUnschedulableError | exceptions.ActorUnschedulableError):
        translated = ResourcesError(f"Ray cannot place the call: {message}")
    elif isinstance(error, exceptions.OutOfMemoryError):
        translated = WorkerDiedError(
            f"{death_message}: its host ran out of memory, and Ray ended it. Ask for the memory that a call "
            f"takes, @node(memory=...), so that fewer run on one host, or for fewer at once (max_workers). "
            f"{message}"
        )
    elif isinstance(error, exceptions.RayTaskError):
        advice = missing_module_advice(message)
        translated = TransportError(f"a Ray task could not hand over its work: {advice or message}")
    elif isinstance(error, exceptions.RayError):
        translated = WorkerDiedError(f"{death_message}: {message}")
    else:
        return error
    translated.__cause__ = error
    return translated


def connection_lost() -> ClusterConnectionError:
    """Return the error of a call whose cluster this process is no longer connected to."""
    return ClusterConnectionError(
        "this process is no longer connected to the Ray cluster that its tasks were on: ray.shutdown() "
        "was called, or the connection or this host's raylet broke. Call ray.init() again, and then "
        "submit again."
    )
