"""``hypernodes submit``: run a pipeline as a job of a Ray cluster."""

from __future__ import annotations

import os
import re
import shlex
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hypernodes.cli.output import as_bytes
from hypernodes.cli.request import Request
from hypernodes.cli.run import FAILED_ITEMS, options_of_run

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

POLL_INTERVAL_S: Final = 0.5
"""Seconds between two requests for the status and the log of a job."""
SUBMIT_TIMEOUT_S: Final = 30.0
"""Seconds to repeat a submission: a cluster that is starting has a dashboard before it has an agent."""

LOCAL_PORTS: Final = (8299, 8265)
"""The ports of a dashboard on this machine: that of ``make cluster-up`` (cluster/local.sh), and Ray's own."""
PROBE_TIMEOUT_S: Final = 2.0
"""Seconds for a dashboard on this machine to accept a connection."""

LOG_END: Final = 2000
"""The characters of the log in which the job says whether items failed; Ray's own lines may follow."""
MAX_SHOWN_FILES: Final = 3
"""The largest files that are named if the working directory is too large to be uploaded."""
_TOO_LARGE: Final = re.compile(r"Package size \((.*?)\) exceeds the maximum size of ([\d.]+ ?[KMG]?i?B)")
_FAILED_ITEMS_LINE: Final = re.compile(r"^[\d,]+ items failed, [\d,]+ did not\.", re.MULTILINE)


@click.command()
@options_of_run
@click.option(
    "--address",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    show_envvar=True,
    help="The address of the dashboard of the cluster; by default that of a cluster on this machine.",
)
@click.option(
    "--working-dir",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="The directory that is uploaded, with the pipeline and input files.",
)
@click.option(
    "--runtime-env",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A YAML or JSON file with a runtime_env for the workers: pip, env_vars, ...",
)
@click.option("--no-wait", is_flag=True, help="Do not wait for the end of the job; print its id.")
@click.option(
    "--failed-exit-code",
    type=click.IntRange(0, 255),
    default=0,
    show_default=True,
    help="The exit code of the job if items failed. If it is not 0, Ray reports the job as FAILED.",
)
def submit(
    address: str | None, working_dir: Path, runtime_env: Path | None, *, no_wait: bool, **options: Any
) -> None:
    """Run PIPELINE as a job of a Ray cluster, with the options of `run`.

    \b
        hypernodes submit pipelines:clean --inputs texts.jsonl --keep id --out /shared/clean.parquet

    Files in the working directory are uploaded. The paths of outputs and of a cache are paths on the head of
    the cluster. The exit code is that of the job, or 3 if the job has succeeded and items failed.
    """  # noqa: D301  "\b" tells click not to wrap the paragraph
    common = {name: value for name, value in options.items() if name != "failed_exit_code"}
    Request(**common, executor="ray", address=None, working_dir=None, quiet=True).check()
    address = address or _local_dashboard()
    client = _client(address)
    environment = _runtime_env(runtime_env)
    environment.setdefault("working_dir", str(working_dir))
    entrypoint = _entrypoint(working_dir, options)
    try:
        job = _submit_job(client, entrypoint=entrypoint, runtime_env=environment)
    except (RuntimeError, ValueError, OSError) as error:
        raise click.ClickException(_rejection(str(error), Path(environment["working_dir"]))) from None
    click.echo(f"job {job} at {address}", err=True)
    if no_wait:
        click.echo(job)
        return
    sys.exit(_follow(client, job))


def _client(address: str) -> JobSubmissionClient:
    from ray.job_submission import JobSubmissionClient

    from hypernodes.executors.ray.connection import use_token

    use_token()

    if "://" not in address:
        raise click.UsageError(
            f"--address {address}: jobs are submitted to the dashboard of the cluster, http://host:8265, and "
            f"not to its GCS."
        )
    try:
        return JobSubmissionClient(address)
    except Exception as error:
        raise click.ClickException(
            f"no Ray cluster accepts jobs at {address}: {error} Check that its dashboard runs there, and "
            f"that ~/.ray/auth_token on this machine holds its token."
        ) from None


def _submit_job(client: JobSubmissionClient, **job: Any) -> str:
    """Submit a job and return its id; repeat the submission while the cluster is starting."""
    until = time.monotonic() + SUBMIT_TIMEOUT_S
    while True:
        try:
            return str(client.submit_job(**job))
        except RuntimeError as error:
            if "No available agent" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(POLL_INTERVAL_S)


def _rejection(message: str, working_dir: Path) -> str:
    """Say why a job was not accepted; if its working directory is too large, how to leave files out of it."""
    if (sizes := _TOO_LARGE.search(message)) is None:
        return f"the cluster rejected the job: {message}"
    files = (file for file in working_dir.rglob("*") if file.is_file() and not file.is_symlink())
    largest = sorted(((file.stat().st_size, file) for file in files), reverse=True)[:MAX_SHOWN_FILES]
    shown = ", ".join(f"{file.relative_to(working_dir)} ({as_bytes(size)})" for size, file in largest)
    return (
        f"the working directory {str(working_dir)!r} is too large to be uploaded: {sizes[1]}, packed, and "
        f"the cluster takes {sizes[2]}. Its largest files: {shown}. Leave files out: list them in "
        f"{str(working_dir / '.rayignore')!r}, as in a .gitignore, or "
        f"under `excludes` in the file of --runtime-env; or upload another directory with --working-dir. Put "
        f"large inputs where the cluster reads them, and name their absolute path."
    )


def _local_dashboard() -> str:
    """Return the address of the dashboard of a cluster on this machine."""
    own = os.environ.get("RAY_DASHBOARD_PORT", "")
    ports = (int(own),) if own.isdigit() else LOCAL_PORTS
    for port in ports:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=PROBE_TIMEOUT_S).close()
        except OSError:
            continue
        return f"http://127.0.0.1:{port}"
    raise click.ClickException(
        f"no cluster on this machine accepts jobs (tried 127.0.0.1, port {' and '.join(map(str, ports))}). "
        f"Start one with `make cluster-up`, or name a dashboard: --address http://host:8265."
    )


def _runtime_env(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if not isinstance(found, dict):
        raise click.ClickException(f"{path} holds no runtime_env, which is a mapping like {{'pip': [...]}}.")
    return found


def _entrypoint(working_dir: Path, options: dict[str, Any]) -> str:
    """Return the command line of the job, which runs in a copy of the working directory."""
    words = ["python", "-m", "hypernodes", "run", options["pipeline"], "--executor", "ray"]
    inputs: Path | None = options["inputs"]
    if inputs is not None:
        inside = inputs.resolve().is_relative_to(working_dir.resolve())
        words += [
            "--inputs",
            str(inputs.resolve().relative_to(working_dir.resolve()) if inside else inputs.resolve()),
        ]
    for option, value in (("--out", options["out"]), ("--cache", options["cache"])):
        if value is not None:
            words += [option, str(value.absolute())]
    if options["remote"] is not None:
        words += ["--remote", options["remote"]]
    for option, values in (
        ("--set", options["given"]),
        ("--file", options["files"]),
        ("--map-over", options["map_over"]),
        ("--keep", options["keep"]),
        ("--output", options["wanted"]),
    ):
        for value in values:
            words += [option, value]
    words += ["--map-mode", options["map_mode"], "--on-error", options["on_error"]]
    words += ["--failed-exit-code", str(options["failed_exit_code"])]
    if options["max_workers"] is not None:
        words += ["--max-workers", str(options["max_workers"])]
    return shlex.join(words)


def _follow(client: JobSubmissionClient, job: str) -> int:
    """Print the log of a job while it runs, and return its exit code."""
    shown = 0
    try:
        while True:
            has_ended = client.get_job_status(job).is_terminal()
            log = client.get_job_logs(job)
            click.echo(log[shown:], nl=False)
            shown = len(log)
            if has_ended:
                break
            time.sleep(POLL_INTERVAL_S)
    except KeyboardInterrupt:
        client.stop_job(job)
        click.echo(f"job {job} was stopped", err=True)
        return 130
    info = client.get_job_info(job)
    if info.status == "SUCCEEDED":
        return FAILED_ITEMS if _FAILED_ITEMS_LINE.search(log[-LOG_END:]) else 0
    # The message has the end of the log, which was shown above.
    message = str(info.message).partition(", last available logs")[0].rstrip(".")
    click.echo(f"job {job} {info.status.lower()}: {message}.", err=True)
    return int(info.driver_exit_code) if info.driver_exit_code is not None else 1
