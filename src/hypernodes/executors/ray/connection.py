"""Connects this process to a Ray cluster, or starts a local Ray, and says what errors of Ray mean."""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hypernodes._compat.ray import (
    is_authentication_failure,
    is_client,
    is_version_mismatch,
    rejects_token,
    sends_token,
    upload_directories,
)
from hypernodes.exceptions import (
    ClusterConnectionError,
    ForkedProcessError,
    ObjectStoreFullError,
    ResourcesError,
    TransportError,
    WorkerDiedError,
)
from hypernodes.executors.unpicklable import missing_module_advice
from hypernodes.serialization.pickling import register_out_of_band

PROBE_TIMEOUT_S: Final = 5.0
"""Seconds for the cluster to answer. Without this check, `ray.init` waits for minutes for no server."""

_GRPC_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)

_logger = logging.getLogger("hypernodes")


@dataclass(slots=True)
class _LocalRay:
    """The local Ray that `connect` has started."""

    is_running: bool = False
    users: int = 0  # the executors that use it
    lock: threading.Lock = field(default_factory=threading.Lock)  # guards all connecting and disconnecting
    connection_of_parent: str | None = None  # that of the process which has forked this one

    def begin(self) -> None:
        """Begin in a forked child."""
        self.is_running, self.lock = False, threading.Lock()
        self.connection_of_parent = connection_id() if "ray" in sys.modules else None


_local_ray = _LocalRay()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_local_ray.begin)


def connect(address: str | None = None) -> bool:
    """Connect this process to a cluster if it is not connected, and return whether a local Ray is used.

    Without an address, and without ``RAY_ADDRESS``, a local Ray is started. The caller must call
    `disconnect` for each use of it.
    """
    import ray

    with _local_ray.lock:
        _check_process()
        if not ray.is_initialized():
            address = address or os.environ.get("RAY_ADDRESS")
            _init(address)
            _local_ray.is_running = address in (None, "", "local")
            _local_ray.users = 0
        else:
            _check_address(address)
        register_out_of_band(ray.ObjectRef)
        register_out_of_band(ray.actor.ActorHandle)
        _local_ray.users += _local_ray.is_running
        return _local_ray.is_running


def join(address: str | None, runtime_env: dict[str, Any] | None = None) -> None:
    """Connect this process to a cluster until it ends; without an address, start a local Ray."""
    import ray

    with _local_ray.lock:
        _check_process()
        if not ray.is_initialized():
            _init(address or os.environ.get("RAY_ADDRESS"), runtime_env)
        else:
            _check_address(address)


def disconnect() -> None:
    """Stop the local Ray that `connect` has started, if it has no other users."""
    import ray

    with _local_ray.lock:
        _local_ray.users -= 1
        if _local_ray.users == 0 and _local_ray.is_running:
            _local_ray.is_running = False
            ray.shutdown()


def connection_id() -> str | None:
    """Return a name of this connection to a cluster, or ``None`` if this process is not connected."""
    import ray

    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    return f"{context.get_job_id()}-{context.get_worker_id()}"


def _check_address(address: str | None) -> None:
    """Raise an error if an address is not that of the cluster to which this process is connected.

    Hosts have several names, so that only the port tells one cluster from another.
    """
    import ray

    port = (address or "").rpartition(":")[2]
    current: str = "" if is_client() else ray.get_runtime_context().gcs_address
    if port.isdigit() and "://" not in str(address) and current and current.rpartition(":")[2] != port:
        raise ClusterConnectionError(
            f"this process is connected to the Ray cluster at {current!r}, and cannot use that at "
            f"{address!r} as well. Leave out the address, or call ray.shutdown() before."
        )


def _check_process() -> None:
    if _local_ray.connection_of_parent is not None and connection_id() == _local_ray.connection_of_parent:
        raise ForkedProcessError(
            "this process was forked (os.fork, multiprocessing's 'fork') by one that is connected to Ray, "
            "and the threads of the connection are there. Start processes by 'spawn', connect only after "
            "the fork (gunicorn without --preload), or use another executor here."
        )


def upload_runtime_env(runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
    """Upload the directories that a ``runtime_env`` names to the cluster, as `ray.init` does for a job."""
    if not runtime_env or not runtime_env.keys() & {"working_dir", "py_modules"}:
        return runtime_env
    if is_client():
        raise ClusterConnectionError(
            "the runtime_env of an executor has a working_dir or py_modules, and this process is connected "
            "by Ray Client, which uploads directories only when it connects. Give them to "
            "ray.init('ray://...', runtime_env={'working_dir': ...}), before the executor is used."
        )
    return upload_directories(runtime_env, _logger)


def _init(address: str | None, runtime_env: dict[str, Any] | None = None) -> None:
    import ray

    if address not in (None, "", "local"):
        use_token()
    if address and address not in ("auto", "local"):
        _probe(address)
    options: dict[str, Any] = {"address": address or "local", "logging_level": "error"}
    if not address:
        options["include_dashboard"] = False
    if runtime_env is not None:
        options["runtime_env"] = runtime_env
    try:
        ray.init(**options)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        raise ClusterConnectionError(_describe_failure(address, error)) from error


def _describe_failure(address: str | None, error: Exception) -> str:
    message = str(error).strip()
    target = f"the Ray cluster at {address!r}" if address else "a local Ray"
    if is_version_mismatch(message):
        return (
            f"{target} runs another version of Ray or Python than this process. Both must be the same on "
            f"both sides, to the last number for Ray and to the minor version for Python. {message}"
        )
    if is_authentication_failure(message):
        return f"{target} does not let this process in: {message} {_token_advice()}"
    return f"no connection to {target}: {message}"


def use_token() -> None:
    """Have Ray send the token that is on this machine: clusters ask for one by default."""
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        sends_token()


def _has_token() -> bool:
    is_named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    return bool(is_named) or Path("~/.ray/auth_token").expanduser().is_file()


def _token_advice() -> str:
    """Say why a cluster that asks for a token does not let this process in."""
    if not _has_token():
        return (
            "It asks for a token, as clusters do by default, and there is none here. Put the cluster's into "
            "~/.ray/auth_token, into the file that RAY_AUTH_TOKEN_PATH names, or into RAY_AUTH_TOKEN."
        )
    if not sends_token():
        mode = os.environ.get("RAY_AUTH_MODE")
        return (
            f"It asks for a token, and Ray does not send the one that is here: RAY_AUTH_MODE is {mode!r}. "
            f"Set RAY_AUTH_MODE=token before Python starts."
        )
    return (
        "The token here (RAY_AUTH_TOKEN, the file that RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token) is "
        "another one than the cluster's."
    )


def _probe(address: str) -> None:
    """Raise an error at once where `ray.init` would wait before it does."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        raise ClusterConnectionError(
            f"{address!r} is no address of a Ray cluster. Give host:port, as `ray start --head` prints it, "
            f"ray://host:port for a remote client, or 'auto'."
        )
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S) as peer:
            peer.settimeout(PROBE_TIMEOUT_S)
            peer.sendall(_GRPC_PREFACE)
            answer = peer.recv(4)
    except OSError as error:
        raise ClusterConnectionError(
            f"nothing answers at {address!r} ({error}). Start a cluster with `ray start --head`, correct the "
            f"address (RAY_ADDRESS, if none is given), or leave it out to use a local Ray."
        ) from error
    if answer[3:] != b"\4":  # A gRPC server answers so. For others, ray.init waits forever.
        raise ClusterConnectionError(
            f"what answers at {address!r} is no Ray cluster, or not its port for programs: that is the one "
            f"of `ray start --head --port`, 6379 by default, and not the dashboard's 8265."
        )
    if not address.startswith("ray://") and rejects_token(address, PROBE_TIMEOUT_S):
        target = f"the Ray cluster at {address!r}"
        raise ClusterConnectionError(f"{target} does not let this process in. {_token_advice()}")


def translate_error(error: BaseException, death_message: str) -> BaseException:
    """Return the error that users see in place of an error that Ray has raised."""
    from ray import exceptions

    message = str(error).strip() or type(error).__name__
    translated: BaseException
    # An error within a Ray task, but outside of the call, is the cause of the error that arrives.
    cause = error.cause if isinstance(error, exceptions.RayTaskError) else error
    if isinstance(cause, exceptions.ObjectStoreFullError | exceptions.OutOfDiskError):
        translated = ObjectStoreFullError(
            "Ray has no room for a value: its object store is full, and so is the disk to which it spills. "
            "Let fewer calls run at once (max_workers), return or take smaller values, give Ray a "
            f"larger object_store_memory, or free its disk. {cause}"
        )
    elif isinstance(error, exceptions.RuntimeEnvSetupError):
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
