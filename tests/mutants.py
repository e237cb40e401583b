"""How many mutants of the code do the tests find? ``make mutants [PART=cache] [SEED=...]``.

cosmic-ray makes the mutants, each a small change of one place, of which a random sample is tried: in a copy
of the checkout, with the tests that are about that part. A mutant that survives is shown as a diff: either a
test is missing, or the change makes no difference, which only a reader can tell.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

HOME = Path(__file__).parent.parent
TESTS = {
    "cache": (
        "test_bytecode.py",
        "test_cache.py",
        "test_remote_cache.py",
        "test_signature.py",
        "test_state.py",
        "test_store.py",
        "test_store_attacks.py",
        "test_traps.py",
    ),
    "execution": (
        "test_async_executor.py",
        "test_batch.py",
        "test_call_groups.py",
        "test_callbacks.py",
        "test_cancelling.py",
        "test_computed_once.py",
        "test_daft_values.py",
        "test_errors.py",
        "test_execution_target.py",
        "test_explain.py",
        "test_failed_calls.py",
        "test_given_values.py",
        "test_imap.py",
        "test_iterators.py",
        "test_map.py",
        "test_memory.py",
        "test_nesting.py",
        "test_odd_values.py",
        "test_paths_agree.py",
        "test_pipeline.py",
        "test_process_executors.py",
        "test_readonly.py",
        "test_scheduler.py",
        "test_services.py",
        "test_single_computation.py",
        "test_spread.py",
        "test_stateful.py",
        "test_strict.py",
        "test_timeouts.py",
        "test_unpickling.py",
    ),
}
TIMEOUT_S = 1800.0
"""A mutant that makes the tests hang is found by that; all tests of a part must end earlier."""


def configuration(part: str) -> str:
    """Return the configuration of cosmic-ray for a part of the package."""
    tests = " ".join(f"tests/{name}" for name in TESTS[part])
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider {tests}"
    return f"""
[cosmic-ray]
module-path = "src/hypernodes/{part}"
timeout = {TIMEOUT_S}
excluded-modules = []
test-command = "{command}"

[cosmic-ray.distributor]
name = "local"
"""


def sample(session: Path, checkout: Path, count: int, seed: int) -> tuple[int, int]:
    """Leave a random sample of the mutants in a session; return how many these are, and how many there were.

    Those of the sample that are no Python are left out: ``*`` and ``**`` are no operators in every place.
    """
    with sqlite3.connect(session) as database:
        jobs = [job for (job,) in database.execute("select job_id from work_items order by job_id")]
        places = dict(
            database.execute(
                "select job_id, module_path || start_pos_row || ' ' || start_pos_col || operator_name "
                "|| occurrence from mutation_specs"
            )
        )
        # The ids of jobs are random: what is drawn must not depend on them.
        # Most of these operators are in annotations, which nothing evaluates.
        ordered = sorted((job for job in jobs if "BinaryOperator_BitOr" not in places[job]), key=places.get)
        drawn = random.Random(seed).sample(ordered, min(count, len(ordered)))
        specs = {
            job: spec
            for job, *spec in database.execute(
                "select job_id, module_path, operator_name, occurrence from mutation_specs"
            )
        }
        kept = {job for job in drawn if is_python(checkout, *specs[job])}
        for job in set(jobs) - kept:
            database.execute("delete from mutation_specs where job_id = ?", (job,))
            database.execute("delete from work_items where job_id = ?", (job,))
    return len(kept), len(ordered)


def is_python(checkout: Path, module: str, operator: str, occurrence: int) -> bool:
    """Whether a mutant can be compiled."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = checkout.joinpath(module).read_text(encoding="utf-8")
    code = mutate_code(source, get_operator(operator)(), occurrence)
    try:
        compile(code, module, "exec")
    except SyntaxError:
        return False
    return True


def survivors(session: Path) -> Iterator[tuple[str, str]]:
    """Yield each mutant that no test has found: where it is, and its diff."""
    query = (
        "select module_path, start_pos_row, diff from mutation_specs join work_results "
        "on mutation_specs.job_id = work_results.job_id where test_outcome = 'SURVIVED'"
    )
    with sqlite3.connect(session) as database:
        for module, row, diff in database.execute(query):
            yield f"{module}:{row}", diff or ""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=TESTS, default="cache")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"to repeat: make mutants PART={given.part} MUTANTS={given.count} SEED={given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hypernodes-mutants-") as directory:
        copy, session = Path(directory, "copy"), Path(directory, "session.sqlite")
        skipped = shutil.ignore_patterns(".*", "site", "dist", "__pycache__")
        shutil.copytree(HOME, copy, ignore=skipped)
        config = Path(directory, "config.toml")
        config.write_text(configuration(given.part))
        environment = {**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"}

        def cosmic_ray(*arguments: object) -> None:
            command = [sys.executable, "-m", "cosmic_ray.cli", *map(str, arguments)]
            subprocess.run(command, cwd=copy, env=environment, check=True, stdout=subprocess.DEVNULL)

        cosmic_ray("init", config, session)
        tried, total = sample(session, copy, given.count, given.seed)
        cosmic_ray("exec", config, session)
        left = list(survivors(session))
    print(f"{tried - len(left)} of {tried} mutants found, of {total} in {given.part}/")
    for place, diff in left:
        print(f"\n{place}\n{diff}")


if __name__ == "__main__":
    main()
