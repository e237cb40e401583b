"""What a cache on disk survives: kills, damage, full disks, deleted directories, other processes."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.cache.about import About, Part, Taken
from hypernodes.config import MISS
from hypernodes.exceptions import CacheWarning


def python(source, *arguments, **options):
    """Start a Python process that runs some source."""
    command = [sys.executable, "-c", textwrap.dedent(source), *map(str, arguments)]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def output_of(source, *arguments, **options):
    process = python(source, *arguments, **options)
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0, err
    return out


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


# ------------------------------------------------------------------------------------------- kills

WRITER = """
    import sys, numpy as np
    from hypernodes import DiskCache
    cache = DiskCache(sys.argv[1])
    print("ready", flush=True)
    number = int(sys.argv[2])
    while True:
        number += 1
        size = (3, 100, 20_000)[number % 3]
        cache.put(f"{number % 500:040}", np.full(size, number % 500))
        if number % 7 == 0:
            cache.flush()
"""


@pytest.mark.timeout(400)
def test_what_two_hundred_kills_leave_behind_is_right_or_a_miss(directory):
    chance = random.Random(1)
    writers = [python(WRITER, directory, at * 1000) for at in range(4)]
    for kill in range(200):
        at = kill % 4
        if kill < 4 or writers[at].poll() is None:
            writers[at].stdout.readline()  # it is about to write
        time.sleep(chance.uniform(0, 0.03))
        os.kill(writers[at].pid, signal.SIGKILL)
        writers[at].communicate()
        writers[at] = python(WRITER, directory, kill * 37)
    for writer in writers:
        os.kill(writer.pid, signal.SIGKILL)
        writer.communicate()
    with warnings.catch_warnings(), DiskCache(directory) as cache:
        warnings.simplefilter("error")
        right = 0
        for number in range(500):
            value = cache.get(f"{number:040}")
            if value is not MISS:
                assert set(value.tolist()) == {number}
                right += 1
        assert right > 100
        assert cache.verify().damaged == {}
        cache.put("after", 1)
        cache.flush()
        assert cache.get("after") == 1


# ------------------------------------------------------------------------------------------ damage


def evil(mark):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    return Evil()


def damage_row(cache, change):
    with contextlib.closing(sqlite3.connect(cache.path / "cache.db")) as database, database:
        ((value,),) = database.execute("SELECT value FROM Cache WHERE key = 'entry'").fetchall()
        database.execute("UPDATE Cache SET value = ? WHERE key = 'entry'", (change(value),))


def damage_file(cache, change):
    (file,) = cache.path.glob("??/??/*.val")
    file.write_bytes(change(file.read_bytes()))


DAMAGES = {
    "a flipped byte at the end": lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
    "a flipped byte in the middle": lambda entry: (
        entry[: len(entry) // 2] + bytes([entry[len(entry) // 2] ^ 1]) + entry[len(entry) // 2 + 1 :]
    ),
    "a flipped byte in the lengths": lambda entry: entry[:21] + bytes([entry[21] ^ 255]) + entry[22:],
    "half of it": lambda entry: entry[: len(entry) // 2],
    "its head": lambda entry: entry[:10],
    "nothing": lambda entry: b"",
    "something else": lambda entry: b"something else, of another program",
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("size", "change"), [(10, damage_row), (100_000, damage_file)], ids=["row", "file"])
def test_of_a_damaged_entry_there_is_nothing_left_to_load(directory, size, change, damage):
    with DiskCache(directory) as cache:
        cache.put("entry", np.zeros(size, np.uint8))
        cache.flush()
        change(cache, DAMAGES[damage])
        assert len(cache.verify().damaged) == 1
        with pytest.warns(CacheWarning, match="dropped and computed again") as told:
            assert cache.get("entry") is MISS
        assert len(told) == 1
        assert cache.get("entry") is MISS
        assert len(cache) == 0
        cache.put("entry", 1)
        assert cache.get("entry") == 1


@pytest.mark.parametrize("padding", [10, 100_000], ids=["row", "file"])
def test_a_forged_entry_runs_no_code_where_there_is_a_key(directory, tmp_path, padding):
    mark = tmp_path / "mark"
    with DiskCache(directory) as forger:
        forger.put("entry", [evil(mark), b"." * padding])
    with DiskCache(directory, key="secret") as cache, pytest.warns(CacheWarning, match="another key"):
        assert cache.get("entry") is MISS
        assert cache.get_many(["entry"]) == {}
        assert list(cache.verify().damaged) == ["entry"]
    assert not mark.exists()
    with DiskCache(directory) as unwary:
        unwary.get("entry")
    assert mark.exists()  # a forgery it was


def test_an_entry_of_another_key_stays_for_those_who_have_it(directory):
    with DiskCache(directory, key="one") as one:
        one.put("entry", 1)
    with DiskCache(directory, key="two") as two, pytest.warns(CacheWarning) as told:
        assert two.get("entry") is MISS
        assert two.get("entry") is MISS
    assert len(told) == 1
    with DiskCache(directory, key="one") as one:
        assert one.get("entry") == 1


def test_a_directory_that_others_can_write_to_is_told_unless_there_is_a_key(directory):
    directory.mkdir()
    directory.chmod(0o777)
    with (
        pytest.warns(CacheWarning, match=r"chmod go-w.*or give a key") as told,
        DiskCache(directory) as cache,
    ):
        cache.put("entry", 1)
        assert cache.get("entry") == 1
    assert len(told) == 1
    with DiskCache(directory, key="secret") as cache:
        cache.put("entry", 1)
        assert cache.get("entry") == 1


def test_a_new_directory_is_its_owners(directory):
    with DiskCache(directory) as cache:
        cache.put("entry", 1)
    assert directory.stat().st_mode & 0o077 == 0


# ---------------------------------------------------------------------------------------- big values


def test_a_loaded_array_can_be_changed_and_the_entry_stays(directory):
    with DiskCache(directory) as cache:
        for size in (10, 1_000_000):
            cache.put("entry", np.zeros(size))
            first, second = cache.get("entry"), cache.get("entry")
            first[:] = 1
            assert second.sum() == 0
            assert cache.get("entry").sum() == 0


def test_what_is_put_is_kept_as_it_was_then(directory):
    with DiskCache(directory) as cache:
        for value in (np.zeros(10), np.zeros(1_000_000)):
            cache.put("entry", value)
            value[:] = 1
            assert cache.get("entry").sum() == 0
            cache.flush()
            assert cache.get("entry").sum() == 0


def test_large_values_take_no_second_copy_in_memory(directory):
    with DiskCache(directory) as cache:
        cache.put("entry", {"a": np.arange(1_000_000), "b": [np.ones(500_000)]})
        loaded = cache.get("entry")
        base = loaded["a"]
        while isinstance(base, np.ndarray):
            base = base.base
        assert "mmap" in repr(base.obj if isinstance(base, memoryview) else base)
        assert loaded["a"][-1] == 999_999
        assert loaded["b"][0].sum() == 500_000


def test_values_of_any_shape_come_back(directory):
    values = [None, 0, "", b"", [], (), {"a": [1]}, np.zeros((0, 3)), np.ones((300, 300)).T, "x" * 100_000]
    with DiskCache(directory) as cache:
        for number, value in enumerate(values):
            cache.put(str(number), value)
        cache.close()
        for number, value in enumerate(values):
            np.testing.assert_equal(cache.get(str(number)), value)


# --------------------------------------------------------------------------------------------- disks

FULL = """
    import resource, signal, sys, warnings
    from hypernodes import DiskCache, Pipeline, node
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    cache = DiskCache(sys.argv[1])
    cache.put("first", 1)
    cache.flush()
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pipeline = Pipeline([node(lambda x: bytes([x]) * 1_000_000, output_name="y")], cache=cache)
        for x in (1, 2, 1):
            assert pipeline(x=x)["y"] == bytes([x]) * 1_000_000
    print([str(one.message).partition(": ")[2][:18] for one in told])
"""


def test_a_full_disk_costs_the_entry_and_leaves_no_half_of_it(directory):
    assert output_of(FULL, directory) == "['cannot be written ']\n"
    assert list(directory.glob("??/??/*.val")) == []
    with DiskCache(directory) as cache:
        assert cache.get("first") == 1
        assert cache.verify().damaged == {}


READ_ONLY = """
    import os, sys, warnings
    import numpy
    from hypernodes import DiskCache, Pipeline, node
    DiskCache(sys.argv[2]).put("entry", 1)  # imports what root alone may be able to read
    if os.geteuid() == 0:  # root may write anywhere
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cache = DiskCache(sys.argv[1])
        print(cache.get("small"), cache.get("large").sum(), [cache.get("none")], len(cache))
        cache.put("more", 1)
        cache.flush()
        cache.put("still more", 1)
        cache.flush()
    print([str(one.message).partition(": ")[2][:18] for one in told])
"""


def test_a_read_only_directory_is_read(tmp_path):
    import tempfile

    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent)
        path.chmod(0o755)
        (path / "other").mkdir()
        with DiskCache(path / "cache") as cache:
            cache.put("small", 1)
            cache.put("large", np.ones(100_000))
        for file in (path / "cache").rglob("*"):
            file.chmod(0o555 if file.is_dir() else 0o444)
        (path / "cache").chmod(0o555)
        out = output_of(READ_ONLY, path / "cache", path / "other")
        for directory in [path / "cache", *(path / "cache").rglob("*")]:
            directory.chmod(0o755)
    assert out == "1 100000.0 [MISS] 2\n['cannot be written ']\n"


def test_a_deleted_directory_is_made_again(directory):
    import shutil

    with DiskCache(directory) as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        cache.put("one", 1)
        cache.flush()
        shutil.rmtree(directory)
        cache.put("two", 2)
        cache.flush()
        cache.put("three", np.zeros(100_000))
        assert cache.get("two") == 2
    with DiskCache(directory) as cache:
        assert set(cache) == {"two", "three"}


def test_the_least_recently_used_goes_first(directory):
    with DiskCache(directory, size_limit=1_000_000) as cache:
        for number in range(9):
            cache.put(str(number), bytes(100_000))
        assert len(cache) == 9
        cache.get("0")
        for number in range(9, 15):
            cache.put(str(number), bytes(100_000))
        kept = set(cache)
        assert "0" in kept
        assert "14" in kept
        assert "1" not in kept
        assert cache.stats().bytes <= 1_000_000


def test_small_entries_are_limited_too(directory):
    with DiskCache(directory, size_limit=20_000) as cache:
        for number in range(1000):
            cache.put(str(number), b"x" * 100)
        assert 50 < len(cache) < 200
        assert cache.get("999") == b"x" * 100
        assert cache.get("0") is MISS


def test_entries_expire(directory):
    with DiskCache(directory, expire=0.3) as cache:
        cache.put("entry", 1)
        cache.flush()
        assert cache.get("entry") == 1
        time.sleep(0.4)
        assert cache.get("entry") is MISS
        assert cache.contains(["entry"]) == set()
        assert len(cache) == 0


@pytest.mark.parametrize("options", [{"size_limit": 0}, {"expire": -1}])
def test_limits_that_keep_nothing_are_refused(directory, options):
    with pytest.raises(ValueError, match="must be more than 0"):
        DiskCache(directory, **options)


# ---------------------------------------------------------------------------------- other processes

MANY = """
    import sys
    from hypernodes import DiskCache
    first = int(sys.argv[2])
    cache = DiskCache(sys.argv[1])
    for number in range(first, first + 500):
        cache.put(str(number), [number] * (1 + number % 9000))
"""


def test_several_writers_lose_nothing(directory):
    writers = [python(MANY, directory, first) for first in (0, 250, 500, 750)]
    for writer in writers:
        _, err = writer.communicate(timeout=100)
        assert writer.returncode == 0, err
    with DiskCache(directory) as cache:
        assert len(cache) == 1250
        for number in range(1250):
            assert cache.get(str(number)) == [number] * (1 + number % 9000)


def test_entries_are_soon_seen_by_others_without_a_flush(directory):
    with DiskCache(directory) as cache:
        cache.put("entry", 1)
        with DiskCache(directory) as other:
            until = time.monotonic() + 20
            while other.get("entry") is MISS:
                assert time.monotonic() < until
                time.sleep(0.01)


def test_nothing_is_lost_when_a_program_ends_without_closing(directory):
    ending = "import sys; from hypernodes import DiskCache; c = DiskCache(sys.argv[1]); c.put(sys.argv[2], 1)"
    output_of(ending, directory, "one")
    output_of(ending + "; sys.exit()", directory, "two")
    with DiskCache(directory) as cache:
        assert set(cache) == {"one", "two"}


FORK = """
    import os, sys
    from hypernodes import DiskCache
    cache = DiskCache(sys.argv[1])
    for number in range(100):
        cache.put(f"parent {number}", number)
    child = os.fork()
    if not child:
        cache.put("child", 1)
        cache.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert cache.get("child") == 1
"""


def test_a_forked_process_has_its_own_part(directory):
    output_of(FORK, directory)
    with DiskCache(directory) as cache:
        assert len(cache) == 101


def test_threads_share_a_cache(directory):
    with DiskCache(directory) as cache:

        def work(first):
            for number in range(first, first + 300):
                cache.put(str(number), number)
                assert cache.get(str(number)) == number

        threads = [threading.Thread(target=work, args=(first,)) for first in (0, 300, 600)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(cache) == 900


MAIN_CLASS = """
    import sys
    from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node

    class Model:
        def __init__(self, w):
            self.w = w

    @node(output_name="model")
    def fitted(x):
        return Model(x)

    if __name__ == "__main__":
        with HyperNodesEngine(map_executor=sys.argv[2]) as engine, DiskCache(sys.argv[1]) as cache:
            pipeline = Pipeline([fitted], cache=cache, engine=engine)
            models = pipeline.map({"x": [1, 2]}, map_over="x")["model"]
            print([isinstance(model, Model) for model in models], [m.w for m in models], cache.stats().hits)
"""


@pytest.mark.parametrize("executor", ["sequential", "parallel"])
def test_objects_of_a_scripts_own_class_come_back_as_such(directory, tmp_path, executor):
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(MAIN_CLASS))
    run = [sys.executable, script, directory, executor]
    subprocess.run(run, check=True, capture_output=True)
    second = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    assert second == "[True, True] [1, 2] 2\n"


# ------------------------------------------------------------------------------------- what is kept


def test_it_is_known_how_an_entry_was_made(directory):
    about = About("node", "c0de", {"x": Taken("1d", "", "5"), "m": Taken("2d", "fit")}, 0.5)
    with DiskCache(directory) as cache:
        cache.put("small", 1, about)
        cache.put("large", np.zeros(100_000), about)
        cache.keep_code("c0de", {"own code": Part("ab")})
        for _ in range(2):
            assert cache.about("small") == cache.about("large") == about
            assert {entry.signature: entry.about for entry in cache.entries("node")} == {
                "small": about,
                "large": about,
            }
            assert list(cache.entries("another")) == []
            assert cache.code("c0de") == {"own code": Part("ab")}
            assert cache.code("unknown") == {}
            assert cache.about("unknown") is None
            assert len(cache) == 2
            cache.close()


def test_hits_are_counted_by_node_in_all_processes(directory):
    @node(output_name="y")
    def square(x):
        return x * x

    with DiskCache(directory) as cache:
        pipeline = Pipeline([square], cache=cache)
        pipeline.map({"x": range(10)}, map_over="x")
        pipeline.map({"x": range(10)}, map_over="x")
        pipeline.run({"x": 1})
        assert cache.stats().by_node["square"].hits == 11
    with DiskCache(directory) as cache:
        assert cache.stats().hits == 11
        assert cache.stats().entries == 10


def test_entries_can_be_dropped_by_node_by_age_and_by_name(directory):
    with DiskCache(directory) as cache:
        cache.put("one", 1, About("a"))
        cache.put("two", 2, About("b"))
        cache.put("three", 3, About("b"))
        assert cache.clear(older_than=60) == 0
        assert cache.clear(node="a") == 1
        assert set(cache) == {"two", "three"}
        assert cache.delete("two", "unknown") == 1
        assert cache.clear(older_than=0) == 1
        assert len(cache) == 0


def test_a_result_that_does_not_pickle_is_told_once_with_its_node(directory):
    @node(output_name="lock")
    def locked(x):
        return threading.Lock()

    with DiskCache(directory) as cache, pytest.warns(CacheWarning, match="of node 'locked'") as told:
        pipeline = Pipeline([locked], cache=cache, engine=HyperNodesEngine(map_executor="threaded"))
        pipeline.map({"x": range(5)}, map_over="x")
        pipeline.run({"x": 1})
    assert len(told) == 1


def test_a_file_that_a_dead_writer_has_left_is_removed(directory):
    with DiskCache(directory) as cache:
        cache.put("entry", np.zeros(100_000))
        cache.flush()
        (file,) = directory.glob("??/??/*.val")
        old, young = file.with_name("0" * 28 + ".val"), file.with_name("1" * 28 + ".val")
        for left in (old, young):
            left.write_bytes(b"half")
        os.utime(old, (time.time() - 3600,) * 2)
        assert cache.verify().orphans == 1
        assert young.exists()
        assert not old.exists()
        assert cache.get("entry").shape == (100_000,)


def test_a_cache_knows_its_like():
    assert DiskCache("a") == DiskCache("a") != DiskCache("b")
    assert DiskCache("a", key="k") != DiskCache("a")
    assert Path("a").absolute() == DiskCache("a").path
