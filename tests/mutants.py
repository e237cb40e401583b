"""How many mutants of the code do the tests find? ``make mutants [PART=cache] [SEED=...]``.

cosmic-ray makes the mutants, each a small change of one place, of which a random sample is tried: in a copy
of the checkout, with the tests that are about that part. These tests run once with coverage. Each mutant is
then tried with the tests that reach its line, the quickest first, and only one that survives these with all
tests of the part, since what worker processes reach is not measured. A mutant that survives is shown as a
diff: either a test is missing, or the change makes no difference, which only a reader can tell.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from difflib import unified_diff
from pathlib import Path
from typing import NamedTuple

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
        "test_report.py",
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
DURATION = re.compile(r"^([\d.]+)s (?:setup|call|teardown) +(\S.*)$", re.MULTILINE)
"""A line of ``pytest --durations``."""


class Mutant(NamedTuple):
    """A change of one place."""

    module: str
    row: int
    operator: str
    occurrence: int


def all_mutants(checkout: Path, part: str, directory: Path) -> list[Mutant]:
    """Return all mutants of a part that may change what is computed."""
    session, config = directory / "session.sqlite", directory / "config.toml"
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "src/hypernodes/{part}"\ntimeout = 1.0\nexcluded-modules = []\n'
        f'test-command = ""\n[cosmic-ray.distributor]\nname = "local"\n'
    )
    command = [sys.executable, "-m", "cosmic_ray.cli", "init", str(config), str(session)]
    subprocess.run(command, cwd=checkout, check=True, stdout=subprocess.DEVNULL)
    with sqlite3.connect(session) as database:
        found = database.execute(
            "select module_path, start_pos_row, operator_name, occurrence from mutation_specs"
        )
        # Most of these operators are in annotations, which nothing evaluates.
        return sorted(mutant for mutant in map(Mutant._make, found) if "BitOr" not in mutant.operator)


def changed_source(checkout: Path, mutant: Mutant) -> str | None:
    """Return the source of a mutant's module; ``None`` if it is no Python, as ``*`` is not in every place."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    source = checkout.joinpath(mutant.module).read_text(encoding="utf-8")
    code: str = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    try:
        compile(code, mutant.module, "exec")
    except SyntaxError:
        return None
    return code


class Tests:
    """The tests of a part, in a copy of the checkout."""

    def __init__(self, part: str, checkout: Path) -> None:
        self.part = part
        self.checkout = checkout
        self.all = [f"tests/{name}" for name in TESTS[part]]
        self._by_line: dict[str, dict[int, list[str]]] = {}
        self._seconds: Counter[str] = Counter()

    def measure(self) -> None:
        """Run all tests once, and note which lines each of them reaches in this process."""
        from coverage import CoverageData

        options = (
            "--cov=hypernodes." + self.part,
            "--cov-context=test",
            "--cov-report=",
            "--durations=0",
            "--cov-fail-under=0",
        )
        data = self.checkout / "coverage"
        found = self._pytest(*options, *self.all, COVERAGE_CORE="ctrace", COVERAGE_FILE=str(data))
        if found.returncode:
            sys.exit(f"the tests fail without any change:\n{found.stdout}")
        for seconds, test in DURATION.findall(found.stdout):
            self._seconds[test] += float(seconds)
        coverage = CoverageData(str(data))
        coverage.read()
        for file in coverage.measured_files():
            lines = coverage.contexts_by_lineno(file)
            self._by_line[str(Path(file).relative_to(self.checkout.resolve()))] = {
                row: sorted({context.rpartition("|")[0] for context in contexts if context})
                for row, contexts in lines.items()
            }

    def reaching(self, mutant: Mutant) -> list[str]:
        """Return the tests that reach the line of a mutant, the quickest first."""
        tests = self._by_line.get(mutant.module, {}).get(mutant.row, [])
        return sorted(tests, key=lambda test: (self._seconds[test], test))

    def find(self, mutant: Mutant) -> bool:
        """Whether any test fails now."""
        nearest = self.reaching(mutant)
        return any(self._pytest("-x", *tests).returncode for tests in (nearest, self.all) if tests)

    def _pytest(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run tests, as a session of processes of its own, which all end with it."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(self.checkout / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        with subprocess.Popen(
            command,
            cwd=self.checkout,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, output)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=TESTS, default="cache")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    print(f"to repeat: make mutants PART={given.part} MUTANTS={given.count} SEED={given.seed}", flush=True)
    tried = found = 0
    with tempfile.TemporaryDirectory(prefix="hypernodes-mutants-") as directory:
        copy = Path(directory, "copy")
        shutil.copytree(HOME, copy, ignore=shutil.ignore_patterns(".*", "site", "dist", "__pycache__"))
        mutants = all_mutants(copy, given.part, Path(directory))
        tests = Tests(given.part, copy)
        tests.measure()
        for mutant in random.Random(given.seed).sample(mutants, min(given.count, len(mutants))):
            if (changed := changed_source(copy, mutant)) is None:
                continue
            module = copy / mutant.module
            original = module.read_text(encoding="utf-8")
            module.write_text(changed, encoding="utf-8")
            is_found = tests.find(mutant)
            module.write_text(original, encoding="utf-8")
            tried += 1
            found += is_found
            if not is_found:
                lines = unified_diff(original.splitlines(), changed.splitlines(), lineterm="", n=3)
                print(f"\n{mutant.module}:{mutant.row}", *list(lines)[2:], sep="\n", flush=True)
    print(f"\n{found} of {tried} mutants found, of {len(mutants)} in {given.part}/")


if __name__ == "__main__":
    main()
