"""The files in cluster/: valid for those who read them, and the local cluster really runs jobs."""

import json
import os
import subprocess
import sys
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


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """The cluster of `make cluster-up`, on ports of its own, with a home of its own for the token."""
    home = tmp_path_factory.mktemp("home")
    env = {
        **os.environ,
        "BIN": str(Path(sys.executable).parent),
        "RAY_PORT": "6455",
        "RAY_DASHBOARD_PORT": "8355",
        "WORKERS": "1",
        "HOME": str(home),
        "RAY_AUTH_MODE": "token",
    }
    env.pop("RAY_ADDRESS", None)
    subprocess.run([CLUSTER / "local.sh", "up"], env=env, check=True, timeout=110)
    yield env
    done = subprocess.run(
        [CLUSTER / "local.sh", "down"], env=env, check=True, timeout=60, capture_output=True
    )
    assert b"is down" in done.stdout


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


def hypernodes(env, cwd, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "hypernodes", *arguments],
        env=env,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.mark.timeout(300)
def test_jobs_and_drivers_use_the_local_cluster_with_its_token(local, tmp_path):
    (tmp_path / "pipelines.py").write_text(PIPELINES)
    (tmp_path / "words.py").write_text("def shout(text): return text.upper()")
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": f"t{n}"}) + "\n" for n in range(200)))
    out, cache = tmp_path / "out.jsonl", tmp_path / "cache"
    job = (
        *("submit", "pipelines:loud", "--inputs", "texts.jsonl", "--map-over", "text"),
        *("--out", str(out), "--cache", str(cache), "--address", "http://127.0.0.1:8355"),
    )
    done = hypernodes(local, tmp_path, *job)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [json.loads(line)["loud"] for line in out.read_text().splitlines()] == [
        f"T{n}!" for n in range(200)
    ]
    assert "loud: 200" in done.stdout  # its progress
    again = hypernodes(local, tmp_path, *job)
    assert again.returncode == 0
    assert "⚡ 200" in again.stdout

    failing = hypernodes(
        local,
        tmp_path,
        *("submit", "pipelines:loud", "--set", "text=bad", "--address", "http://127.0.0.1:8355"),
    )
    assert failing.returncode == 1
    assert "ValueError: a bad text" in failing.stdout
    assert "in node 'make_loud' of pipeline 'loud'" in failing.stdout

    env = {name: value for name, value in local.items() if name != "RAY_AUTH_MODE"}  # there is a token
    driven = hypernodes(
        env,
        tmp_path,
        *("run", "pipelines:loud", "--set", 'text=["a", "b"]', "--map-over", "text", "--executor", "ray"),
        *("--address", "127.0.0.1:6455"),
    )
    assert driven.returncode == 0, driven.stderr
    assert driven.stdout == '{"loud": "A!"}\n{"loud": "B!"}\n'

    wrong = hypernodes({**env, "RAY_AUTH_TOKEN": "0" * 32}, tmp_path, *driven.args[3:])
    assert wrong.returncode == 1
    assert "The token here" in wrong.stderr
    dashboard = hypernodes(env, tmp_path, *driven.args[3:-1], "127.0.0.1:8355")
    assert dashboard.returncode == 1
    assert "is no Ray cluster, or not its port" in dashboard.stderr
