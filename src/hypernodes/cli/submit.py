"""``hypernodes submit``: run a pipeline as a job of a Ray cluster."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from hypernodes.cli.run import options_of_run

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

POLL_INTERVAL_S: Final = 0.5
"""Seconds between two requests for the status and the log of a job."""
SUBMIT_TIMEOUT_S: Final = 30.0
"""Seconds to repeat a submission: a cluster that is starting has a dashboard before it has an agent."""

DEFAULT_DASHBOARD: Final = "http://127.0.0.1:8265"


@click.command()
@options_of_run
@click.option(
    "--address",
    envvar=["RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"],
    default=DEFAULT_DASHBOARD,
    show_default=True,
    show_envvar=True,
    help="The address of the dashboard of the cluster.",
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
def submit(
    address: str, working_dir: Path, runtime_env: Path | None, *, no_wait: bool, **options: Any
) -> None:
    """Run PIPELINE as a job of a Ray cluster, with the options of `run`.

    \b
        hypernodes submit pipelines:clean --inputs texts.jsonl --map-over text --out /shared/clean.parquet

    Files in the working directory are uploaded. The paths of outputs and of a cache are paths on the head of
    the cluster. The exit code is that of the job.
    """  # noqa: D301  "\b" tells click not to wrap the paragraph
    client = _client(address)
    environment = _runtime_env(runtime_env)
    environment.setdefault("working_dir", str(working_dir))
    job = _submit_job(client, entrypoint=_entrypoint(working_dir, options), runtime_env=environment)
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
                raise click.ClickException(f"the cluster rejected the job: {error}") from None
        time.sleep(POLL_INTERVAL_S)


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
            words += [option, str(value.resolve())]
    for option, values in (
        ("--set", options["given"]),
        ("--map-over", options["map_over"]),
        ("--output", options["wanted"]),
    ):
        for value in values:
            words += [option, value]
    words += ["--map-mode", options["map_mode"], "--on-error", options["on_error"]]
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
    if info.status != "SUCCEEDED":
        click.echo(f"job {job} {info.status.lower()}: {info.message}", err=True)
    code = info.driver_exit_code
    return int(code) if code is not None else int(info.status != "SUCCEEDED")
