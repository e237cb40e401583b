"""Which Ray this process uses, and who stops it."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, Final

from hypernodes.exceptions import ClusterConnectionError
from hypernodes.serialization.pickling import register_out_of_band

_PROBE_TIMEOUT: Final = 5.0  # seconds; ray.init waits for minutes where nobody listens
_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\4" + bytes(5)  # as gRPC begins

_logger = logging.getLogger("hypernodes")
_lock = threading.Lock()
_users = 0
_started_here = False


def connect(address: str | None = None) -> bool:
    """Make sure that this process is connected; tell whether a Ray started here is used.

    Raises:
        ClusterConnectionError: Nothing answers at the address, or it does not let us in.
    """
    global _users, _started_here  # noqa: PLW0603
    _offer_token(address)
    import ray

    with _lock:
        if not ray.is_initialized():
            address = address or os.environ.get("RAY_ADDRESS")
            _init(address)
            _started_here = address in (None, "", "local")
            _users = 0
        register_out_of_band(ray.ObjectRef)
        register_out_of_band(ray.actor.ActorHandle)
        _users += _started_here
        return _started_here


def join(address: str | None, runtime_env: dict[str, Any] | None = None) -> None:
    """Connect this process to a cluster, for as long as it lives; without one, start a local Ray.

    Raises:
        ClusterConnectionError: Nothing answers at the address, or it does not let us in.
    """
    _offer_token(address)
    import ray

    with _lock:
        if not ray.is_initialized():
            _init(address or os.environ.get("RAY_ADDRESS"), runtime_env)


def disconnect() -> None:
    """Stop the Ray that was started here, if nobody else uses it."""
    global _users, _started_here  # noqa: PLW0603
    import ray

    with _lock:
        _users -= 1
        if _users == 0 and _started_here:
            _started_here = False
            ray.shutdown()


def session() -> str | None:
    """Return what tells this connection from an earlier or a later one; ``None`` where there is none."""
    import ray

    if not ray.is_initialized():
        return None
    job: str = ray.get_runtime_context().get_job_id()
    worker: str = ray.get_runtime_context().get_worker_id()
    return f"{job}-{worker}"


def uploaded(runtime_env: dict[str, Any] | None) -> dict[str, Any] | None:
    """Bring the directories that a runtime_env names to the cluster, as ray.init does for a whole job."""
    if not runtime_env or not runtime_env.keys() & {"working_dir", "py_modules"}:
        return runtime_env
    from ray._private.runtime_env.py_modules import upload_py_modules_if_needed
    from ray._private.runtime_env.working_dir import upload_working_dir_if_needed

    made = dict(runtime_env)
    with tempfile.TemporaryDirectory(prefix="hypernodes-") as scratch:
        for upload in (upload_py_modules_if_needed, upload_working_dir_if_needed):
            made = upload(made, include_gitignore=True, scratch_dir=scratch, logger=_logger)
    return made


def _init(address: str | None, runtime_env: dict[str, Any] | None = None) -> None:
    import ray

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
        raise ClusterConnectionError(_why_not(address, error)) from error


def _why_not(address: str | None, error: Exception) -> str:
    said = str(error).strip()
    where = f"the Ray cluster at {address!r}" if address else "a local Ray"
    if "ersion mismatch" in said:
        return (
            f"{where} runs another version of Ray or Python than this process. Both must be the same on both "
            f"sides, to the last number for Ray and to the minor version for Python. {said}"
        )
    if "oken" in said or "uthenticat" in said:
        return (
            f"{where} does not let this process in: {said} Clusters ask for a token by default: set "
            f"RAY_AUTH_MODE=token here, with the cluster's token in ~/.ray/auth_token, in the file that "
            f"RAY_AUTH_TOKEN_PATH names, or in RAY_AUTH_TOKEN."
        )
    token = (
        "The token here (RAY_AUTH_TOKEN, or ~/.ray/auth_token) may be another one than the cluster's."
        if os.environ.get("RAY_AUTH_MODE") == "token"
        else "If it asks for a token, as clusters do by default, put it into ~/.ray/auth_token here and "
        "set RAY_AUTH_MODE=token before Python starts."
    )
    return f"no connection to {where}: {said} {token}"


def _offer_token(address: str | None) -> None:
    """Have Ray use the token that is here: clusters ask for one by default, but Ray does not offer it.

    Ray reads this once, when it is imported; later it would only confuse what Ray starts.
    """
    if "ray" in sys.modules or not (address or os.environ.get("RAY_ADDRESS")):
        return
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named or Path("~/.ray/auth_token").expanduser().is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _probe(address: str) -> None:
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():
        raise ClusterConnectionError(
            f"{address!r} is no address of a Ray cluster. Give host:port, as `ray start --head` prints it, "
            f"ray://host:port for a remote client, or 'auto'."
        )
    try:
        with socket.create_connection((host, int(port)), timeout=_PROBE_TIMEOUT) as peer:
            peer.settimeout(_PROBE_TIMEOUT)
            peer.sendall(_GREETING)
            answer = peer.recv(4)
    except OSError as error:
        raise ClusterConnectionError(
            f"nothing answers at {address!r} ({error}). Start a cluster with `ray start --head`, correct the "
            f"address (RAY_ADDRESS, if none is given), or leave it out to use a local Ray."
        ) from error
    if answer[3:] != b"\4":  # whoever speaks gRPC answers with its settings; ray.init would wait forever
        raise ClusterConnectionError(
            f"what answers at {address!r} is no Ray cluster, or not its port for programs: that is the one"
            f"of `ray start --head --port`, 6379 by default, and not the dashboard's 8265."
        )
