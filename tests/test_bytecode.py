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


# How code reads the variable V, by instructions that not all versions of Python have.
READS = {
    "a slice": "sum(V[1:3])",
    "a slice whose end varies": "sum(V[:x])",
    "a list comprehension": "[v * x for v in V]",
    "a comprehension within another one": "[[v * w for w in V] for v in range(x)]",
    "a comprehension that hides a variable": "[[x for x in V], x]",
    "a comprehension of a dictionary": "{v: x for v in V}",
    "a comprehension with a condition": "[y for y in range(x) if V]",
    "a generator": "sum(v * x for v in V)",
    "an argument by its name": "sum(range(x), start=V[0])",
    "arguments in a list": "max(*V, x)",
    "a tuple of a list": "(*V, x)",
    "a sign": "+V[0]",
    "a truth value": "1 if V and V[0] < 7 else 2",
    "a negation": "not V[0] - 9",
    "a text": "f'{V!r:>5}{x}'",
    "a lambda": "(lambda y: y + V[0])(x)",
    "a name in a class": "type('C', (), {'v': V[0]}).v",
    "a comparison": "x < V[0] < 100",
}


@pytest.mark.parametrize("form", ["global", "closure"])
@pytest.mark.parametrize("case", READS)
def test_a_change_of_what_code_reads_is_seen_and_nothing_else_is(tmp_path, case, form):
    function = f"def f(x):\n    a, b = x, x\n    c = a\n    return {READS[case]}, a * b + c\n"
    namespace = {"V": [1, 2]}
    if form == "closure":
        indented = function.replace("\n", "\n    ")
        function = f"def make(V):\n    {indented}\n    return f\nf = make(V)\n"
    exec(function, namespace)
    with DiskCache(tmp_path) as cache:
        pipeline = Pipeline([node(namespace["f"], output_name="y")], cache=cache)
        for entries, value in enumerate((1, 9), 1):
            namespace["V"][0] = value
            for _ in range(2):
                assert pipeline(x=3) == {"y": namespace["f"](3)}
                assert len(cache) == entries


# How code calls a method, or reads a value, of the class that its own class is made of.
SUPER = {"a method": "super().m()", "a value": "super().v", "by its class": "super(C, self).m()"}


@pytest.mark.parametrize("case", SUPER)
def test_a_change_of_a_base_class_is_seen(tmp_path, case):
    namespace = {"__name__": "users"}
    exec(
        "class A:\n    v = 1\n    def m(self): return self.v\n"
        f"class C(A):\n    def m(self): return {SUPER[case]}\n"
        "def f(x):\n    return C().m() + x\n",
        namespace,
    )
    with DiskCache(tmp_path) as cache:
        pipeline = Pipeline([node(namespace["f"], output_name="y")], cache=cache)
        for entries, value in enumerate((1, 9), 1):
            namespace["A"].v = value
            for _ in range(2):
                assert pipeline(x=3) == {"y": value + 3}
                assert len(cache) == entries


def test_a_function_has_no_digest_on_another_python(monkeypatch):
    monkeypatch.setattr(bytecode, "RUNNING_PYTHON", (3, 96))
    with pytest.raises(SignatureError, match=r"bytecode of Python 3\.96"):
        digest(lambda x: x + 1)
    assert digest([1, "a"])
