"""The command ``hypernodes cache``."""

import contextlib
import json
import os
import pickle
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

import hypernodes
from hypernodes import DiskCache, Pipeline, node
from hypernodes.cache.entry import seal
from hypernodes.cache.provenance import ArgumentProvenance, Provenance
from hypernodes.cache.record import Record
from hypernodes.cache.store import Store
from hypernodes.cli import main


@node(output_name="words")
def split(text, limit=5):
    return text.split()[:limit]


@node(output_name="count")
def count(words):
    return len(words)


@pytest.fixture
def cache(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        pipeline = Pipeline([split, count], cache=cache)
        pipeline.map({"text": ["a b", "c d e"]}, map_over="text")
        pipeline.run({"text": "a b"})
        pipeline.run({"text": "a b", "limit": 6})
        yield cache


def command(cache, *arguments, exit_code=0):
    done = CliRunner().invoke(main, ["cache", "--path", str(cache.path), *arguments])
    assert done.exit_code == exit_code, done.output
    return done.output


def as_json(cache, *arguments, **options):
    return json.loads(command(cache, *arguments, "--json", **options))


def test_the_command_prints_the_version():
    done = CliRunner().invoke(main, ["--version"])
    assert done.exit_code == 0, done.output
    assert hypernodes.__version__ in done.output


def test_stats_count_entries_bytes_and_hits_by_node(cache):
    found = as_json(cache, "stats")
    assert found["entries"] == 6
    assert found["hits"] == 2
    assert found["by_node"]["split"]["entries"] == 3
    assert found["by_node"]["count"]["hits"] == 1
    assert found["bytes"] == sum(node["bytes"] for node in found["by_node"].values()) > 0
    text = command(cache, "stats")
    assert "split" in text
    assert "all" in text


def test_ls_lists_the_latest_first(cache):
    found = as_json(cache, "ls")
    assert [entry["node"] for entry in found[:2]] == ["count", "split"]
    assert found[1]["about"]["takes"]["limit"]["shown"] == "6"
    assert len(found) == 6
    assert len(as_json(cache, "ls", "--node", "split")) == 3
    assert len(as_json(cache, "ls", "--limit", "2")) == 2
    assert "text='c d e'" in command(cache, "ls")


def test_show_tells_how_an_entry_was_made_by_the_start_of_its_signature(cache):
    (signature,) = [
        entry["signature"] for entry in as_json(cache, "ls") if "limit" in entry["about"]["takes"]
    ]
    text = command(cache, "show", signature[:10])
    assert "from limit" in text
    assert "6" in text
    assert "value" not in text
    assert as_json(cache, "show", signature, "--value")["value"] == "(['a', 'b'],)"


def test_a_signature_that_nothing_has_is_an_error(cache):
    assert "no entry has a signature that begins with 'zz'" in command(cache, "show", "zz", exit_code=1)
    assert "6 entries have signatures that begin" in command(cache, "show", "", exit_code=1)


def test_explain_tells_the_difference_to_an_earlier_entry(cache):
    (signature,) = [
        entry["signature"] for entry in as_json(cache, "ls") if "limit" in entry["about"]["takes"]
    ]
    assert "input limit not given → 6" in command(cache, "explain", signature)
    found = as_json(cache, "explain", signature)
    assert found["changes"] == [{"what": "input limit", "before": "not given", "after": "6"}]


def test_clear_asks_first(cache):
    done = CliRunner().invoke(main, ["cache", "--path", str(cache.path), "clear"], input="n\n")
    assert done.exit_code == 1
    assert len(cache) == 6
    assert "3 entries dropped" in command(cache, "clear", "--node", "count", "--yes")
    assert as_json(cache, "clear", "--older-than", "7d") == {"dropped": 0}
    assert as_json(cache, "clear", "--older-than", "0s", "--node", "split") == {"dropped": 3}
    assert len(cache) == 0


def test_an_age_that_is_none_is_refused(cache):
    assert "Write 30s, 5m, 12h, 7d or 2w" in command(cache, "clear", "--older-than", "soon", exit_code=2)


def test_verify_fails_until_what_is_damaged_is_dropped(cache, monkeypatch):
    assert "6 entries are whole, 0 are not" in command(cache, "verify")
    monkeypatch.setenv("HYPERNODES_CACHE_KEY", "another")
    assert len(as_json(cache, "verify", exit_code=1)["damaged"]) == 6
    as_json(cache, "verify", "--drop")
    assert len(cache) == 0


def test_a_key_can_come_from_a_file(tmp_path):
    with DiskCache(tmp_path / "cache", key="secret") as cache:
        cache.put("a" * 40, 1)
    (tmp_path / "key").write_text("secret\n")
    done = CliRunner().invoke(
        main, ["cache", "--path", str(tmp_path / "cache"), "--key-file", str(tmp_path / "key"), "verify"]
    )
    assert "1 entries are whole" in done.output


def test_looking_makes_no_directory(tmp_path):
    done = CliRunner().invoke(main, ["cache", "--path", str(tmp_path / "none"), "stats"])
    assert done.exit_code == 2
    assert "there is no cache in" in done.output
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("command", [["stats"], ["ls", "--limit", "2"], ["verify"], ["clear", "--yes"]])
def test_the_options_of_the_group_may_stand_behind_a_command(tmp_path, command):
    path, key = str(tmp_path / "cache"), tmp_path / "key"
    key.write_text("secret")
    for place in ("before", "behind", "behind with an equals sign", "between"):
        with DiskCache(path, key="secret") as cache:
            cache.put("a" * 40, 1)
        options = ["--path", path, "--key-file", str(key)]
        words = {
            "before": [*options, *command],
            "behind": [*command, *options],
            "behind with an equals sign": [*command, f"--path={path}", f"--key-file={key}"],
            "between": [command[0], *options, *command[1:]],
        }[place]
        done = CliRunner().invoke(main, ["cache", *words, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.output) not in ({}, [])
    done = CliRunner().invoke(main, ["cache", *command, "--path"])
    assert done.exit_code == 2
    assert "requires an argument" in done.output


def test_the_installed_command_runs(cache):
    command_path = shutil.which("hypernodes", path=str(Path(sys.executable).parent))
    assert command_path is not None
    done = subprocess.run(
        [command_path, "cache", "stats"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HYPERNODES_CACHE": str(cache.path)},
    )
    assert "split" in done.stdout


FORGED_PROVENANCES = [
    "",
    "null",
    "7",
    "[]",
    '{"node": 1}',
    '["node", "c0de", "soon", {}]',
    '["node", "c0de", NaN, {}]',
    '["node", "c0de", -Infinity, {}]',
    '["node", "c0de", 1e300, {}]',
    '["node", "c0de", 0.5, []]',
    '["node", "c0de", 0.5, {"x": "abc"}]',
    '["node", "c0de", 0.5, {"x": [1, 2, 3]}]',
    '["node", "c0de", 0.5, {"x": ["", "", null]}]',
    '["node", ["c0de"], 0.5, {}]',
    '[["node"], "c0de", 0.5, {}]',
    '["node", "c0de", 0.5, {"x": ["\\u001b[2J", "\\u001b]0;t\\u0007", "\\ud800\\u202e"]}]',
    '["no\\u001b[2Jde", "\\u001b[2J", 0.5, {"\\u001b[31mx": ["1d", "", "\\u009b2J"]}]',
    "[" * 60_000,
]


@pytest.mark.parametrize("provenance", FORGED_PROVENANCES, ids=range(len(FORGED_PROVENANCES)))
def test_forged_provenance_of_entries_is_shown_harmlessly(tmp_path, provenance):
    with DiskCache(tmp_path / "cache") as cache:
        for key in ("aa\x1b[2J", "ab"):
            sealed = b"".join(seal(key, 1, provenance.encode() if key[1] == "a" else b""))
            Store(cache.path).write([Record.of(key, "node \x1b[2J", [sealed])])
        cache.put("ac", 1, Provenance("node \x1b[2J", "c1de", {"x": ArgumentProvenance("1d")}, 0.5))
        for arguments in (
            ["ls"],
            ["stats"],
            ["show", "aa"],
            ["verify"],
            ["explain", "ac"],
            ["explain", "aa"],
        ):
            for form in ([], ["--json"]):
                done = CliRunner().invoke(main, ["cache", "--path", str(cache.path), *arguments, *form])
                assert done.exit_code in (0, 1), done.output
                assert done.exception is None or isinstance(done.exception, SystemExit)
                assert not {sign for sign in done.output if not sign.isprintable()} - {"\n"}
        assert list(cache.provenances("node \x1b[2J"))


def test_forged_rows_are_damaged_entries(cache):
    mark = cache.path.parent / "code was run"
    outside = cache.path.parent / "outside"
    outside.write_text("mine")

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    with contextlib.closing(sqlite3.connect(cache.path / "cache.db")) as database, database:
        (first, second, third, *_) = [
            key for (key,) in database.execute("SELECT key FROM Cache WHERE tag <> ''")
        ]
        forged = [
            (pickle.dumps(Evil()), 4, None, first),
            (None, 2, "../outside", second),
            (7, 1, None, third),
        ]
        database.executemany("UPDATE Cache SET value = ?, mode = ?, filename = ? WHERE key = ?", forged)
    assert len(as_json(cache, "ls")) == 3
    assert as_json(cache, "stats")["entries"] == 3
    found = as_json(cache, "verify", exit_code=1)
    assert (found["whole"], set(found["damaged"])) == (3, {first, second, third})
    assert "is not of the form that this library writes" in command(cache, "verify", exit_code=1)
    command(cache, "show", first, exit_code=1)
    command(cache, "explain", first, exit_code=1)
    assert len(as_json(cache, "verify", "--drop")["damaged"]) == 3
    assert as_json(cache, "verify")["damaged"] == {}
    command(cache, "clear", "--yes")
    assert not mark.exists()
    assert outside.read_text() == "mine"


def test_a_database_of_another_program_is_an_error_in_one_line(cache):
    with contextlib.closing(sqlite3.connect(cache.path / "cache.db")) as database, database:
        database.execute("CREATE TRIGGER t AFTER DELETE ON Cache BEGIN DELETE FROM Settings; END")
    for arguments in (["ls"], ["stats"], ["show", "a"], ["verify"], ["explain", "a"]):
        text = command(cache, *arguments, exit_code=1)
        assert text.startswith("Error: cache ")
        assert f"run 'hypernodes cache --path {cache.path} clear', or delete the directory" in text
    command(cache, "clear", "--yes")
    assert as_json(cache, "stats")["entries"] == 0
