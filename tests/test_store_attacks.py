"""What a hostile writer of a directory, or an accident, can do to a cache: a miss and a warning at most."""

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from test_store import FILE, NAME, Forgery, both, damage_file, damage_row, evil, output_of

from hypernodes import DiskCache, Pipeline, node
from hypernodes.cache.entry import seal
from hypernodes.cache.provenance import ArgumentProvenance, Provenance
from hypernodes.cli import main
from hypernodes.config import MISS
from hypernodes.exceptions import CacheWarning

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def forgery(tmp_path):
    return Forgery(tmp_path)


def command(path, *arguments, exit_code=0, key=None):
    done = CliRunner().invoke(
        main, ["cache", "--path", str(path), *arguments], env={"HYPERNODES_CACHE_KEY": key}
    )
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    assert done.exit_code == exit_code, done.output
    assert not {sign for sign in done.output if not sign.isprintable()} - {"\n"}
    return done.output


# ------------------------------------------------------------------------------------- rows and files

LARGE = {"mode": "2", "value": "NULL"}
ODD_ROWS = {
    "a huge value": {"value": "zeroblob(2000000)"},
    "a huge node": {"tag": "printf('%.*c', 2000000, 'x')"},
    "a node of controls": {"tag": "char(27) || '[2J' || char(0x202e) || char(10)"},
    "a negative size": {"size": "-1"},
    "a size of 10 TB": {"size": "10000000000000"},
    "an infinite time of use": {"access_time": "9e999"},
    "a negative time of use": {"access_time": "-1e300"},
    "an infinite time of writing": {"store_time": "9e999"},
    "a blob for the end": {"expire_time": "x'ff'"},
    "an infinite end": {"expire_time": "9e999"},
    "a blob for a count": {"access_count": "x'ff'"},
    "a negative mode": {"mode": "-1"},
    "a huge mode": {"mode": "9223372036854775807"},
    "the mode of a pickle and a file": {"mode": "4", "filename": f"'00/cd/{FILE}'", "value": "NULL"},
    "a file of one level": {**LARGE, "filename": f"'cd/{FILE}'"},
    "a file of three levels": {**LARGE, "filename": f"'00/00/cd/{FILE}'"},
    "a file in the directory": {**LARGE, "filename": f"'{FILE}'"},
    "levels that go up": {**LARGE, "filename": f"'../../{FILE}'"},
    "a level that is a point": {**LARGE, "filename": f"'./00/{FILE}'"},
    "a name of capitals": {**LARGE, "filename": f"'AB/cd/{FILE}'"},
    "a name with a newline": {**LARGE, "filename": f"'ab/cd/{FILE}' || char(10)"},
    "a name with a NUL at the end": {**LARGE, "filename": f"CAST(x'{NAME.encode().hex()}00' AS TEXT)"},
    "a huge name": {**LARGE, "filename": "printf('%.*c', 2000000, 'a')"},
    "the name of the database": {**LARGE, "filename": "'cache.db'"},
    "a number for a name": {**LARGE, "filename": "7"},
    "a file and a value": {"mode": "2", "filename": f"'ab/cd/{FILE}'"},
}  # fmt: skip


def is_found(cache, signature):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = cache.get_many(["small", signature, "large"])
    assert {"small", "large"} <= set(found)
    assert {one.category for one in caught} <= {CacheWarning}
    assert len(caught) <= 1
    return signature in found


@both
@pytest.mark.parametrize("form", ODD_ROWS)
def test_an_odd_row_is_one_miss_and_nothing_else(forgery, form, key):
    with DiskCache(forgery.directory, key=key) as cache:
        cache.put("small", 1, Provenance("node"))
        cache.put("large", np.ones(100_000, np.uint8), Provenance("node"))
        cache.flush()
        forgery.row("forged", ODD_ROWS[form])
        assert not is_found(cache, "forged")
        for arguments in (["ls"], ["stats"], ["show", "small"], ["explain", "small"]):
            command(cache.path, *arguments, key=key)
        forgery.row("forged", ODD_ROWS[form])
        assert cache.stats().entries >= 2
        assert len(cache.verify(drop=True).damaged) == 1
        assert cache.verify().damaged == {}
        forgery.row("forged", ODD_ROWS[form])
        cache.put("forged", 7)
        cache.flush()
        assert cache.get("forged") == 7
        with DiskCache(forgery.directory, 10**6, key) as limited:
            limited.put("more", 1)
        assert cache.get("small") == 1
    assert forgery.is_harmless()


def replace_by_device(file):
    file.unlink()
    try:
        os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 5))  # /dev/zero, which never ends
    except PermissionError:
        pytest.skip("only root can make devices")


def replace_by_hard_link(file):
    other = file.parents[3] / "other"
    other.write_bytes(bytes(file.stat().st_size))
    file.unlink()
    file.hardlink_to(other)


def replace_by(make):
    def replace(file):
        file.unlink()
        make(file)

    return replace


FILE_CHANGES = {
    "cut off": lambda file: os.truncate(file, 50_000),
    "empty": lambda file: os.truncate(file, 0),
    "cut off in its head": lambda file: os.truncate(file, 30),
    "longer": lambda file: os.truncate(file, 200_000),
    "much longer than memory": lambda file: os.truncate(file, 1 << 42),
    "zeros at its end": lambda file: (os.truncate(file, 90_000), os.truncate(file, 100_304)),
    "a device": replace_by_device,
    "a hard link to a file elsewhere": replace_by_hard_link,
    "a link to itself": replace_by(lambda file: file.symlink_to(file.name)),
    "a link to a device": replace_by(lambda file: file.symlink_to("/dev/zero")),
    "a pipe": replace_by(os.mkfifo),
    "a folder": replace_by(Path.mkdir),
    "gone": replace_by(lambda file: None),
    "unreadable": lambda file: file.chmod(0),
}


@both
@pytest.mark.parametrize("change", FILE_CHANGES)
def test_a_value_file_that_is_changed_is_one_miss(directory, change, key):
    with DiskCache(directory, key=key) as cache:
        cache.put("small", 1)
        cache.put("entry", np.ones(100_000, np.uint8))
        cache.flush()
        (file,) = directory.glob("??/??/*.val")
        FILE_CHANGES[change](file)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = cache.get_many(["small", "entry"])
        assert found["small"] == 1
        if change != "unreadable":  # Root can read it.
            assert set(found) == {"small"}
            assert [one.category for one in caught] == ([] if change == "gone" else [CacheWarning])
        other = directory.parent / "other"
        assert not other.exists() or len(other.read_bytes()) > 50_000
        cache.put("entry", 2)
        cache.flush()
        assert cache.get("entry") == 2
        assert cache.verify().damaged == {}


def test_verify_finds_an_entry_whose_file_is_gone(directory):
    with DiskCache(directory) as cache:
        cache.put("entry", bytes(100_000))
        cache.flush()
        (file,) = directory.glob("??/??/*.val")
        file.unlink()
        assert cache.verify().damaged == {"entry": "has lost its file"}
        assert "has lost its file" in command(directory, "verify", "--drop")
        assert len(cache) == 0


# --------------------------------------------------------------------------------------------- seals


@pytest.mark.parametrize("size", [10, 100_000, 5_000_000], ids=["row", "file", "mapped file"])
@both
def test_no_byte_of_an_entry_can_be_changed(directory, size, key):
    value = np.arange(size, dtype=np.uint8)
    about = Provenance("node", "c0de", {"x": ArgumentProvenance("1d", "", "5")}, 0.5)
    whole = b"".join(seal("entry", value, about.to_json(), key and key.encode()))
    positions = [*range(min(250, len(whole))), *range(250, len(whole), len(whole) // 50), len(whole) - 1]
    with DiskCache(directory, key=key) as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        for position in positions[:: 20 if size > 1e6 else 4]:
            cache.put("entry", value, about)
            cache.flush()
            change = damage_row if size == 10 else damage_file
            change(cache, lambda blob, at=position: blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :])
            # Only the tail of a large value is not read for this.
            assert cache.about("entry") in ([None] if position < 100 or size == 10 else [None, about])
            assert len(cache.verify().damaged) == 1
            assert cache.get("entry") is MISS
            cache.clear()


def test_a_forged_provenance_is_not_shown_where_there_is_a_key(directory):
    about = Provenance("node", "c0de", {"x": ArgumentProvenance("1d", "", "'true'")}, 0.5)
    with DiskCache(directory, key="secret") as cache:
        cache.put("entry", np.arange(10), about)
        cache.flush()
        assert cache.about("entry") == about
        damage_row(cache, lambda blob: blob.replace(b"'true'", b"'lies'"))
        assert cache.about("entry") is None
        assert list(cache.provenances("node")) == []
        assert [entry.about for entry in cache.entries()] == [None]


def test_an_entry_cannot_be_moved_to_another_node(directory):
    with DiskCache(directory, key="secret") as cache:
        cache.put("entry", 1, Provenance("node"))
        cache.flush()
        with contextlib.closing(sqlite3.connect(directory / "cache.db")) as database, database:
            database.execute("UPDATE Cache SET tag = 'another' WHERE key = 'entry'")
        assert list(cache.provenances("another")) == []
        assert [entry.node for entry in cache.entries()] == ["node"]


@both
@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("other", ["other", "entry2", "entr", "code/entry"])
def test_an_entry_is_not_valid_under_another_signature(directory, other, size, key):
    with DiskCache(directory, key=key) as cache:
        cache.put("entry", bytes(size))
        cache.flush()
        with contextlib.closing(sqlite3.connect(directory / "cache.db")) as database, database:
            database.execute("UPDATE Cache SET key = ?", (other,))
        assert cache.code_parts("entry") == {}
        with pytest.warns(CacheWarning, match="damaged"):
            assert cache.get(other) is MISS


def test_an_expired_entry_cannot_be_made_valid_again(directory):
    with DiskCache(directory, key="secret", expire=0.01) as cache:
        cache.put("entry", 1)
        cache.flush()
        time.sleep(0.02)
        with contextlib.closing(sqlite3.connect(directory / "cache.db")) as database, database:
            assert database.execute("UPDATE Cache SET expire_time = NULL").rowcount == 1
        assert cache.get("entry") is MISS


@pytest.mark.parametrize("head", [b"", b"hn02", b"hn03", b"hn03" + bytes(16), b"hn03" + b"\xff" * 60])
@both
def test_the_start_of_an_entry_is_none(forgery, head, key):
    with DiskCache(forgery.directory, key=key) as cache:
        cache.put("small", 1)
        cache.flush()
        forgery.row("entry", {"value": f"x'{head.hex()}'", "size": str(len(head))})
        with pytest.warns(CacheWarning, match="computed again"):
            assert cache.get_many(["small", "entry"]) == {"small": 1}


# ----------------------------------------------------------------------------------------- databases


def as_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()
    (path / "file").write_text("text")


def as_link(path, target):
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def as_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def overwrite(path, start, content):
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


def script(path, text):
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.executescript(text)


FORGE_SCHEMA = "PRAGMA writable_schema = ON; UPDATE sqlite_master SET"
UTF_16 = "PRAGMA encoding = 'UTF-16'; CREATE TABLE Settings ( key TEXT NOT NULL UNIQUE, value)"
FOREIGN = "CREATE TABLE Cache (a, b); CREATE TABLE Settings (key, value)"
WRECKS = {
    "an overwritten header": lambda path: overwrite(path, 0, b"\x1b]0;x\x07" * 20),
    "a text": lambda path: path.write_text("some text\n" * 1000),
    "cut off": lambda path: os.truncate(path, 5000),
    "overwritten pages": lambda path: overwrite(path, 4096, bytes(range(256)) * 40),
    "a folder": as_folder,
    "a link": lambda path: as_link(path, "../outside/file"),
    "a link to nothing": lambda path: as_link(path, "nothing"),
    "a link to itself": lambda path: as_link(path, path.name),
    "a pipe": as_pipe,
    "a folder for its log": lambda path: as_folder(path.with_name("cache.db-wal")),
    "a folder for its index": lambda path: as_folder(path.with_name("cache.db-shm")),
    "a link for its journal": lambda path: as_link(path.with_name("cache.db-journal"), "../outside/file"),
    "a name of controls": lambda path: script(path, 'CREATE TABLE "x\x1b[2J" (a)'),
    "a virtual table": lambda path: script(path, "CREATE VIRTUAL TABLE f USING fts5(a)"),
    "a generated column": lambda path: script(path, "ALTER TABLE Cache ADD COLUMN g AS (hex(zeroblob(99)))"),
    "other tables": lambda path: (path.unlink(), script(path, FOREIGN)),
    "a schema of controls": lambda path: script(
        path, f"{FORGE_SCHEMA} sql = 'CREATE TABLE \x1b[2J' WHERE name = 'Settings'"
    ),
    "an index at a page of another": lambda path: script(
        path, f"{FORGE_SCHEMA} rootpage = 2 WHERE name = 'Cache_key_raw'"
    ),
    "a table at no page": lambda path: script(path, f"{FORGE_SCHEMA} rootpage = 99999 WHERE name = 'Cache'"),
    "another encoding": lambda path: (path.unlink(), script(path, UTF_16)),
}  # fmt: skip


@pytest.mark.parametrize("wreck", WRECKS)
def test_clear_works_on_any_database(forgery, wreck):
    with DiskCache(forgery.directory) as cache:
        cache.put("a" * 40, 1)
        cache.put("b" * 40, bytes(100_000))
    script(forgery.directory / "cache.db", "PRAGMA wal_checkpoint(TRUNCATE)")  # Its log would repair it.
    WRECKS[wreck](forgery.directory / "cache.db")

    @node(output_name="y")
    def square(x):
        return x * x

    with DiskCache(forgery.directory) as cache, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert Pipeline([square], cache=cache).map({"x": [1, 2, 3]}, map_over="x") == {"y": [1, 4, 9]}
    assert {one.category for one in caught} == {CacheWarning}
    assert all(str(one.message).isprintable() for one in caught)
    assert f"run 'hypernodes cache --path {forgery.directory} clear'" in str(caught[0].message)
    for words in ("stats", "ls", "show a", "explain a", "verify", "clear --node x --yes"):
        arguments = words.split()
        done = CliRunner().invoke(main, ["cache", "--path", str(forgery.directory), *arguments])
        assert isinstance(done.exception, SystemExit | None)
        assert not {sign for sign in done.output if not sign.isprintable()} - {"\n"}
    command(forgery.directory, "clear", "--yes")
    assert list(forgery.directory.glob("??/??/*")) == []
    with DiskCache(forgery.directory) as cache:
        assert len(cache) == 0
        cache.put("a" * 40, 1)
        cache.flush()
        assert cache.get("a" * 40) == 1
    assert forgery.is_harmless()


REPAIRED = {
    "empty": lambda path: path.write_bytes(b""),
    "without a trigger": lambda path: script(path, "DROP TRIGGER Settings_size_insert"),
    "without a table": lambda path: script(path, "DROP TABLE Cache"),
    "without settings": lambda path: script(path, "DROP TABLE Settings"),
    "without an index": lambda path: script(path, "DROP INDEX Cache_key_raw"),
    "in another mode": lambda path: script(path, "PRAGMA journal_mode = DELETE"),
    "a log of noise": lambda path: path.with_name("cache.db-wal").write_bytes(b"noise" * 2000),
    "an index of noise": lambda path: path.with_name("cache.db-shm").write_bytes(b"noise" * 9000),
    "a journal of noise": lambda path: path.with_name("cache.db-journal").write_bytes(b"noise" * 2000),
}


@pytest.mark.parametrize("lack", REPAIRED)
def test_what_a_database_lacks_is_made_again(directory, lack):
    with DiskCache(directory) as cache:
        cache.put("entry", 1)
    REPAIRED[lack](directory / "cache.db")
    with DiskCache(directory) as cache:
        assert cache.get("entry") in (1, MISS)
        cache.put("entry", 2)
        cache.put("large", bytes(100_000))
        cache.flush()
        assert cache.get("entry") == 2
        assert len(cache) == 2
        assert cache.verify().damaged == {}


def test_a_database_that_is_overwritten_during_a_run_costs_no_result(directory):
    @node(output_name="y")
    def square(x):
        if x == 20:
            overwrite(directory / "cache.db", 0, bytes(8192))
            (directory / "cache.db-wal").unlink(missing_ok=True)
        cache.flush()
        return x * x

    with DiskCache(directory) as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore", CacheWarning)
        pipeline = Pipeline([square], cache=cache)
        assert pipeline.map({"x": range(40)}, map_over="x") == {"y": [x * x for x in range(40)]}
        cache.clear()
        assert pipeline.map({"x": range(5)}, map_over="x") == {"y": [x * x for x in range(5)]}


# ---------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("key", ["", b"", " \n", b"\n"])
def test_an_empty_key_is_an_error(directory, key, monkeypatch):
    with pytest.raises(ValueError, match="key is empty"):
        DiskCache(directory, key=key)
    monkeypatch.setenv("HYPERNODES_CACHE_KEY", key if isinstance(key, str) else key.decode())
    with pytest.raises(ValueError, match="HYPERNODES_CACHE_KEY is empty"):
        DiskCache(directory)
    with DiskCache(directory, key="secret") as cache:  # The variable does not matter then.
        cache.put("entry", 1)


def test_an_empty_file_of_a_key_is_an_error(directory, tmp_path):
    with DiskCache(directory, key="secret") as cache:
        cache.put("entry", 1)
    (tmp_path / "key").write_text("\n")
    text = command(directory, "--key-file", str(tmp_path / "key"), "verify", exit_code=2)
    assert "key is empty" in text
    text = command(directory, "stats", exit_code=2, key="")
    assert "HYPERNODES_CACHE_KEY is empty" in text


@pytest.mark.parametrize("key", [5, ["secret"], object()])
def test_a_key_that_is_no_text_is_an_error(directory, key):
    with pytest.raises(TypeError, match="must be bytes or text"):
        DiskCache(directory, key=key)


def test_a_worker_uses_the_key_of_the_driver(directory, monkeypatch):
    import pickle

    for mine, of_worker in ((None, ""), (None, "another"), ("secret", ""), ("secret", "another")):
        pickled = pickle.dumps(DiskCache(directory / f"{mine}{of_worker}", key=mine))
        monkeypatch.setenv("HYPERNODES_CACHE_KEY", of_worker)
        pickle.loads(pickled).put("entry", 1)
        pickle.loads(pickled).close()
        monkeypatch.delenv("HYPERNODES_CACHE_KEY")
        with DiskCache(directory / f"{mine}{of_worker}", key=mine) as cache:
            assert cache.get("entry") == 1


# ------------------------------------------------------------------------------------- other users


@pytest.mark.parametrize("name", [".", "cache.db"])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722])
def test_what_others_can_write_to_is_warned_of(directory, name, mode):
    with DiskCache(directory) as cache:
        cache.put("entry", 1)
    (directory / name).chmod(mode)
    with pytest.warns(CacheWarning, match="can be written to by other users.*chmod go-w") as caught:
        assert DiskCache(directory).get("entry") == 1
    assert len(caught) == 1
    assert DiskCache(directory, key="secret").get("none") is MISS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("name", [".", "cache.db"])
def test_what_another_user_owns_is_warned_of(directory, name):
    with DiskCache(directory) as cache:
        cache.put("entry", 1)
    os.chown(directory / name, 65534, 65534)
    with pytest.warns(CacheWarning, match="belongs to another user.*give a key") as caught:
        assert DiskCache(directory).get("entry") == 1
    assert len(caught) == 1
    with DiskCache(directory, key="secret") as cache:
        assert cache.get("none") is MISS


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_only_their_owner_can_read_the_files_of_a_cache(directory, umask):
    directory.mkdir(mode=0o755)
    before = os.umask(umask)
    try:
        with DiskCache(directory) as cache:
            cache.put("small", 1)
            cache.put("large", bytes(100_000))
            cache.flush()
            files = [path for path in directory.rglob("*") if path.is_file()]
            assert {path.name for path in files} >= {"cache.db", "cache.db-wal", "cache.db-shm"}
            assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    finally:
        os.umask(before)


# -------------------------------------------------------------------------------------- size limits


@pytest.mark.parametrize("size", [50_000, 200_000])
@both
def test_a_value_above_the_size_limit_is_not_stored_and_the_rest_stays(directory, size, key):
    @node(output_name="y")
    def made(x):
        return bytes([x % 256]) * (size if x == 3 else 1000)

    with DiskCache(directory, 45_000, key) as cache:
        pipeline = Pipeline([made], cache=cache)
        with pytest.warns(CacheWarning, match="of node 'made' of .* size limit of 45,000 bytes") as caught:
            for _ in range(3):
                pipeline.map({"x": range(20)}, map_over="x")
        assert len(caught) == 1
        assert len(cache) == 19
        assert cache.stats().hits == 38


def test_values_near_the_size_limit_replace_the_least_recently_used(directory):
    with DiskCache(directory, size_limit=1_000_000) as cache:
        for number in range(10):
            cache.put(f"small {number}", 1)
            cache.put(f"large {number}", bytes(900_000))
            cache.flush()
        assert cache.stats().bytes <= 1_000_000
        assert cache.get("large 9") == bytes(900_000)
        assert cache.get("small 9") == 1
        cache.put("first", bytes(600_000))
        cache.put("second", bytes(600_000))
        cache.flush()
        assert cache.contains(["first", "second"]) == {"second"}


def test_a_value_above_a_lower_limit_does_not_cost_the_others(directory):
    with DiskCache(directory) as cache:
        for number in range(5):
            cache.put(str(number), bytes(10_000))
        cache.put("large", bytes(500_000))
    with DiskCache(directory, size_limit=100_000) as cache:
        cache.put("5", 1)
        cache.flush()
        assert set(cache) == {"0", "1", "2", "3", "4", "5"}


def test_counts_of_hits_are_not_dropped_for_the_size_limit(directory):
    with DiskCache(directory, size_limit=100_000) as cache:
        cache.put("entry", 1, Provenance("node"))
        cache.get("entry")
        cache.flush()
        for number in range(20):
            cache.put(str(number), bytes(20_000))
            cache.flush()
        assert cache.stats().by_node["node"].hits == 1


# ----------------------------------------------------------------------------------- locks and clear


@contextlib.contextmanager
def write_lock(directory):
    """Another program that is writing to the database."""
    code = """
        import sqlite3, sys
        database = sqlite3.connect(sys.argv[1], isolation_level=None)
        database.execute("BEGIN IMMEDIATE")
        print("locked", flush=True)
        sys.stdin.read()
        database.execute("COMMIT")
    """
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(directory / "cache.db")]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        yield process
        assert process.poll() is None
        process.stdin.close()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("size_limit", [None, 10**6])
def test_a_known_run_does_not_wait_for_the_write_lock_of_another_program(directory, size_limit):
    @node(output_name="y")
    def square(x):
        return x * x

    with DiskCache(directory, size_limit, expire=1000) as cache:
        pipeline = Pipeline([square], cache=cache)
        expected = pipeline.map({"x": range(100)}, map_over="x")
    with DiskCache(directory, size_limit, expire=1000) as cache:
        pipeline = Pipeline([square], cache=cache)
        with write_lock(directory):
            for _ in range(20):
                assert pipeline.run({"x": 3}) == {"y": 9}
            assert pipeline.map({"x": range(100)}, map_over="x") == expected
            other = DiskCache(directory, size_limit, expire=1000)  # Opening it does not wait, either.
            assert other.get_many(cache)
            other.close()
            cache.flush()
        time.sleep(1.1)  # Counts are tried again after a second, those of the other object, too.
        assert cache.stats().hits == 220


def test_dropping_the_entries_of_a_node_is_one_transaction(directory):
    with DiskCache(directory) as cache:
        for number in range(5000):
            cache.put(str(number), number, Provenance("node"))
        cache.put("large", bytes(100_000), Provenance("node"))
        cache.put("other", 1, Provenance("other"))
        cache.flush()
        seen, is_over = set(), threading.Event()

        def watch():
            with contextlib.closing(sqlite3.connect(directory / "cache.db")) as database:
                while not is_over.is_set():
                    seen.update(database.execute("SELECT count(*) FROM Cache WHERE tag = 'node'").fetchone())

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert cache.clear(node="node") == 5001
        is_over.set()
        watcher.join()
        assert seen <= {5001, 0}
        assert set(cache) == {"other"}
        assert list(directory.glob("??/??/*")) == []


# --------------------------------------------------------------------------------------------- memory

PEAK = """
    import os, sys
    import cloudpickle, numpy
    from hypernodes import DiskCache
    import hypernodes.cache.store
    action, kind, path, key = sys.argv[1:]
    size = 100_000_000

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGESIZE")

    class Own:
        def __init__(self, content):
            self.content = content

    before = resident()
    cache = DiskCache(path, key=key)
    if action == "put":
        value = {
            "bytes": lambda: b"x" * size,
            "array": lambda: numpy.ones(size, numpy.uint8),
            "texts": lambda: [f"{number:0100}" for number in range(size // 150)],
            "an object of the script": lambda: Own(b"x" * size),
        }[kind]()
        own = resident() - before
        cache.put("entry", value)
        cache.flush()
    else:
        value = cache.get("entry")
        own = resident() - before
    # What getrusage tells begins with the memory of the process that has started this one.
    peak = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) * 1024 - before
    print(peak / max(own, size))
    os._exit(0) if sys.stdout.flush() is None else None
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell the memory used")
@pytest.mark.parametrize("kind", ["bytes", "array", "texts", "an object of the script"])
@pytest.mark.parametrize("key", ["secret"])
def test_storing_and_loading_takes_at_most_twice_the_memory_of_a_value(directory, kind, key):
    for action in ("put", "get"):
        assert float(output_of(PEAK, action, kind, directory, key)) < 2.2


MANY_RESULTS = """
    import resource, sys
    import numpy
    from hypernodes import DiskCache
    from hypernodes.cache import value_files
    value_files._MIN_MAPPED_SIZE = 1 << 16
    with DiskCache(sys.argv[1]) as cache:
        for number in range(400):
            cache.put(str(number), numpy.full(100_000, number % 256, numpy.uint8))
        cache.flush()
        resource.setrlimit(resource.RLIMIT_NOFILE, (330, 330))
        values = [cache.get(str(number)) for number in range(400)]
        print(all((value == number % 256).all() for number, value in enumerate(values)))
        open(sys.executable).close()
"""


def test_a_program_can_hold_more_large_results_than_it_may_open_files(directory):
    assert output_of(MANY_RESULTS, directory) == "True\n"


class TooLarge:
    def __reduce__(self):
        raise MemoryError


class Unwilling:
    def __reduce__(self):
        raise Complaint


class Complaint(Exception):
    def __str__(self):
        raise RuntimeError("this error has no text")

    __repr__ = __str__


@pytest.mark.parametrize(
    ("value", "reason"),
    [(TooLarge(), "not enough memory"), (Unwilling(), "not picklable")],
    ids=["memory", "error"],
)
def test_a_value_that_cannot_be_pickled_is_only_returned(directory, value, reason):
    with DiskCache(directory) as cache, pytest.warns(CacheWarning, match=reason) as caught:
        cache.put("entry", value, Provenance("node"))
        cache.put("other", value, Provenance("node"))
        assert cache.get("entry") is MISS
    assert len(caught) == 1


@both
def test_the_value_of_a_forged_pickle_is_not_loaded_in_workers(forgery, key):
    from hypernodes import HyperNodesEngine

    with DiskCache(forgery.directory, key=key) as cache, HyperNodesEngine(map_executor="parallel") as engine:
        pipeline = Pipeline([node(abs, output_name="y")], cache=cache, engine=engine)
        expected = pipeline.map({"x": range(-8, 0)}, map_over="x")
        pickled = forgery.pickle.hex()
        for signature in list(cache):
            forgery.row(signature, {"mode": "4", "value": f"x'{pickled}'", "size": str(len(pickled) // 2)})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CacheWarning)
            assert pipeline.map({"x": range(-8, 0)}, map_over="x") == expected
    assert forgery.is_harmless()
    assert evil(forgery.mark).__reduce__()[0] is os.mkdir
