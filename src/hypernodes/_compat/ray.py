"""What `RayExecutor` relies on in Ray 2.60 beyond its documented interface."""

from __future__ import annotations

import contextlib
import tempfile
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import logging
    from collections.abc import Sequence

    from ray import ObjectRef


def attempt_number() -> int:
    """Return how often Ray has begun the current task before, in a Ray worker.

    Why: Ray retries a task whose worker has died, and callbacks report each retry. The public runtime context
    does not have the number.
    When ``get_current_task_attempt_number`` is gone: look for it in `ray.get_runtime_context`; without it,
    retries are not reported, and this function returns 0.
    """
    from ray._private.worker import global_worker

    count = getattr(global_worker.core_worker, "get_current_task_attempt_number", None)
    return 0 if count is None else int(count())


def is_worker_process() -> bool:
    """Whether Ray has started this process as a worker, for a task or an actor.

    Why: such a process holds CPUs while it waits, and a driver does not. The public runtime context has the
    ids of the job and of the task, but drivers have both, too.
    When ``RuntimeContext.worker`` or ``ray.WORKER_MODE`` is gone: look in `ray.get_runtime_context` for the
    type of the worker.
    """
    import ray

    return bool(ray.get_runtime_context().worker.mode == ray.WORKER_MODE)


def is_client() -> bool:
    """Whether this process is connected by Ray Client: ``ray.init("ray://...")``.

    Why: Ray runs the calls of such a process on the host of its server, and its public API does not say so.
    When ``ray.util.client.ray`` is gone: Ray Client is gone, and this function returns False.
    """
    import ray

    client = getattr(getattr(ray.util, "client", None), "ray", None)
    return client is not None and bool(client.is_connected())


def upload_directories(runtime_env: dict[str, Any], logger: logging.Logger) -> dict[str, Any]:
    """Upload the directories that a ``runtime_env`` names, and return it with the URIs of the uploads.

    Why: `ray.init` uploads ``working_dir`` and ``py_modules`` for a whole job. In the ``runtime_env`` of one
    task, Ray takes URIs only.
    When either function is gone: raise an error for the two keys here, and have users give them to
    `ray.init`.
    """
    from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
    from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

    uploaded = dict(runtime_env)
    with tempfile.TemporaryDirectory(prefix="hypernodes-") as scratch:
        for upload in (upload_py_modules_if_needed, upload_working_dir_if_needed):
            uploaded = upload(uploaded, include_gitignore=True, scratch_dir=scratch, logger=logger)
    return uploaded


def is_version_mismatch(message: str) -> bool:
    """Whether the message of an error of `ray.init` says that the cluster's version differs.

    Why: `ray.init` raises a RuntimeError for this and for much else, so that only the text identifies it.
    When the text has changed: change the words here. Until then users see Ray's own text.
    """
    return "ersion mismatch" in message


def is_authentication_failure(message: str) -> bool:
    """Whether the message of an error of `ray.init` says that the cluster asks for another token.

    Why: `ray.init` raises errors of several classes for this, so that only the text identifies it.
    When the text has changed: change the words here. Until then users see Ray's own text.
    """
    return "oken" in message or "uthenticat" in message


def sends_token() -> bool:
    """Have Ray read ``RAY_AUTH_MODE`` again, and return whether it sends a token to clusters.

    Why: Ray reads the setting once, when it is imported, which a program often does before it knows of a
    cluster. Ray itself reads it again in this way where it finds a token for a local cluster.
    When ``Config.initialize`` or ``get_authentication_mode`` is gone: look in
    ``ray/_private/authentication/authentication_token_setup.py`` for what has replaced it. Without it, this
    function returns ``False``, and programs must set the variable before they import Ray.
    """
    raylet: Any = import_module("ray._raylet")
    try:
        raylet.Config.initialize("")
        return bool(raylet.get_authentication_mode() == raylet.AuthenticationMode.TOKEN)
    except AttributeError:
        return False


def rejects_token(address: str, timeout: float) -> bool:
    """Whether the cluster at an address does not let this process in.

    Why: `ray.init` tries for 20 seconds, logs a warning in each, and then names no cause. The service that
    it asks first answers at once.
    When the service has another name, or there is no ``grpc``: this function returns ``False``, and users see
    the error of `ray.init` after its 20 seconds.
    """
    try:
        grpc: Any = import_module("grpc")
        loader: Any = import_module("ray._raylet").AuthenticationTokenLoader.instance()
        token = loader.get_raw_token(ignore_auth_mode=True) if sends_token() else ""
    except (ImportError, AttributeError):
        return False
    metadata = [("authorization", f"Bearer {token}")] if token else None
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            check(b"", timeout=timeout, metadata=metadata)
        except grpc.RpcError as error:
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def add_mark(key: str) -> int:
    """Count one more mark under a key that all processes of the cluster see, and return how many there were.

    Why: Daft does not tell a process that the rows which it gets have ended an earlier process. To start an
    actor for that would take a second for each query.
    When ``ray.experimental.internal_kv`` is gone: this function returns 0, and `DaftEngine(runner="ray")`
    hangs on an item that ends its process.
    """
    store = _key_value_store()
    if store is None:
        return 0
    marks = int(store._internal_kv_get(key, namespace=_MARKS) or 0)
    store._internal_kv_put(key, str(marks + 1), namespace=_MARKS)
    return marks


def remove_marks(prefix: str) -> None:
    """Remove the marks under all keys that begin with a prefix.

    Why and when: as with `add_mark`.
    """
    if (store := _key_value_store()) is not None:
        store._internal_kv_del(prefix, del_by_prefix=True, namespace=_MARKS)


_MARKS: Final = "hypernodes marks"


def _key_value_store() -> Any:
    try:
        store: Any = import_module("ray.experimental.internal_kv")
        return store if store._internal_kv_initialized() else None
    except (ImportError, AttributeError):
        return None


CANCEL_GRACE_S: Final = 0.2
"""Seconds that tasks which may be about to end have before `kill_tasks` ends their processes."""


def kill_tasks(refs: Sequence[ObjectRef[Any]], seconds: float = CANCEL_GRACE_S) -> None:
    """Kill the processes of running tasks, except for those that end within so many seconds.

    Why: Ray 2.60 aborts this process ("Tried to complete task that was not pending") if a task is cancelled
    while its reply is received. Tasks that fail for one reason end together, and the first one ends the run.
    When Ray has corrected this: call `ray.cancel` for each task at once.
    """
    import ray

    if refs := list(refs):
        _, running = ray.wait(refs, num_returns=len(refs), timeout=seconds, fetch_local=False)
        for ref in running:
            ray.cancel(ref, force=True)


def discard_error(ref: ObjectRef[Any]) -> None:
    """Mark the error of a result as seen.

    Why: when a task fails, each of its results has the error. Ray logs an error that was never read.
    When Ray no longer logs such errors: remove this function.
    """
    import ray

    with contextlib.suppress(Exception):
        ray.get(ref, timeout=0)
