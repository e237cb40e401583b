"""On versions of Python whose bytecode the library is not tested with, nothing is cached."""

import sys
import warnings

import pytest

from hypernodes import DiskCache, Pipeline, node
from hypernodes.cache import bytecode
from hypernodes.cache.content import digest
from hypernodes.exceptions import CacheWarning, SignatureError


@pytest.fixture
def calls():
    return []


@pytest.fixture
def pipeline(tmp_path, calls):
    @node(output_name="y", cache_version=1)
    def counted(x):
        calls.append(x)
        return x

    with DiskCache(tmp_path / "cache") as cache:
        yield Pipeline([counted], cache=cache)


def test_the_running_python_is_tested():
    assert sys.version_info[:2] in bytecode.TESTED_PYTHONS, (
        "Run the whole test suite on this version, and add it to TESTED_PYTHONS in "
        "src/hypernodes/cache/bytecode.py when all tests pass."
    )


def test_nothing_is_cached_on_another_python_and_one_warning_says_so(pipeline, calls, monkeypatch):
    monkeypatch.setattr(bytecode, "RUNNING_PYTHON", (3, 98))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [pipeline(x=1), pipeline(x=1)] == [{"y": 1}, {"y": 1}]
        assert pipeline.map({"x": [1, 1]}, map_over="x") == {"y": [1, 1]}
    assert calls == [1, 1, 1, 1]
    (warning,) = caught
    assert warning.category is CacheWarning
    assert "nothing is cached" in str(warning.message)
    assert "Python 3.98" in str(warning.message)


def test_what_a_tested_python_has_cached_is_not_used_by_another_one(pipeline, calls, monkeypatch):
    pipeline(x=1)
    monkeypatch.setattr(bytecode, "RUNNING_PYTHON", (3, 97))
    with pytest.warns(CacheWarning, match=r"Python 3\.97"):
        pipeline.with_name("another")(x=1)
    assert calls == [1, 1]


def test_a_function_has_no_digest_on_another_python(monkeypatch):
    monkeypatch.setattr(bytecode, "RUNNING_PYTHON", (3, 96))
    with pytest.raises(SignatureError, match=r"bytecode of Python 3\.96"):
        digest(lambda x: x + 1)
    assert digest([1, "a"])
