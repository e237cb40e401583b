"""Which Ray cluster a process connects to, the errors if there is none, and how a local Ray ends."""

import os
import subprocess
import sys
import textwrap

import pytest
import ray

from hypernodes import RayExecutor
from hypernodes.exceptions import ClusterConnectionError

pytestmark = pytest.mark.usefixtures("unconnected")


def run(tmp_path, source, **env):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(source))
    return subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **env},
        cwd=tmp_path,
    )


@pytest.mark.parametrize(
    ("address", "message"), [("127.0.0.1:1", "nothing answers"), ("somewhere", "is no address")]
)
def test_an_invalid_address_is_an_error(address, message):
    with pytest.raises(ClusterConnectionError, match=message):
        RayExecutor(address=address).submit(abs, -1)
    assert not ray.is_initialized()


def test_an_address_without_a_cluster_is_an_error(tmp_path):
    done = run(
        tmp_path,
        """
        from hypernodes import RayExecutor
        RayExecutor().submit(abs, -1)
        """,
        RAY_ADDRESS="127.0.0.1:1",
    )
    assert done.returncode != 0
    assert "ClusterConnectionError: nothing answers at '127.0.0.1:1'" in done.stderr


def test_a_local_ray_is_stopped_with_its_last_executor(tmp_path):
    done = run(
        tmp_path,
        """
        import ray
        from hypernodes import RayExecutor
        with RayExecutor(1) as first, RayExecutor(1) as second:
            print(first.submit(abs, -1).result(), second.submit(abs, -2).result(), ray.is_initialized())
        print(ray.is_initialized())
        """,
    )
    assert done.stdout.splitlines() == ["1 2 True", "False"], done.stderr
