"""Random deaths under a map with a cache, and what is left of them: ``make chaos [SECONDS=600] [SEED=...]``.

A driver maps over items whose results are cached. Meanwhile its workers are killed, told to end, or stopped,
and so is the driver itself, which may write no large files for a while, as on a full disk. Each driver is
followed by another one with the same cache and another executor. Checked after each driver that has ended by
itself:

- every item is right;
- no item was computed again whose result was in the cache when the driver began.

At the end there is no process of a driver, and no temporary file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ITEMS = 150
EXECUTORS = ("parallel map", "parallel node", "ray map", "ray node", "threaded map", "daft processes")
WORKER_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP)
DRIVER_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
STOPPED_S = 2.0  # for which a stopped worker stays stopped
MAX_ROUND_S = 120.0  # a driver that takes longer hangs


# --------------------------------------------------------------------------------------- the driver


def work(x: int, log: str) -> dict[str, object]:
    """Compute for some time, and note that this was done."""
    with open(log, "a") as calls:
        calls.write(f"{x}\n")
    time.sleep(0.03)
    return {"square": x * x, "text": str(x) * 100}


def drive(executor: str, home: Path, *, full_disk: bool) -> None:
    """Map over all items, and write what came of it."""
    from hypernodes import DaftEngine, DiskCache, HyperNodesEngine, Pipeline, node

    if full_disk:  # Writing beyond this raises an OSError, as a full disk does.
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    alias, _, level = executor.partition(" ")
    if alias == "ray":
        import ray

        ray.init(address=os.environ["CHAOS_RAY"], log_to_driver=False, logging_level="ERROR")
    engine = (
        DaftEngine(concurrency=2) if alias == "daft" else HyperNodesEngine(**{f"{level}_executor": alias})
    )
    worked = node(work, output_name="worked", retries=2)
    cache = DiskCache(home / "cache")
    pipeline = Pipeline([worked], name="chaos", cache=cache).bind(log=str(home / "calls"))
    known = [x for x in range(ITEMS) if pipeline.explain({"x": x})["work"].status == "hit"]
    (home / "known").write_text(json.dumps(known))
    (home / "calls").write_text("")
    rows = pipeline.with_engine(engine).map({"x": range(ITEMS)}, map_over="x", on_error="return")["worked"]
    failed = {x: repr(row) for x, row in enumerate(rows) if isinstance(row, BaseException)}
    wrong = [x for x, row in enumerate(rows) if x not in failed and row["square"] != x * x]
    engine.shutdown()
    cache.close()
    (home / "result").write_text(json.dumps({"failed": failed, "wrong": wrong}))


# ----------------------------------------------------------------------------------- the supervisor


def processes() -> dict[int, tuple[int, str]]:
    """Return the parent and the command of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat, command = (entry / "stat").read_text(), (entry / "cmdline").read_bytes()
            except OSError:
                continue
            fields = stat.rpartition(")")[2].split()
            if fields[0] != "Z":
                found[int(entry.name)] = (
                    int(fields[1]),
                    command.replace(b"\0", b" ").decode(errors="replace"),
                )
    return found


def below(root: int, running: dict[int, tuple[int, str]]) -> list[int]:
    """Return the processes that have descended from one."""
    children = [pid for pid, (parent, _) in running.items() if parent == root]
    return [pid for child in children for pid in (child, *below(child, running))]


def workers(driver: int, executor: str) -> list[int]:
    """Return the processes that work for a driver."""
    running = processes()
    if executor.startswith("ray"):
        # A raylet ends with its agents, and the cluster with the raylet: they are no workers.
        return [
            pid
            for pid in below(os.getpid(), running)
            if running[pid][1].startswith("ray::") and "Agent" not in running[pid][1]
        ]
    return [pid for pid in below(driver, running) if "resource_tracker" not in running[pid][1]]


def send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    if number == signal.SIGSTOP:
        time.sleep(STOPPED_S)
        send(pid, signal.SIGCONT)


def round_of(draw: random.Random, home: Path, environment: dict[str, str], log: Path) -> str:
    """Run one driver, with accidents; return what happened, or raise what is wrong."""
    executor = draw.choice(EXECUTORS)
    full_disk, ends_driver = draw.random() < 0.15, draw.random() < 0.4
    for name in ("result", "known"):
        (home / name).unlink(missing_ok=True)
    command = [
        sys.executable,
        __file__,
        "--drive",
        executor,
        str(home),
        *(["--full-disk"] if full_disk else []),
    ]
    with log.open("ab") as output:
        driver = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    began, happened = time.monotonic(), [f"{executor}{', full disk' if full_disk else ''}"]
    driver_dies = began + draw.uniform(2, 8) if ends_driver else None
    while driver.poll() is None:
        time.sleep(draw.uniform(0.3, 1.5))
        if time.monotonic() - began > MAX_ROUND_S:
            driver.kill()
            raise AssertionError(f"a driver hangs: {happened}; see {log}")
        if driver_dies is not None and time.monotonic() > driver_dies:
            number = draw.choice(DRIVER_SIGNALS)
            happened.append(f"{number.name} to the driver")
            send(driver.pid, number)
            driver_dies = time.monotonic() + 10
        elif (found := workers(driver.pid, executor)) and len(happened) < 4:
            number = draw.choice(WORKER_SIGNALS)
            happened.append(number.name)
            send(draw.choice(found), number)
    story = ", ".join(happened)
    if (home / "result").exists():
        result = json.loads((home / "result").read_text())
        assert not result["wrong"], f"wrong items {result['wrong']}: {story}"
        known = set(json.loads((home / "known").read_text()))
        again = known & set(map(int, (home / "calls").read_text().split()))
        assert not again, f"computed again although in the cache: {sorted(again)}: {story}"
        allowed = sum("SIG" in what for what in happened)
        assert len(result["failed"]) <= 2 * allowed, f"too many failed: {result['failed']}: {story}"
        story += f" → done, {len(known)} known, {len(result['failed'])} failed"
    elif not ends_driver:
        raise AssertionError(f"the driver ended with status {driver.returncode}: {story}; see {log}")
    else:
        story += f" → ended with status {driver.returncode}"
    return story


def supervise(seconds: float, seed: int) -> None:
    draw = random.Random(seed)
    print(f"to repeat: make chaos SECONDS={seconds:.0f} SEED={seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="hypernodes-chaos-") as directory:
        home, temporary = Path(directory, "home"), Path(directory, "tmp")
        home.mkdir()
        temporary.mkdir()
        import ray

        ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        address = ray.get_runtime_context().gcs_address
        environment = {**os.environ, "TMPDIR": str(temporary), "CHAOS_RAY": address}
        ends, rounds = time.monotonic() + seconds, 0
        while time.monotonic() < ends:
            rounds += 1
            print(f"{rounds:3}  {round_of(draw, home, environment, Path(directory, 'log'))}", flush=True)
        time.sleep(10)  # for workers whose driver was killed to notice it
        left = [f"{pid} {command[:100]}" for pid, (_, command) in processes().items() if str(home) in command]
        files = [str(path) for path in temporary.rglob("*") if path.is_file() or path.is_socket()]
        ray.shutdown()
        assert not left, f"processes are left: {left}"
        assert not files, f"temporary files are left: {files}"
    print(f"{rounds} drivers, and nothing wrong")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--drive", nargs=2)
    parser.add_argument("--full-disk", action="store_true")
    given = parser.parse_args()
    if given.drive:
        drive(given.drive[0], Path(given.drive[1]), full_disk=given.full_disk)
    else:
        supervise(given.seconds, given.seed)
