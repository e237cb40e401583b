"""The tables of a cache are those of diskcache, so that existing directories and its tools can be used."""

import contextlib
import sqlite3

import diskcache
import pytest
from diskcache import core

from hypernodes import DiskCache
from hypernodes.cache import schema


def schema_of(directory):
    with contextlib.closing(sqlite3.connect(directory / "cache.db")) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master"))


def settings_of(directory):
    with contextlib.closing(sqlite3.connect(directory / "cache.db")) as connection:
        return dict(connection.execute("SELECT key, value FROM Settings"))


def test_a_database_has_the_schema_of_diskcache(tmp_path):
    options = {"tag_index": 1, "eviction_policy": "least-recently-used"}
    diskcache.Cache(str(tmp_path / "plain"), **options).close()
    with DiskCache(tmp_path / "own", size_limit=1000) as cache:
        cache.put("entry", 1)
    assert schema_of(tmp_path / "own") == schema_of(tmp_path / "plain")
    assert settings_of(tmp_path / "own").keys() == settings_of(tmp_path / "plain").keys()


def test_names_and_modes_are_those_of_diskcache():
    assert schema.DATABASE_NAME == core.DBNAME
    assert (core.MODE_RAW, core.MODE_BINARY) == (schema.SMALL_VALUE_MODE, schema.FILE_MODE)


@pytest.mark.parametrize("policy", ["none", "least-recently-stored", "least-recently-used"])
def test_a_database_that_diskcache_has_made_is_used(tmp_path, policy):
    diskcache.Cache(str(tmp_path), eviction_policy=policy).close()
    with DiskCache(tmp_path, size_limit=10**6) as cache:
        cache.put("entry", 1)
        cache.flush()
        assert cache.get("entry") == 1


def test_diskcache_drops_nothing_of_a_cache(tmp_path):
    with DiskCache(tmp_path) as cache:
        for number in range(30):
            cache.put(str(number), bytes(1000))
        cache.put("large", bytes(100_000))
    with diskcache.Cache(str(tmp_path)) as plain:
        assert len(plain) == 31
        plain.set("another", b"1")
        plain.cull()
    with DiskCache(tmp_path) as cache:
        assert len(cache) == 31
