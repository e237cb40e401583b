"""The remote tier of a cache in each kind of bucket: of S3, of Google Cloud Storage, of Azure."""

import json
import os
import shutil

import pytest
from click.testing import CliRunner
from object_store import AZURITE_KEY, CREDENTIALS, azure_server, free_port, s3_server

from hypernodes import DiskCache, Pipeline, node
from hypernodes.cache.remote import objects
from hypernodes.cli import main
from hypernodes.exceptions import CacheWarning

CALLS = []
LARGE = 11 << 20
"""Bytes of an object that is written in several requests."""


@node(output_name="double")
def double(x):
    CALLS.append(x)
    return 2 * x


@node(output_name="large")
def large(x):
    CALLS.append(x)
    return bytes([x]) * (LARGE if x == 0 else 1 << 20)


def s3_environment(port):
    return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}


def google_environment(port):
    # The requests that obstore sends to Google are those of its XML interface, which S3 has, too.
    return {
        "GOOGLE_BASE_URL": f"http://127.0.0.1:{port}",
        "GOOGLE_BEARER_TOKEN": "test",
        "GOOGLE_ALLOW_HTTP": "true",
    }


def azure_environment(port):
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": "devstoreaccount1",
        "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/devstoreaccount1",
        "AZURE_ALLOW_HTTP": "true",
    }


@pytest.fixture(scope="module")
def s3_port():
    with s3_server() as port:
        yield port


@pytest.fixture(scope="module")
def azure_port():
    if (command := shutil.which("azurite-blob")) is None:
        pytest.skip("needs Azurite: npm install -g azurite")
    with azure_server(command) as port:
        yield port


SERVERS = {
    "s3": ("s3_port", s3_environment),
    "gs": ("s3_port", google_environment),
    "az": ("azure_port", azure_environment),
}


@pytest.fixture(params=SERVERS)
def address(request, monkeypatch):
    """Return the address of a tier; the environment says where its server is."""
    monkeypatch.setattr(objects, "PART_SIZE", 5 << 20)  # S3 takes no smaller parts.
    scheme = request.param
    fixture, environment = SERVERS[scheme]
    for name, value in environment(request.getfixturevalue(fixture)).items():
        monkeypatch.setenv(name, value)
    return f"{scheme}://bucket/of {scheme}"


def computed(cache):
    CALLS.clear()
    rows = Pipeline([double, large], cache=cache).map({"x": range(3)}, map_over="x")
    assert rows["double"] == [0, 2, 4]
    assert [(row[0], len(row)) for row in rows["large"]] == [(0, LARGE), (1, 1 << 20), (2, 1 << 20)]
    return len(CALLS)


def test_a_host_with_an_empty_disk_has_what_another_one_computed(address, tmp_path):
    for name, calls in (("first", 6), ("second", 0)):
        with DiskCache(tmp_path / name, remote=address) as cache:
            assert computed(cache) == calls

    def command(name, *arguments):
        asked = ["cache", "--path", str(tmp_path / name), "--remote", address, *arguments, "--json"]
        done = CliRunner().invoke(main, asked, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    assert command("second", "stats")["remote"]["entries"] == 6
    assert command("second", "push")["pushed"] == 0
    assert command("third", "pull")["pulled"] >= 6
    assert computed(DiskCache(tmp_path / "third")) == 0
    merged = command("third", "compact")["merged"]
    assert command("third", "compact", "--grace", "0s")["deleted"] == merged
    with DiskCache(tmp_path / "fourth", remote=address) as cache:
        assert computed(cache) == 0
    command("third", "clear", "--both", "--yes")
    assert command("third", "stats")["remote"]["entries"] == 0


@pytest.mark.parametrize("scheme", SERVERS)
def test_a_server_that_is_not_there_costs_one_warning(scheme, tmp_path, monkeypatch):
    for name, value in SERVERS[scheme][1](free_port()).items():
        monkeypatch.setenv(name, value)
    with pytest.warns(CacheWarning, match=f"{scheme}://bucket/x' cannot be read") as caught:
        with DiskCache(tmp_path, remote=f"{scheme}://bucket/x") as cache:
            assert computed(cache) == 6
    assert len(caught) == 1


def test_a_container_that_is_forbidden_or_missing_costs_one_warning(azure_port, tmp_path, monkeypatch):
    for name, value in azure_environment(azure_port).items():
        monkeypatch.setenv(name, value)
    with pytest.warns(CacheWarning, match="404 Not Found") as caught:
        assert computed(DiskCache(tmp_path / "a", remote="az://missing/x")) == 6
    assert len(caught) == 1
    monkeypatch.setitem(os.environ, "AZURE_STORAGE_ACCOUNT_KEY", "d3Jvbmc=")
    with pytest.warns(CacheWarning, match="403 Forbidden") as caught:
        assert computed(DiskCache(tmp_path / "b", remote="az://bucket/x")) == 6
    assert len(caught) == 1
