"""The files in cluster/: valid for those who read them, and the local cluster really runs jobs."""

import json
import os
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import ray
import yaml

HERE = Path(__file__).resolve().parents[1]
CLUSTER = HERE / "cluster"


def load(name):
    return yaml.safe_load((CLUSTER / name).read_text())


def test_the_launchers_file_is_what_ray_expects():
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text())
    config = load("launcher.yaml")
    jsonschema.validate(config, schema)
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert any("RAY_AUTH_MODE=token" in command for command in config[commands])


def specs():
    cluster, job = load("kuberay/raycluster.yaml"), load("kuberay/rayjob.yaml")
    assert (cluster["kind"], job["kind"]) == ("RayCluster", "RayJob")
    assert {cluster["apiVersion"], job["apiVersion"]} == {"ray.io/v1"}
    return [cluster["spec"], job["spec"]["rayClusterSpec"]]


def test_kuberays_files_have_the_structure_of_its_resources():
    for spec in specs():
        assert spec["rayVersion"] == ray.__version__
        groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
        assert all(isinstance(group["rayStartParams"], dict) for group in groups)
        for group in spec["workerGroupSpecs"]:
            assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        for group in groups:
            pod = {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": "pod"},
                "spec": group["template"]["spec"],
            }
            kubernetes_validate.validate(pod, "1.27", strict=True)
            env = {each["name"] for each in group["template"]["spec"]["containers"][0]["env"]}
            assert env == {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}
    job = load("kuberay/rayjob.yaml")["spec"]
    assert "examples/semantic_search/main.py" in job["entrypoint"]
    assert isinstance(yaml.safe_load(job["runtimeEnvYAML"]), dict)


def test_rays_own_autoscaler_reads_the_cluster():
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    cluster = load("kuberay/raycluster.yaml")
    cluster["metadata"]["namespace"] = "default"
    types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
    assert types["cpu"]["resources"]["CPU"] == 4
    assert types["gpu"]["resources"]["GPU"] == 1
    assert types["headgroup" if "headgroup" in types else "head-group"]["resources"]["CPU"] == 0


def test_the_runtime_env_is_one():
    from ray.runtime_env import RuntimeEnv

    assert RuntimeEnv(**load("runtime_env.yaml"))["env_vars"] == {"OMP_NUM_THREADS": "1"}


# ---------------------------------------------------------------------------- the local cluster


def free_ports(count):
    """Find ports in a row that nobody listens at."""
    for first in range(20_000 + os.getpid() % 5_000, 30_000, count):
        try:
            for port in range(first, first + count):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return range(first, first + count)
    raise AssertionError("there are no free ports")


MAX_UPLOAD = 20_000_000  # bytes; Ray's own limit is 500 MiB


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The cluster of `make cluster-up`, on ports of its own, with a home of its own for the token."""
    home = tmp_path_factory.mktemp("home")
    port, dashboard, _ = free_ports(3)  # the third is the dashboard's agent's
    env = {
        **os.environ,
        "BIN": str(Path(sys.executable).parent),
        "RAY_PORT": str(port),
        "RAY_DASHBOARD_PORT": str(dashboard),
        "WORKERS": "1",
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
        "RAY_max_grpc_message_size": str(MAX_UPLOAD),
    }
    env.pop("RAY_ADDRESS", None)
    subprocess.run([CLUSTER / "local.sh", "up"], env=env, check=True, timeout=200)
    yield env
    done = subprocess.run(
        [CLUSTER / "local.sh", "down"], env=env, check=True, timeout=60, capture_output=True
    )
    assert b"is down" in done.stdout


def test_the_files_of_the_local_cluster_are_for_its_user_alone(local):
    folder = Path(f"/tmp/ray-{os.getuid()}-{local['RAY_PORT']}")
    token = Path(local["HOME"]) / ".ray" / "auth_token"
    assert [stat.filemode(path.stat().st_mode) for path in (folder, token)] == ["drwx------", "-rw-------"]


PIPELINES = """
from hypernodes import Pipeline, node
from words import shout

@node(output_name="loud")
def make_loud(text, mark="!"):
    if text == "bad":
        raise ValueError("a bad text")
    return shout(text) + mark

loud = Pipeline([make_loud], name="loud")
"""


AFTER_IMPORT = ("-c", "import ray, hypernodes.cli; hypernodes.cli.main()")


def hypernodes(env, cwd, *arguments, start=("-m", "hypernodes")):
    return subprocess.run(
        [sys.executable, *start, *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=250,
    )


@pytest.fixture(scope="module")
def ended(local, tmp_path_factory):
    """What is tried with the cluster, all at the same time, since each mostly waits: futures by name."""
    cwd = tmp_path_factory.mktemp("project")
    (cwd / "pipelines.py").write_text(PIPELINES)
    (cwd / "words.py").write_text("def shout(text): return text.upper()")
    (cwd / "texts.jsonl").write_text("".join(json.dumps({"text": f"t{n}"}) + "\n" for n in range(200)))
    dashboard = f"127.0.0.1:{local['RAY_DASHBOARD_PORT']}"
    submit = ("submit", "pipelines:loud", "--address", f"http://{dashboard}")
    found = ("submit", "pipelines:loud")
    items = ("--set", 'text=["a", "bad", "c"]', "--map-over", "text", "--on-error", "return")
    large = cwd.parent / "large project"
    large.mkdir()
    (large / "model.bin").write_bytes(os.urandom(MAX_UPLOAD + 1))
    job = (
        *(*submit, "--inputs", "texts.jsonl", "--map-over", "text"),
        *("--out", str(cwd / "out.jsonl"), "--remote", (cwd / "tier").as_uri(), "--cache"),
    )
    drive = (
        *("run", "pipelines:loud", "--set", 'text=["a", "b"]', "--map-over", "text", "--executor", "ray"),
        "--address",
    )
    cluster = f"127.0.0.1:{local['RAY_PORT']}"
    env = {name: value for name, value in local.items() if name != "RAY_AUTH_MODE"}  # there is a token
    (cwd / "imports_ray.py").write_text("import ray\nfrom pipelines import loud\n")
    (cwd / "no_home").mkdir()
    early = ("run", "imports_ray:loud", "--set", "text=a", "--executor", "ray", "--address")
    wrong, none = {**env, "RAY_AUTH_TOKEN": "0" * 32}, {**env, "HOME": str(cwd / "no_home")}

    with ThreadPoolExecutor() as pool:
        first = pool.submit(hypernodes, local, cwd, *job, str(cwd / "cache"))
        rows = pool.submit(lambda: first.result() and (cwd / "out.jsonl").read_text().splitlines())
        yield {
            "job": first,
            "rows": rows,
            "job again": pool.submit(
                lambda: (
                    rows.result()
                    and hypernodes(env, cwd, *job, str(cwd / "another cache"), start=AFTER_IMPORT)
                )
            ),
            "failing job": pool.submit(hypernodes, local, cwd, *submit, "--set", "text=bad"),
            "items fail": pool.submit(hypernodes, env, cwd, *found, *items),
            "items fail the job": pool.submit(
                hypernodes, env, cwd, *found, *items, "--failed-exit-code", "9"
            ),
            "large": pool.submit(hypernodes, env, large, *found, "--set", "text=a"),
            "driver": pool.submit(hypernodes, env, cwd, *drive, cluster),
            "wrong token": pool.submit(hypernodes, wrong, cwd, *drive, cluster),
            "early import": pool.submit(hypernodes, env, cwd, *early, cluster),
            "early import, wrong token": pool.submit(hypernodes, wrong, cwd, *early, cluster),
            "early import, no token": pool.submit(hypernodes, none, cwd, *early, cluster),
            "early import, no mode": pool.submit(
                hypernodes, {**env, "RAY_AUTH_MODE": "disabled"}, cwd, *early, cluster
            ),
            "dashboard": pool.submit(hypernodes, env, cwd, *drive, dashboard),
        }


@pytest.mark.timeout(300)
def test_a_job_maps_over_a_file_and_is_watched(ended):
    done = ended["job"].result()
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(line)["loud"] for line in ended["rows"].result()] == [f"T{n}!" for n in range(200)]
    assert "loud: 200" in done.stdout  # its progress


@pytest.mark.timeout(300)
def test_a_job_from_a_program_that_has_imported_ray_finds_everything_in_the_tier_of_an_earlier_job(ended):
    again = ended["job again"].result()
    assert again.returncode == 0, again.stdout + again.stderr
    assert "⚡ 200" in again.stdout


@pytest.mark.timeout(300)
def test_a_job_that_fails_says_where(ended):
    failing = ended["failing job"].result()
    assert failing.returncode == 1
    assert "ValueError: a bad text" in failing.stdout
    assert "in node 'make_loud' of pipeline 'loud'" in failing.stdout
    assert (failing.stdout + failing.stderr).count("ValueError: a bad text") == 1
    assert "failed: Job entrypoint command failed with exit code 1." in failing.stderr


@pytest.mark.timeout(300)
def test_submit_finds_the_cluster_on_this_machine(ended, local):
    found = ended["items fail"].result()
    assert f"at http://127.0.0.1:{local['RAY_DASHBOARD_PORT']}" in found.stderr


@pytest.mark.timeout(300)
def test_a_job_whose_items_fail_has_succeeded_unless_it_is_to_fail(ended):
    done = ended["items fail"].result()
    assert done.returncode == 3, done.stdout + done.stderr
    assert "1 items failed, 2 did not" in done.stdout
    assert "failed:" not in done.stderr
    done = ended["items fail the job"].result()
    assert done.returncode == 9, done.stdout + done.stderr
    assert "failed: Job entrypoint command failed with exit code 9." in done.stderr


@pytest.mark.timeout(300)
def test_a_working_directory_that_is_too_large_says_how_to_leave_files_out(ended):
    large = ended["large"].result()
    assert large.returncode == 1
    assert "Its largest files: model.bin (20.0 MB)" in large.stderr
    assert ".rayignore" in large.stderr
    assert "Traceback" not in large.stderr


@pytest.mark.timeout(300)
def test_a_driver_outside_finds_the_token_by_itself(ended):
    driven = ended["driver"].result()
    assert driven.returncode == 0, driven.stderr
    assert driven.stdout == '{"index": 0, "loud": "A!"}\n{"index": 1, "loud": "B!"}\n'


@pytest.mark.timeout(300)
def test_a_wrong_token_is_told_as_that(ended):
    wrong = ended["wrong token"].result()
    assert wrong.returncode == 1
    assert "The token here" in wrong.stderr


@pytest.mark.timeout(300)
def test_a_driver_that_has_imported_ray_before_finds_the_token(ended):
    driven = ended["early import"].result()
    assert driven.returncode == 0, driven.stderr
    assert json.loads(driven.stdout) == {"loud": "A!"}


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("case", "cause"),
    [
        ("wrong token", "is another one than the cluster's"),
        ("no token", "there is none here"),
        ("no mode", "RAY_AUTH_MODE is 'disabled'. Set RAY_AUTH_MODE=token"),
    ],
)
def test_what_the_cluster_rejects_is_told_before_ray_tries_for_long(ended, case, cause):
    done = ended[f"early import, {case}"].result()
    assert done.returncode == 1
    assert "ClusterConnectionError: the Ray cluster at" in done.stderr
    assert cause in done.stderr
    assert "TransportError" not in done.stderr
    assert "Failed to get cluster ID" not in done.stderr  # Ray's warnings


@pytest.mark.timeout(300)
def test_the_dashboards_port_is_told_from_the_clusters(ended):
    dashboard = ended["dashboard"].result()
    assert dashboard.returncode == 1
    assert "is no Ray cluster, or not its port" in dashboard.stderr
