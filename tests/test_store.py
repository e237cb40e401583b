"""What a cache on disk survives: kills, damage, full disks, deleted directories, other processes."""

import contextlib
import gc
import hashlib
import os
import pickle
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.cache.entry import seal
from hypernodes.cache.provenance import ArgumentProvenance, CodePart, Provenance
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

WRITERS = """
    import os, signal, sys, numpy as np
    from hypernodes import DiskCache

    def write(number):
        cache = DiskCache(sys.argv[1])
        print(os.getpid(), flush=True)
        while True:
            number += 1
            size = (3, 100, 20_000)[number % 3]
            cache.put(f"{number % 500:040}", np.full(size, number % 500))
            if number % 7 == 0:
                cache.flush()

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:  # a process that has imported all this already, for each line
        if not os.fork():
            write(int(line))
"""


@pytest.mark.timeout(400)
def test_after_two_hundred_kills_each_entry_is_right_or_a_miss(directory):
    chance = random.Random(1)
    parents = [python(WRITERS, directory, stdin=subprocess.PIPE) for _ in range(4)]

    def start(at, number):
        parents[at].stdin.write(f"{number}\n")
        parents[at].stdin.flush()

    for at in range(4):
        start(at, at * 1000)
    for count in range(200):
        pid = int(parents[count % 4].stdout.readline())  # The process is about to write.
        time.sleep(chance.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        start(count % 4, count * 37)
    with DiskCache(directory) as cache:
        while len(set(cache)) <= 200:  # On a busy machine, most writers are killed before they write much.
            time.sleep(0.05)
    for parent in parents:
        os.kill(int(parent.stdout.readline()), signal.SIGKILL)
        parent.communicate()
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
def test_a_damaged_entry_is_dropped_and_not_loaded(directory, size, change, damage):
    with DiskCache(directory) as cache:
        cache.put("entry", np.zeros(size, np.uint8))
        cache.flush()
        change(cache, DAMAGES[damage])
        assert len(cache.verify().damaged) == 1
        with pytest.warns(CacheWarning, match="dropped and computed again") as caught:
            assert cache.get("entry") is MISS
        assert len(caught) == 1
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
    assert mark.exists()  # The forged entry would run code.


def test_an_entry_of_another_key_is_not_dropped(directory):
    with DiskCache(directory, key="one") as one:
        one.put("entry", 1)
    with DiskCache(directory, key="two") as two, pytest.warns(CacheWarning) as caught:
        assert two.get("entry") is MISS
        assert two.get("entry") is MISS
    assert len(caught) == 1
    with DiskCache(directory, key="one") as one:
        assert one.get("entry") == 1


def test_a_directory_that_others_can_write_to_is_warned_of_unless_there_is_a_key(directory):
    directory.mkdir()
    directory.chmod(0o777)
    with (
        pytest.warns(CacheWarning, match=r"chmod go-w.*or give a key") as caught,
        DiskCache(directory) as cache,
    ):
        cache.put("entry", 1)
        assert cache.get("entry") == 1
    assert len(caught) == 1
    with DiskCache(directory, key="secret") as cache:
        cache.put("entry", 1)
        assert cache.get("entry") == 1


def test_only_its_owner_can_access_a_new_directory(directory):
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


def test_changing_a_value_after_put_does_not_change_the_entry(directory):
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


@pytest.fixture
def mapped_files(directory):
    """Count the value files that are mapped into memory, while only reference counts free memory."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list mapped files")
    gc.collect()
    gc.disable()
    yield lambda: sum(str(directory) in line and ".val" in line for line in maps.read_text().splitlines())
    gc.enable()


def test_a_mapped_file_is_closed_when_the_value_is_dropped(directory, mapped_files):
    with DiskCache(directory) as cache:
        for key in "abc":
            cache.put(key, {"array": np.ones(1_000_000)})
        loaded = cache.get_many("abc")
        assert mapped_files() == 3
        part = loaded["a"]["array"][:10]
        del loaded
        assert mapped_files() == 1
        assert part.sum() == 10
        del part
        assert mapped_files() == 0


class Unreadable:
    """An object that can be pickled, and not unpickled."""

    def __init__(self):
        self.array = np.ones(1_000_000)

    def __setstate__(self, state):
        raise ValueError("there is no way back")


@pytest.mark.filterwarnings("ignore:cache:hypernodes.exceptions.CacheWarning")
def test_a_mapped_file_is_closed_when_the_entry_cannot_be_used(directory, mapped_files):
    with DiskCache(directory) as cache:
        cache.put("unreadable", Unreadable())
        cache.put("damaged", np.ones(1_000_000))
        cache.flush()
        for file in directory.rglob("*.val"):
            if b"Unreadable" not in file.read_bytes():
                with file.open("r+b") as opened:
                    opened.seek(5000)
                    opened.write(b"damage")
        assert cache.get_many(["unreadable", "damaged"]) == {}
        assert mapped_files() == 0


def test_a_cache_that_is_dropped_is_freed_at_once(directory, mapped_files):
    cache = DiskCache(directory)
    cache.put("entry", 1)
    cache.close()
    reference = weakref.ref(cache)
    del cache
    assert reference() is None


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
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        pipeline = Pipeline([node(lambda x: bytes([x]) * 1_000_000, output_name="y")], cache=cache)
        for x in (1, 2, 1):
            assert pipeline(x=x)["y"] == bytes([x]) * 1_000_000
    print([str(one.message).partition(": ")[2][:18] for one in caught])
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
    with DiskCache(sys.argv[2]) as other:
        other.put("entry", 1)  # This imports all modules, which perhaps only root can read.
    if os.geteuid() == 0:  # Root could write to the directory.
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        cache = DiskCache(sys.argv[1])
        print(cache.get("small"), cache.get("large").sum(), [cache.get("none")], len(cache))
        cache.put("more", 1)
        cache.flush()
        cache.put("still more", 1)
        cache.flush()
    print([str(one.message).partition(": ")[2][:18] for one in caught])
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


# ------------------------------------------------------------------------------------- forged rows

FILE = "0" * 28 + ".val"
NAME = f"ab/cd/{FILE}"
NAME_AND_NUL = f"{NAME}\0/../../../outside/file".encode().hex()


class Forgery:
    """A cache directory, and a forger who can write to it, but not to the files beside it."""

    def __init__(self, tmp_path):
        self.directory = tmp_path / "cache"
        self.outside = tmp_path / "outside"
        self.mark = tmp_path / "code was run"
        self.pickle = pickle.dumps(evil(self.mark))
        self.folder = self.directory / "00"
        (self.outside / "cd").mkdir(parents=True)
        for path in (self.outside / "file", self.outside / "cd" / FILE):
            path.write_bytes(self.pickle)
            os.utime(path, (1e9, 1e9))
        self.before = self.state()

    def state(self):
        return {path: path.is_file() and path.read_bytes() for path in self.outside.rglob("*")}

    def is_harmless(self):
        return not self.mark.exists() and self.state() == self.before

    def sql(self, statement, *arguments):
        with contextlib.closing(sqlite3.connect(self.directory / "cache.db")) as database, database:
            return database.execute(statement, arguments).fetchall()

    def row(self, key, columns, **more):
        """Write a row like those of the library, except for some columns, which are given in SQL."""
        whole = {
            "key": f"'{key}'", "raw": "1", "store_time": "1e9", "access_time": "1e9", "tag": "'node'",
            "size": "1", "mode": "1", "filename": "NULL", "value": "x'00'",
        } | columns | more  # fmt: skip
        self.sql(f"INSERT OR REPLACE INTO Cache ({', '.join(whole)}) VALUES ({', '.join(whole.values())})")

    def clean(self):
        """Remove the last forgery, and use another folder without values for the next one."""
        outer, inner, file = self.folder, self.folder / "cd", self.folder / "cd" / FILE
        for path in (outer, inner, file):
            if path.is_symlink() or (path.exists() and not path.is_dir()):
                path.unlink()
        if file.is_dir():
            file.rmdir()
        free = (self.directory / f"{number:02x}" for number in range(256))
        self.folder = next(folder for folder in free if not folder.exists())

    def place(self):
        """Return a path of the form of the library's own value files."""
        (self.folder / "cd").mkdir(parents=True)
        return self.folder / "cd" / FILE

    def forge(self, form, key="forged", **more):
        self.clean()
        name = f"{self.folder.name}/cd/{FILE}"
        self.row(key, ROWS.get(form, {"mode": "2", "filename": f"'{name}'", "value": "NULL"}), **more)
        if form == "a pickle":
            self.row(key, {"mode": "4", "value": f"x'{self.pickle.hex()}'"}, **more)
        elif form == "the file of a pickle":
            (self.directory / "file").write_bytes(self.pickle)
            self.row(key, {"mode": "4", "value": "NULL", "filename": "'file'"}, **more)
        elif form in ("a file above", "a pickle above", "a text above"):
            mode = {"a file above": "2", "a pickle above": "4", "a text above": "3"}[form]
            self.row(key, {"mode": mode, "value": "NULL", "filename": "'../outside/file'"}, **more)
        elif form == "an absolute path":
            self.row(key, {"mode": "2", "value": "NULL", "filename": f"'{self.outside}/file'"}, **more)
        elif form == "a longer way":
            name = f"ab/cd/../../../outside/{'0' * 28}.val"
            self.row(key, {"mode": "2", "value": "NULL", "filename": f"'{name}'"}, **more)
        elif form == "a small value with a file":
            self.row(key, {"filename": "'../outside/file'"}, **more)
        elif form == "a link to a file":
            self.place().symlink_to(self.outside / "file")
        elif form == "a link to a folder":
            self.folder.symlink_to(self.outside)
        elif form == "an inner link to a folder":
            self.place().parent.rmdir()
            (self.folder / "cd").symlink_to(self.outside / "cd")
        elif form == "a pipe":
            os.mkfifo(self.place())
        elif form == "a folder":
            self.place().mkdir()
        elif form == "a socket":
            self.place()
            with contextlib.chdir(self.folder / "cd"), socket.socket(socket.AF_UNIX) as made:
                made.bind(FILE)
        elif form not in ROWS:
            raise ValueError(form)


ROWS = {
    "a number": {"value": "7"},
    "a fraction": {"value": "0.5"},
    "nothing": {"value": "NULL"},
    "a text": {"value": "'text'"},
    "a text that is no UTF-8": {"value": "CAST(x'ff' AS TEXT)"},
    "no mode": {"mode": "NULL"},
    "a mode that is none": {"mode": "'mode'"},
    "a name with a NUL": {"mode": "2", "value": "NULL", "filename": f"CAST(x'{NAME_AND_NUL}' AS TEXT)"},
    "a name that is no UTF-8": {"mode": "2", "value": "NULL", "filename": "CAST(x'ff' AS TEXT)"},
    "a blob for a name": {"mode": "2", "value": "NULL", "filename": f"x'{NAME.encode().hex()}'"},
    "no name": {"mode": "2", "value": "NULL", "filename": "NULL"},
    "a number for a tag": {"tag": "7"},
    "a tag that is no UTF-8": {"tag": "CAST(x'ff1b5b324a' AS TEXT)"},
    "no time of use": {"access_time": "NULL"},
    "a text for a time of use": {"access_time": "'x'"},
    "a number and a text for a size": {"value": "7", "size": "'x'"},
    "a number and no size": {"value": "7", "size": "NULL"},
    "a number and a text for a time": {"value": "7", "store_time": "'x'"},
    "a number and a text for an end": {"value": "7", "expire_time": "'x'"},
}  # fmt: skip
FORMS = [
    *ROWS, "a pickle", "the file of a pickle", "a file above", "a pickle above", "a text above",
    "an absolute path", "a longer way", "a small value with a file", "a link to a file", "a link to a folder",
    "an inner link to a folder", "a pipe", "a folder", "a socket",
]  # fmt: skip


@pytest.fixture
def forgery(tmp_path):
    return Forgery(tmp_path)


both = pytest.mark.parametrize("key", [None, "secret"], ids=["no key", "key"])


@both
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.timeout(60)
def test_a_forged_row_is_one_damaged_entry(forgery, form, key):
    with DiskCache(forgery.directory, key=key) as cache:
        cache.put("small", 1, Provenance("node"))
        cache.put("large", np.ones(100_000, np.uint8), Provenance("node"))
        cache.flush()
        forgery.forge(form)
        with pytest.warns(CacheWarning, match="an entry is .*computed again") as caught:
            found = cache.get_many(["small", "forged", "large"])
            assert cache.get("forged") is MISS
        assert len(caught) == 1
        assert set(found) == {"small", "large"}
        assert found["large"].sum() == 100_000
        forgery.forge(form)
        assert {"small", "large"} <= cache.contains(["small", "forged", "large"])
        assert {"small", "large"} <= {entry.signature for entry in cache.entries("node")}
        assert cache.about("forged") is None
        assert cache.code_parts("forged") == {}
        assert cache.stats().entries >= 2
        assert forgery.is_harmless()


@both
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.timeout(60)
def test_a_file_that_a_forged_row_names_is_not_removed(forgery, form, key):
    with DiskCache(forgery.directory, key=key) as cache:
        cache.put("small", 1)
        cache.flush()
        for value in (2, np.full(100_000, 2, np.uint8)):  # These replace the row.
            forgery.forge(form)
            cache.put("forged", value)
            cache.flush()
            assert np.all(cache.get("forged") == 2)
        forgery.forge(form)
        assert cache.delete("forged") == 1
        forgery.forge(form)
        assert len(cache.verify().damaged) == 1
        assert len(cache.verify(drop=True).damaged) == 1
        assert cache.verify().damaged == {}
        assert cache.get("small") == 1
        forgery.forge(form, expire_time="1e9")
        with DiskCache(forgery.directory, key=key, expire=100) as other:
            other.put("another", 1)
        assert forgery.sql("SELECT * FROM Cache WHERE key = 'forged'") == []
        forgery.forge(form)
        with DiskCache(forgery.directory, key=key, size_limit=100) as other:
            other.put("another", 1)
        assert forgery.sql("SELECT * FROM Cache WHERE key = 'forged'") == []
        forgery.forge(form)
        cache.clear()
        assert forgery.sql("SELECT * FROM Cache") == []
        assert forgery.is_harmless()


@both
@pytest.mark.timeout(60)
def test_a_pipeline_computes_the_results_of_forged_rows(forgery, key):
    def square(x):
        return x * x

    numbers = range(len(FORMS))
    with DiskCache(forgery.directory, key=key) as cache:
        pipeline = Pipeline([node(square, output_name="y")], cache=cache)
        expected = pipeline.map({"x": numbers}, map_over="x")
        for form, signature in zip(FORMS, list(cache), strict=True):
            forgery.forge(form, signature)  # An earlier forgery may have removed the file of this one.
        with pytest.warns(CacheWarning, match="computed again") as caught:
            assert pipeline.map({"x": numbers}, map_over="x") == expected
        assert len(caught) == 1
        assert pipeline.map({"x": numbers}, map_over="x") == expected
        assert cache.stats().hits == len(FORMS)
        assert cache.verify().damaged == {}
    assert forgery.is_harmless()


@pytest.mark.parametrize("key", ["x'6b6579'", "7", "NULL", "CAST(x'ff' AS TEXT)", "'code/' || x'ff'"])
def test_rows_whose_key_is_no_text_are_found_and_dropped(forgery, key):
    with DiskCache(forgery.directory) as cache:
        cache.put("small", 1)
        cache.flush()
        forgery.row("", {"key": key, "mode": "4", "value": f"x'{forgery.pickle.hex()}'"})
        forgery.row("", {"key": key, "raw": "0", "filename": "'../outside/file'"})
        assert [entry.signature for entry in cache.entries()] == ["small"]
        assert cache.stats().entries == len(cache) == 1
        assert len(cache.verify(drop=True).damaged) >= 1
        assert forgery.sql("SELECT key FROM Cache") == [("small",)]
    assert forgery.is_harmless()


@pytest.mark.parametrize("value", ["'text'", "NULL", "x'00'", "0.5", "-5", "9223372036854775807"])
def test_a_forged_counter_costs_no_entry(forgery, value):
    with DiskCache(forgery.directory) as cache:
        cache.put("one", 1, Provenance("node"))
        cache.flush()
        forgery.row("hits/node", {"tag": "NULL", "size": "0", "value": value})
        assert cache.get("one") == 1
        cache.put("two", 2, Provenance("node"))
        cache.flush()
        assert cache.stats().entries == 2
        assert cache.get("two") == 2
        cache.flush()
        assert cache.stats().by_node["node"].hits >= 1


# -------------------------------------------------------------------------------- forged databases


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_directory", "{outside}"),
        ("disk__directory", "{outside}"),
        ("disk_remove", "x"),
        ("disk", "os.system"),
        ("_path", "{outside}"),
        ("sqlite_temp_store_directory", "'{outside}'"),
        ("sqlite_writable_schema", 1),
        ("sqlite_hard_heap_limit", 100),
        ("sqlite_no such pragma; ", "x"),
        ("eviction_policy", "no such policy"),
        (b"sqlite_", b""),
        ("count", None),
        ("size", b"\xff"),
    ],
)
def test_foreign_settings_have_no_effect(forgery, key, value):
    with DiskCache(forgery.directory) as cache:
        cache.put("entry", 1)
    if isinstance(value, str):
        value = value.format(outside=forgery.outside)
    forgery.sql("INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)
    with DiskCache(forgery.directory, size_limit=1_000_000) as cache:
        assert cache.get("entry") == 1
        cache.put("large", np.ones(100_000, np.uint8))
        cache.put("small", 1)
        cache.flush()
        assert list(forgery.directory.glob("??/??/*.val")) != []
        forgery.sql("INSERT OR REPLACE INTO Settings VALUES (?, ?)", key, value)
        found = []
        thread = threading.Thread(
            target=lambda: found.append(cache.get("large").sum())
        )  # The thread has a connection of its own.
        thread.start()
        thread.join()
        assert found == [100_000]
        cache.clear()
        assert list(forgery.directory.glob("??/??/*.val")) == []
    assert forgery.is_harmless()


@pytest.mark.parametrize("size", [None, "x", -(10**15), 10**18, b"\xff", 0.5])
def test_a_forged_sum_of_sizes_drops_nothing(forgery, size):
    with DiskCache(forgery.directory, size_limit=1_000_000) as cache:
        cache.put("entry", bytes(100_000))
        cache.flush()
        forgery.sql("UPDATE Settings SET value = ? WHERE key = 'size'", size)
        cache.put("another", 1)
        cache.flush()
        assert set(cache) == {"entry", "another"}
        for number in range(20):
            cache.put(str(number), bytes(100_000))
        assert 5 < len(cache) < 11


def test_a_forged_size_drops_nothing_else(forgery):
    with DiskCache(forgery.directory, size_limit=1_000_000) as cache:
        cache.put("entry", bytes(100_000))
        cache.flush()
        forgery.row("forged", {"size": str(10**18), "access_time": "9e9"})
        forgery.row("none", {"size": "NULL"})
        cache.put("another", 1)
        cache.flush()
        assert set(cache) == {"entry", "another"}


ENDLESS = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
TRIGGER = "CREATE TRIGGER Settings_size_insert AFTER"
SCHEMAS = {
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON Cache BEGIN DELETE FROM Cache WHERE key = 'entry'; END",
    "another trigger of the same name": f"""
        DROP TRIGGER Settings_size_insert;
        {TRIGGER} INSERT ON Cache BEGIN UPDATE Settings SET value = ({ENDLESS}); END""",
    "a trigger of settings": f"""
        DROP TRIGGER Settings_size_insert;
        {TRIGGER} UPDATE ON Settings BEGIN UPDATE Settings SET value = 1; END""",
    "a view": f"""
        ALTER TABLE Cache RENAME TO Real;
        CREATE VIEW Cache AS SELECT *, ({ENDLESS}) AS more FROM Real""",
    "a view of settings": f"""
        ALTER TABLE Settings RENAME TO Real;
        CREATE VIEW Settings AS SELECT 'size' AS key, ({ENDLESS}) AS value""",
    "an index of a computation": "CREATE INDEX i ON Cache (length(hex(zeroblob(40000000 + length(key)))))",
    "another table": """
        DROP TABLE Cache;
        CREATE TABLE Cache (rowid INTEGER PRIMARY KEY, key, raw, store_time, expire_time, access_time,
        access_count, tag, size, mode, filename, value, CHECK (length(randomblob(900000000)) > 0))""",
}


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.timeout(60)
def test_nothing_that_a_forged_schema_says_is_executed(forgery, schema):
    with DiskCache(forgery.directory) as cache:
        cache.put("entry", 1)
    for statement in SCHEMAS[schema].split(";\n"):
        forgery.sql(statement)
    before = forgery.sql("SELECT sql FROM sqlite_master")

    @node(output_name="y")
    def square(x):
        return x * x

    with DiskCache(forgery.directory) as cache, pytest.warns(CacheWarning) as caught:
        pipeline = Pipeline([square], cache=cache)
        assert pipeline(x=3) == {"y": 9}
        pipeline.explain({"x": 4})
    assert {str(one.message).partition(": ")[2][:17] for one in caught} <= {
        "cannot be read (F",
        "cannot be written",
    }
    assert "delete the directory" in str(caught[0].message)
    assert forgery.sql("SELECT sql FROM sqlite_master") == before


@pytest.mark.parametrize("schema", ["a trigger", "another trigger of the same name", "a view"])
@pytest.mark.timeout(60)
def test_nothing_that_is_added_to_the_schema_of_an_open_cache_is_executed(forgery, schema):
    with DiskCache(forgery.directory) as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        cache.put("entry", 1)
        cache.flush()
        for statement in SCHEMAS[schema].split(";\n"):
            forgery.sql(statement)
        cache.put("another", 1)
        cache.flush()
        assert cache.get("entry") in (1, MISS)
        table = "Real" if schema == "a view" else "Cache"
        assert forgery.sql(f"SELECT key FROM {table}") == [("entry",)]


@pytest.mark.parametrize("name", ["cache.db", "cache.db-wal", "cache.db-shm", "cache.db-journal"])
@pytest.mark.parametrize("form", ["a link", "a pipe"])
@pytest.mark.timeout(60)
def test_a_database_is_not_opened_through_a_link_or_a_pipe(forgery, tmp_path, name, form):
    with DiskCache(tmp_path / "elsewhere") as elsewhere:
        elsewhere.put("entry", 1)
    shutil.copy(tmp_path / "elsewhere" / "cache.db", forgery.outside / "other.db")
    forgery.before = forgery.state()
    with DiskCache(forgery.directory) as cache:
        cache.put("entry", 1)
    (forgery.directory / name).unlink(missing_ok=True)
    if form == "a link":
        (forgery.directory / name).symlink_to(forgery.outside / "other.db")
    else:
        os.mkfifo(forgery.directory / name)
    with DiskCache(forgery.directory) as cache, pytest.warns(CacheWarning, match="is no regular file"):
        assert cache.get("entry") is MISS
        cache.put("entry", 2)
        cache.flush()
    assert forgery.is_harmless()


def test_large_values_are_not_written_through_links(forgery):
    with DiskCache(forgery.directory) as cache:
        cache.put("entry", 1)
        cache.flush()
        for number in range(256):
            (forgery.directory / f"{number:02x}").symlink_to(forgery.outside)
        cache.put("large", bytes(100_000))
        with pytest.warns(CacheWarning, match="cannot be written"):
            cache.flush()
        assert cache.get("entry") == 1
    assert forgery.is_harmless()


def test_orphaned_files_are_not_removed_through_links(forgery):
    with DiskCache(forgery.directory) as cache:
        cache.put("entry", 1)
        cache.flush()
        (forgery.directory / "ab").symlink_to(forgery.outside)
        (forgery.directory / "cd").mkdir()
        (forgery.directory / "cd" / "cd").symlink_to(forgery.outside / "cd")
        assert cache.verify().orphans == 0
    assert forgery.is_harmless()


def test_with_a_key_a_loaded_value_does_not_change_with_its_file(directory):
    with DiskCache(directory, key="secret") as cache:
        cache.put("entry", np.ones(8_000_000, np.uint8))
        cache.flush()
        loaded = cache.get("entry")
        (file,) = directory.glob("??/??/*.val")
        with file.open("r+b") as changed:
            changed.write(bytes(file.stat().st_size))
        assert loaded.sum() == 8_000_000


def test_the_reason_of_a_miss_is_found_without_unpickling(forgery):
    with DiskCache(forgery.directory) as cache:
        cache.put("entry", 1, Provenance("node", "c0de"))
        cache.flush()
        sealed = b"".join(seal("code/c0de", evil(forgery.mark)))
        forgery.row("code/c0de", {"tag": "NULL", "size": str(len(sealed)), "value": f"x'{sealed.hex()}'"})
        assert cache.code_parts("c0de") == {}
        assert not cache.has_code_parts("c0de")
        cache.put_code_parts("c0de", {"own code": CodePart("ab", "1")})
        cache.flush()
        assert cache.code_parts("c0de") == {"own code": CodePart("ab", "1")}
    assert forgery.is_harmless()


def test_a_sealed_entry_without_its_lengths_is_damaged(forgery):
    whole = b"".join(seal("entry", 1))
    start = whole[:4] + hashlib.blake2b(b"entry", digest_size=16).digest()
    with DiskCache(forgery.directory) as cache:
        cache.put("other", 1)
        cache.flush()
        forgery.row("entry", {"value": f"x'{start.hex()}'", "size": str(len(start))})
        with pytest.warns(CacheWarning, match="damaged"):
            assert cache.get_many(["entry", "other"]) == {"other": 1}


FORGED_READ_ONLY = READ_ONLY.replace(
    'print(cache.get("small")', 'print(cache.get("forged"), cache.get("small")'
)


@pytest.mark.parametrize(
    "form", ["a pickle", "a pickle above", "a number", "a tag that is no UTF-8", "a pipe"]
)
def test_a_forged_row_in_a_read_only_directory_is_one_damaged_entry(form):
    import tempfile

    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent)
        path.chmod(0o777)
        forgery = Forgery(path)
        (path / "other").mkdir()
        with DiskCache(path / "cache") as cache:
            cache.put("small", 1)
            cache.put("large", np.ones(100_000))
        forgery.forge(form)
        for file in (path / "cache").rglob("*"):
            file.chmod(0o555 if file.is_dir() else 0o444)
        (path / "cache").chmod(0o555)
        out = output_of(FORGED_READ_ONLY, path / "cache", path / "other")
        for directory in [path / "cache", *(path / "cache").rglob("*")]:
            directory.chmod(0o755)
        assert forgery.is_harmless()
    first, second = out.splitlines()
    assert first.startswith("MISS 1 100000.0 [MISS]")
    assert second == "['an entry is not of', 'cannot be written ']"


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


def test_other_processes_see_entries_without_a_flush(directory):
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
    import os, sys, time
    from hypernodes import DiskCache
    cache = DiskCache(sys.argv[1])
    for fork in range(12):
        for number in range(100):
            cache.put(f"parent {fork} {number}", number)
        time.sleep(fork * 0.006)  # The delayed entries are written about now.
        child = os.fork()
        if not child:
            cache.put(f"child {fork}", 1)
            cache.flush()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        assert cache.get(f"child {fork}") == 1
    cache.flush()
"""


def test_a_forked_process_does_not_write_the_delayed_entries_of_its_parent(directory):
    output_of(FORK, directory)
    with DiskCache(directory) as cache:
        assert len(cache) == 1212
        assert cache.verify().damaged == {}


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


# ----------------------------------------------------------------------------- provenance and hits


def test_entries_have_a_provenance(directory):
    arguments = {"x": ArgumentProvenance("1d", "", "5"), "m": ArgumentProvenance("2d", "fit")}
    provenance = Provenance("node", "c0de", arguments, 0.5)
    with DiskCache(directory) as cache:
        cache.put("small", 1, provenance)
        cache.put("large", np.zeros(100_000), provenance)
        cache.put_code_parts("c0de", {"own code": CodePart("ab")})
        for _ in range(2):
            assert cache.about("small") == cache.about("large") == provenance
            assert {entry.signature: entry.about for entry in cache.entries("node")} == {
                "small": provenance,
                "large": provenance,
            }
            assert list(cache.entries("another")) == []
            assert cache.code_parts("c0de") == {"own code": CodePart("ab")}
            assert cache.code_parts("unknown") == {}
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
        cache.put("one", 1, Provenance("a"))
        cache.put("two", 2, Provenance("b"))
        cache.put("three", 3, Provenance("b"))
        assert cache.clear(older_than=60) == 0
        assert cache.clear(node="a") == 1
        assert set(cache) == {"two", "three"}
        assert cache.delete("two", "unknown") == 1
        assert cache.clear(older_than=0) == 1
        assert len(cache) == 0


def test_a_result_that_is_not_picklable_is_warned_of_once_with_its_node(directory):
    @node(output_name="lock")
    def locked(x):
        return threading.Lock()

    with DiskCache(directory) as cache, pytest.warns(CacheWarning, match="of node 'locked'") as caught:
        pipeline = Pipeline([locked], cache=cache, engine=HyperNodesEngine(map_executor="threaded"))
        pipeline.map({"x": range(5)}, map_over="x")
        pipeline.run({"x": 1})
    assert len(caught) == 1


def test_a_file_that_a_dead_writer_has_left_behind_is_removed(directory):
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


def test_caches_with_the_same_settings_are_equal():
    assert DiskCache("a") == DiskCache("a") != DiskCache("b")
    assert DiskCache("a", key="k") != DiskCache("a")
    assert Path("a").absolute() == DiskCache("a").path
