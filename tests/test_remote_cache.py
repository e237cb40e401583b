"""A cache with a remote tier: in a directory, and in a bucket of a real S3 server, slow or broken."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from click.testing import CliRunner
from object_store import CREDENTIALS, free_port, proxied_s3

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.cache.remote import objects
from hypernodes.cli import main
from hypernodes.config import MISS
from hypernodes.exceptions import CacheWarning, ExtraMissingError

CALLS = []


@node(output_name="double")
def double(x):
    CALLS.append(x)
    return 2 * x


@node(output_name="big")
def big(x):
    CALLS.append(x)
    return bytes([x]) * 1_500_000


def computed(cache, number=50, **more):
    """Run a map with a cache, check its results, and return how many items it has computed."""
    CALLS.clear()
    rows = Pipeline([double], cache=cache, **more).map({"x": range(number)}, map_over="x")
    assert rows == {"double": [2 * x for x in range(number)]}
    return len(CALLS)


@pytest.fixture
def url(tmp_path):
    return (tmp_path / "bucket").as_uri()


@pytest.fixture
def host(tmp_path, url):
    """Return a function that makes the cache of a host by its name."""

    def make(name, remote=url, **options):
        return DiskCache(tmp_path / name, remote=remote, **options)

    return make


def files(tmp_path, folder="segments"):
    return sorted((tmp_path / "bucket/v1" / folder).glob("*"))


def only_warning(caught):
    (warning,) = [one for one in caught if one.category is CacheWarning]
    return str(warning.message)


# ------------------------------------------------------------------------------ a shared directory


def test_an_empty_directory_is_served_by_the_tier_and_then_by_itself(host, tmp_path):
    assert computed(host("a")) == 50
    assert computed(host("b")) == 0
    (tmp_path / "bucket").rename(tmp_path / "gone")
    assert computed(DiskCache(tmp_path / "b")) == 0


def test_a_large_value_is_an_object_of_its_own(host, tmp_path):
    for name, calls in (("a", 3), ("b", 0)):
        CALLS.clear()
        rows = Pipeline([big], cache=host(name)).map({"x": range(3)}, map_over="x")["big"]
        assert [row[:1] for row in rows] == [b"\0", b"\1", b"\2"]
        assert len(CALLS) == calls
    assert len(files(tmp_path, "values")) == 3
    assert sum(path.stat().st_size for path in files(tmp_path)) < 10_000


def test_an_array_from_the_tier_can_be_changed(host):
    numpy = pytest.importorskip("numpy")
    with host("a") as cache:
        cache.put("array", numpy.zeros(300_000))
        cache.put("small", numpy.zeros(3))
    found = host("b").get_many(["array", "small"])
    for array in found.values():
        array += 1
    assert host("b").get("array").sum() == 0


def test_flush_waits_for_the_tier_and_the_next_run_sees_what_others_have_written(host):
    a, b = host("a"), host("b")
    assert computed(b, 0) == 0
    assert b.get("x") is MISS
    a.put("x", 1)
    a.flush()
    b.flush()
    assert b.get("x") == 1
    assert b.contains(["x", "y"]) == {"x"}


def test_many_processes_write_without_a_lock(host, url, tmp_path):
    script = (
        "import sys; from hypernodes import DiskCache\n"
        "with DiskCache(sys.argv[1], remote=sys.argv[2]) as cache:\n"
        "    for n in range(100): cache.put(f'{sys.argv[3]} {n}', n); n % 40 or cache.flush()"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path / where), url, who])
        for who, where in (("a", "one"), ("b", "one"), ("c", "two"))
    ]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    keys = {f"{who} {n}": n for who in "abc" for n in range(100)}
    assert host("reader").get_many(keys) == keys


def test_what_a_killed_process_has_not_written_another_one_writes(host, url, tmp_path):
    script = (
        "import sys; from hypernodes import DiskCache\n"
        "cache = DiskCache(sys.argv[1], remote=sys.argv[2])\n"
        "for n in range(10**6):\n"
        "    cache.put(str(n), b'%d' % n * 2000)\n"
        "    if n % 50 == 49: cache.flush(); print(n, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a"), url], stdout=subprocess.PIPE, text=True
    )
    for _ in range(3):
        flushed = int(process.stdout.readline())
    process.kill()
    process.wait()
    found = host("b").get_many(str(n) for n in range(100_000))
    assert len(found) > flushed
    local = DiskCache(tmp_path / "a")
    count = len(local)
    with host("a") as cache:
        cache.put("another", b"")
    found = host("c").get_many(["another", *(str(n) for n in range(count))])
    assert found == {"another": b"", **{str(n): b"%d" % n * 2000 for n in range(count)}}


def test_a_failed_upload_is_made_up_for_later(host, tmp_path):
    (tmp_path / "bucket").write_text("not a directory")
    with pytest.warns(CacheWarning) as caught:
        assert computed(host("a")) == 50
    assert "cannot be read" in only_warning(caught)
    (tmp_path / "bucket").unlink()
    assert computed(host("a")) == 0
    with host("a") as cache:
        cache.stats()
    assert computed(host("b")) == 0


def test_equal_results_of_a_key_are_checked_by_its_seal(host):
    with host("a", key="one") as cache:
        cache.put("x", 1)
    with pytest.warns(CacheWarning) as caught:
        other = host("b", key="two")
        assert other.get("x") is other.get("x") is MISS
    assert "written with another key" in only_warning(caught)
    assert host("c", key="one").get("x") == 1


def test_a_damaged_entry_is_a_miss_and_the_others_are_whole(host, tmp_path):
    assert computed(host("a")) == 50
    (segment,) = files(tmp_path)
    content = bytearray(segment.read_bytes())
    content[200] ^= 1
    segment.write_bytes(content)
    with pytest.warns(CacheWarning) as caught:
        assert computed(host("b")) in {0, 1}  # The damage may be in the record of the code.
    assert "damaged" in only_warning(caught)


def test_a_segment_with_a_damaged_index_is_not_used(host, tmp_path):
    assert computed(host("a")) == 50
    (segment,) = files(tmp_path)
    segment.write_bytes(segment.read_bytes()[:-5])
    with pytest.warns(CacheWarning) as caught:
        assert computed(host("b")) == 50
    assert "is damaged" in only_warning(caught)


@pytest.mark.parametrize("content", [b"", b"junk" * 5000], ids=["empty", "other bytes"])
def test_files_of_others_in_the_tier_and_in_its_database_do_no_harm(host, tmp_path, content):
    assert computed(host("a")) == 50
    folder = tmp_path / "bucket/v1/segments"
    (folder / "readme.txt").write_bytes(content)
    (folder / f"{1:016x}-{2:024x}-{3:x}-s").write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)  # The segment of the others is damaged.
        with host("b") as cache:
            assert cache.get("nothing") is MISS
        (database,) = (tmp_path / "b").glob("remote-*.db")
        database.write_bytes(content)
        for suffix in ("-wal", "-shm"):
            database.with_name(database.name + suffix).unlink(missing_ok=True)
        assert computed(host("b")) == 0


def test_an_expired_entry_of_the_tier_is_absent(host):
    with host("a", expire=1.5) as cache:
        cache.put("x", 1)
    assert host("b").get("x") == 1
    time.sleep(1.6)
    assert host("b").get("x") is MISS
    assert host("c").contains(["x"]) == set()
    assert host("c").get("x") is MISS


def test_delete_holds_for_all_hosts_and_clear_for_one_unless_it_is_asked(host):
    with host("a") as a:
        a.put("wrong", 1)
        a.put("right", 2)
    b = host("b")
    assert b.get_many(["wrong", "right"]) == {"wrong": 1, "right": 2}
    assert a.delete("wrong") == 1
    assert a.get_many(["wrong", "right"]) == {"right": 2}
    assert host("c").get_many(["wrong", "right"]) == {"right": 2}
    a.put("wrong", 3)
    a.flush()
    assert host("d").get("wrong") == 3
    assert a.clear() == 2
    assert a.get("right") == 2
    a.clear(remote=True)
    assert a.get("right") is MISS
    assert host("e").get("right") is MISS


def test_entries_of_one_node_are_dropped_in_the_tier(host):
    assert computed(host("a")) == 50
    cache = host("a")
    cache.put("of no node", 1)
    cache.flush()
    cache.clear(node="double", remote=True)
    assert computed(host("b")) == 50
    assert host("b").get("of no node") == 1


def test_compact_merges_segments_and_a_reader_of_old_ones_lists_again(host, tmp_path):
    writer, reader = host("a"), host("reader")
    for n in range(12):
        writer.put(f"{n}", n)
        writer.put(f"large {n}", b"x" * 1_100_000)
        writer.flush()
    writer.delete("3")
    assert reader.get("0") == 0
    assert len(files(tmp_path)) == 13
    done = writer.compact()
    assert (done.merged, done.deleted, len(files(tmp_path))) == (13, 0, 14)
    assert reader.get("1") == 1  # The old segments stay for a while.
    done = host("another").compact(grace=0)
    assert (done.merged, done.deleted, len(files(tmp_path))) == (0, 13, 1)
    wanted = {f"{n}": n for n in range(12)} | {f"large {n}": b"x" * 1_100_000 for n in range(12)}
    del wanted["3"]
    assert reader.get_many([*wanted, "3"]) == wanted
    assert host("new").get_many([*wanted, "3"]) == wanted


def test_compact_keeps_entries_of_every_key(host):
    for key in ("one", "two"):
        with host(key, key=key) as cache:
            cache.put(key, key)
    cache.compact(grace=0)
    cache.compact(grace=0)
    assert host("b", key="one").get("one") == "one"
    assert host("c", key="two").get("two") == "two"


def test_compact_deletes_old_large_values_that_no_entry_names(host, tmp_path):
    with host("a") as cache:
        cache.put("large", b"x" * 1_500_000)
    (named,) = files(tmp_path, "values")
    for path in (named, named.with_name("old")):
        path.touch()
        os.utime(path, (0, 0))
    named.with_name("new").touch()  # The segment that names it may not be written yet.
    assert host("b").compact(grace=0).values == 1
    assert {path.name for path in files(tmp_path, "values")} == {named.name, "new"}
    assert host("c").get("large") == b"x" * 1_500_000


def test_a_process_pool_has_written_to_the_tier_when_its_run_ends(host):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        assert computed(host("a"), engine=HyperNodesEngine(map_executor=pool)) == 0
    assert computed(host("b")) == 0


def test_a_forked_process_uses_its_directory_and_does_not_hang(host):
    cache = host("a")
    assert computed(cache) == 50
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        assert computed(cache, 80, engine=HyperNodesEngine(map_executor=pool)) == 0
    assert computed(host("b"), 80) == 0


def test_an_address_that_is_none_and_a_missing_package_are_errors_at_once(tmp_path, monkeypatch):
    for wrong in ("bucket", "ftp://host/x", "s3://", "file://", "s3://user:secret@bucket/x"):
        with pytest.raises(ValueError, match="DiskCache: remote"):
            DiskCache(tmp_path, remote=wrong)
    with pytest.raises(TypeError):
        DiskCache(tmp_path, remote=3)
    monkeypatch.setattr("hypernodes.cache.remote.address.find_spec", lambda name: None)
    with pytest.raises(ExtraMissingError, match=r"pip install 'hypernodes-ray\[remote\]'"):
        DiskCache(tmp_path, remote="s3://bucket/x")
    with pytest.raises(ValueError, match="has no remote tier"):
        DiskCache(tmp_path).push()


def test_a_pickled_cache_has_its_tier_and_no_credentials(host, url, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "topsecret")
    cache = host("a")
    assert b"topsecret" not in pickle.dumps(cache)
    again = pickle.loads(pickle.dumps(cache))
    assert (again, again.remote) == (cache, url)
    assert cache != DiskCache(cache.path)


def test_the_command_pushes_pulls_compacts_and_counts(url, tmp_path):
    with DiskCache(tmp_path / "a") as cache:
        assert computed(cache) == 50

    def command(where, *arguments):
        done = CliRunner().invoke(
            main,
            ["cache", "--path", str(tmp_path / where), "--remote", url, *arguments],
            catch_exceptions=False,
        )
        assert done.exit_code == 0, done.output
        return done.output

    assert "51 entries pushed" in command("a", "push")
    assert "0 entries pushed" in command("a", "push")
    assert "51 entries pulled" in command("b", "pull")
    assert json.loads(command("b", "pull", "--json")) == {"pulled": 0}
    counted = json.loads(command("b", "stats", "--json"))
    assert (counted["entries"], counted["remote"]["entries"]) == (50, 50)
    assert url in command("b", "stats")
    assert "0 segments merged" in command("b", "compact")
    command("b", "clear", "--both", "--yes")
    assert json.loads(command("a", "stats", "--json"))["remote"]["entries"] == 0
    assert computed(DiskCache(tmp_path / "a")) == 0
    without = CliRunner().invoke(main, ["cache", "--path", str(tmp_path / "a"), "push"])
    assert without.exit_code == 2
    assert "needs a remote tier" in without.output


def test_the_example_shares_results_between_two_hosts():
    example = Path(__file__).parents[1] / "examples/caching/share_a_cache.py"
    done = subprocess.run([sys.executable, example], check=True, capture_output=True, text=True)
    assert done.stdout.splitlines() == [
        "first host: 200 computed, 0 from the cache",
        "second host: 0 computed, 200 from the cache",
        "first host: 0 computed, 200 from the cache",
        "the tier: 200 entries",
    ]


# ------------------------------------------------------------------------------ a bucket


@pytest.fixture(scope="module")
def s3():
    with proxied_s3() as proxy:
        yield proxy


@pytest.fixture
def bucket(s3, request):
    s3.take()
    yield f"s3://bucket/{request.node.name}"
    s3.latency, s3.refuses = 0.0, None
    s3.hangs.clear()


def test_many_small_entries_take_few_requests_of_a_slow_bucket(host, s3, bucket):
    number = 10_000
    with host("a", bucket) as cache:
        for n in range(number):
            cache.put(f"{n}", n)
    assert len(s3.take()) < 30
    s3.latency = 0.05
    reader = host("b", bucket)
    for start in range(0, number, 100):  # as a map looks items up while look-ups are slow
        block = {f"{n}": n for n in range(start, start + 100)}
        assert reader.get_many(block) == block
    taken = s3.take()
    assert len(taken) < 40  # 10⁵ entries may take 500 requests.
    assert sum(size for *_, size in taken) < 10_000_000


def test_runs_share_results_through_a_bucket(host, s3, bucket):
    assert computed(host("a", bucket)) == 50
    assert computed(host("b", bucket)) == 0
    s3.take()
    assert computed(host("b", bucket)) == 0
    assert s3.take() == []  # What the directory has is not looked up elsewhere.


def test_a_forbidden_bucket_is_one_warning_and_a_request_or_two(host, s3, bucket):
    s3.refuses = lambda method, path: 403
    with pytest.warns(CacheWarning) as caught:
        cache = host("a", bucket)
        assert computed(cache, 500) == 500
        assert computed(cache, 600) == 100
    assert "403" in only_warning(caught)
    assert len(s3.take()) < 6


def test_a_bucket_that_can_only_be_read_is_read(host, s3, bucket):
    assert computed(host("a", bucket)) == 50
    s3.refuses = lambda method, path: 403 if method == "PUT" else None
    with pytest.warns(CacheWarning) as caught:
        assert computed(host("b", bucket), 60) == 10
    assert "cannot be written" in only_warning(caught)
    s3.refuses = None
    assert host("b", bucket).push() == 10
    assert computed(host("c", bucket), 60) == 0


def test_a_bucket_that_does_not_answer_costs_one_timeout(host, s3, bucket, monkeypatch):
    monkeypatch.setattr(objects, "_REQUEST_TIMEOUT", "500ms")
    monkeypatch.setattr(objects, "_MAX_RETRIES", 0)
    s3.hangs.set()
    with pytest.warns(CacheWarning) as caught:
        assert computed(host("a", bucket), 500) == 500
    assert "cannot be read" in only_warning(caught)


def test_a_host_that_is_not_there_costs_one_warning(host, monkeypatch):
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.warns(CacheWarning) as caught:
        assert computed(host("a", "s3://bucket/x"), 500) == 500
    assert "s3://bucket/x" in only_warning(caught)
    with pytest.raises(ConnectionError, match="cannot be used"):
        host("a", "s3://bucket/x").pull()


def test_killed_writers_leave_no_part_of_an_object(host, s3, bucket, tmp_path):
    script = (
        "import sys; from hypernodes import DiskCache\n"
        "cache = DiskCache(sys.argv[1], remote=sys.argv[2])\n"
        "for n in range(30): cache.put(str(n), bytes([n]) * 2_000_000)\n"
        "print(flush=True); cache.flush()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a"), bucket], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    while not any(method == "PUT" for method, *_ in s3.requests):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wanted = {str(n): bytes([n]) * 2_000_000 for n in range(30)}
    found = host("b", bucket).get_many(wanted)
    assert found == {key: wanted[key] for key in found}
    host("a", bucket).push()
    assert host("c", bucket).get_many(wanted) == wanted


def test_a_small_directory_reads_from_the_tier_what_it_cannot_keep(host, s3, bucket):
    with host("a", bucket) as cache:
        for n in range(3000):
            cache.put(f"{n}", bytes(1000))
    s3.take()
    reader = host("b", bucket, size_limit=100_000)
    for start in range(0, 3000, 100):
        assert len(reader.get_many(f"{n}" for n in range(start, start + 100))) == 100
    taken = s3.take()
    assert len(taken) < 40
    assert sum(size for *_, size in taken) < 6_000_000
    assert reader.stats().bytes <= 100_000


def test_a_directory_that_cannot_be_written_reads_from_the_tier(host, tmp_path):
    assert computed(host("a")) == 50
    (tmp_path / "b").write_text("")
    with pytest.raises(NotADirectoryError):
        host("b")
    cache = host("c")
    assert cache.get("nothing") is MISS
    for path in (tmp_path / "c").iterdir():
        path.unlink()
    (tmp_path / "c").rmdir()
    assert computed(cache) == 0
