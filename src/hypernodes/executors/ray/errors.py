"""What Ray's errors mean to somebody who has submitted a call."""

from __future__ import annotations

from hypernodes.exceptions import ClusterConnectionError, ResourcesError, TransportError, WorkerDiedError
from hypernodes.executors.culprit import missing_module


def explained(error: BaseException, what: str) -> BaseException:
    """Return the error that says what has happened, and what to do.

    Args:
        error: What Ray has raised.
        what: What it means, if it is the death of a worker.
    """
    from ray import exceptions

    said = str(error).strip() or type(error).__name__
    known: BaseException
    if isinstance(error, exceptions.RuntimeEnvSetupError):
        known = ClusterConnectionError(f"the runtime_env could not be set up on the cluster: {said}")
    elif isinstance(error, exceptions.TaskUnschedulableError | exceptions.ActorUnschedulableError):
        known = ResourcesError(f"Ray cannot place the call: {said}")
    elif isinstance(error, exceptions.OutOfMemoryError):
        known = WorkerDiedError(
            f"{what}: its host ran out of memory, and Ray ended it. Ask for the memory that a call takes, "
            f"@node(memory=...), so that fewer run on one host, or for fewer at once (max_workers). {said}"
        )
    elif isinstance(error, exceptions.RayTaskError):
        known = TransportError(f"a Ray task could not hand over its work: {missing_module(said) or said}")
    elif isinstance(error, exceptions.RayError):
        known = WorkerDiedError(f"{what}: {said}")
    else:
        return error
    known.__cause__ = error
    return known
