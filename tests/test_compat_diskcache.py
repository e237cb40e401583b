"""Private parts of diskcache that `hypernodes._compat.diskcache` uses: one test for each of them.

A test that fails says what to do. If diskcache has changed in more than one place, consider creating the
tables in `Tables` itself: the cache uses nothing of diskcache but its schema, connections and transactions.
"""

import contextlib
import inspect
import sqlite3
import threading
from pathlib import Path

import diskcache
import pytest
from diskcache import core

from hypernodes._compat import diskcache as compat
from hypernodes.cache import database

ADAPT = "Adapt src/hypernodes/_compat/diskcache.py"


@pytest.fixture
def plain(tmp_path):
    """A cache as diskcache itself creates it, with the indexes that the library uses."""
    with diskcache.Cache(
        str(tmp_path / "plain"), tag_index=1, eviction_policy="least-recently-used"
    ) as cache:
        yield cache


def schema_of(directory):
    with contextlib.closing(sqlite3.connect(directory / compat.DATABASE_NAME)) as connection:
        return dict(connection.execute("SELECT name, sql FROM sqlite_master"))


def test_the_database_file_has_the_known_name():
    assert core.DBNAME == compat.DATABASE_NAME, (
        f"diskcache gives its database another name. {ADAPT}: DATABASE_NAME, and read caches under both "
        "names."
    )


def test_the_modes_of_rows_have_the_known_numbers():
    assert (core.MODE_RAW, core.MODE_BINARY) == (1, 2), (
        f"diskcache has renumbered the modes of rows. {ADAPT}: give SMALL_VALUE_MODE and FILE_MODE the "
        "numbers 1 "
        f"and 2 there, which existing caches have."
    )


def test_the_counters_are_known():
    assert set(core.METADATA) == {"count", "size", "hits", "misses"}, (
        f"diskcache counts other things in its table of settings. {ADAPT}: COUNTER_SETTINGS. The store "
        "reads 'size'."
    )


def test_every_setting_of_diskcache_has_a_fixed_value():
    assert set(core.DEFAULT_SETTINGS) == set(database._SETTINGS), (
        "diskcache has other settings. Whoever can write to a cache's directory could set one that has no "
        "fixed "
        "value: give each setting a value in _SETTINGS of src/hypernodes/cache/database.py."
    )


def test_the_schema_is_the_known_one(plain):
    made = schema_of(Path(plain.directory))
    unknown = {name: sql for name, sql in made.items() if compat.SCHEMA.get(name, "") != sql}
    assert unknown == {}, (
        f"diskcache creates other tables, indexes or triggers. {ADAPT}: SCHEMA and TRIGGERS must have them "
        "to the "
        f"letter, and still the earlier ones, or existing caches are refused."
    )


def test_the_schema_of_the_library_is_that_of_diskcache(tmp_path):
    database.open_database(tmp_path / "own", has_use_index=True).close()
    made = schema_of(tmp_path / "own")
    assert set(made) <= set(compat.SCHEMA), f"The database has objects that are not in SCHEMA. {ADAPT}."
    assert set(compat.TRIGGERS) <= set(made), (
        f"diskcache does not create the triggers that add up the sizes of entries. {ADAPT}: create them in "
        "Tables."
    )


def test_connections_come_from_the_property_con(plain):
    assert isinstance(inspect.getattr_static(diskcache.Cache, "_con"), property), (
        f"diskcache.Cache has no property _con any more. {ADAPT}: Tables must override whatever opens "
        "connections, "
        f"since diskcache's own way runs the pragmas that the database names."
    )
    statements = []
    plain._con.set_trace_callback(statements.append)
    with plain.transact():
        pass
    assert statements, f"diskcache.Cache.transact uses another connection than _con. {ADAPT}."


def test_connections_are_kept_in_a_thread_local(plain):
    plain.get("any")
    assert isinstance(plain._local, threading.local), (
        f"diskcache.Cache has no _local any more. {ADAPT}: Tables._con keeps the connection of each thread "
        "there."
    )
    assert plain._local.con is plain._con, f"diskcache keeps the connection under another name. {ADAPT}."
    plain.close()
    assert not hasattr(plain._local, "con"), (
        f"diskcache.Cache.close leaves the connection in _local. {ADAPT}."
    )


def test_settings_are_set_by_reset():
    parameters = inspect.signature(diskcache.Cache.reset).parameters
    assert list(parameters) == ["self", "key", "value", "update"], (
        f"diskcache.Cache.reset takes other arguments. {ADAPT}: Tables.reset ignores what the database says."
    )
    assert parameters["value"].default is core.ENOVAL, (
        f"diskcache.Cache.reset has another default than ENOVAL. {ADAPT}: Tables.reset passes it to read a "
        "counter."
    )


def test_keys_values_and_files_are_handled_by_the_disk():
    methods = {name for name, value in vars(diskcache.Disk).items() if callable(value) and name[0] != "_"}
    refused = {name for name, value in vars(compat._RefusingDisk).items() if value is compat._refuse}
    assert methods == refused, (
        f"diskcache.Disk has other methods. {ADAPT}: _RefusingDisk must refuse each of them, since they "
        "unpickle, "
        f"write and remove what a row names."
    )


def test_nothing_of_diskcache_handles_values_of_the_library(tmp_path):
    settings = {**database._SETTINGS}
    path = tmp_path / compat.DATABASE_NAME
    tables = compat.Tables(
        tmp_path,
        connect=lambda: sqlite3.connect(path, isolation_level=None),
        settings=settings,
        busy_timeout=1.0,
    )
    with contextlib.closing(tables), pytest.raises(OSError, match="must not handle"):
        tables.set("key", "value")


def test_a_setting_without_a_value_is_refused(tmp_path):
    with pytest.raises(TypeError, match="cull_limit"):
        compat.Tables(
            tmp_path,
            connect=lambda: None,
            settings={name: value for name, value in database._SETTINGS.items() if name != "cull_limit"},
            busy_timeout=1.0,
        )
