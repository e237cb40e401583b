"""A run that changes what the code of a node reads says so, unless the change is an effect."""

import importlib
import itertools
import sys
import warnings

import pytest

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import CacheWarning

CHANGED = {
    "a random generator": ("import random\nR = random.Random(1)", "R.random()\n    return x", "global R"),
    "a generator of NumPy": (
        "import numpy as np\nR = np.random.default_rng(1)",
        "return x + R.random()",
        "global R",
    ),
    "a counter": ("import itertools\nN = itertools.count()", "next(N)\n    return x", "global N"),
    "an iterator": ("I = iter(range(9))", "next(I)\n    return x", "global I"),
    "a default": ("import itertools", "return x", "default of _n"),
    "an array that is changed and read": (
        "import numpy as np\nB = np.zeros(3)",
        "np.add(B, x, out=B)\n    return B.sum()",
        "global B",
    ),
    "a view of an array": (
        "import numpy as np\nB = np.zeros(3)",
        "v = B[:1]\n    v += 1\n    return x",
        "global B",
    ),
    "a frame": (
        "import pandas as pd\nD = pd.DataFrame({'a': [1]})",
        "D['a'] = D['a'] + 1\n    return x",
        "global D",
    ),
    "lists in a list": ("L = [[], []]", "for l in L: l.append(x)\n    return x", "global L"),
    "one of two lists": ("A = []\nB = []", "l = A if x else B\n    l.append(x)\n    return x", "global A"),
    "a table by another name": ("T = {}\nset_ = T.__setitem__", "set_(len(T), x)\n    return x", "global T"),
    "an attribute by a computed name": (
        "class S: n = 0\ns = S()",
        "name = 'n'\n    setattr(s, name, s.n + 1)\n    return x",
        "global s",
    ),
    "a global by its name": ("N = 0", "globals()['N'] = N + 1\n    return x", "a value"),
    "a handler of logs": (
        "import logging, io\nH = logging.StreamHandler(io.StringIO())",
        "H.emit(logging.makeLogRecord({'msg': 'm'}))\n    return x",
        "global H",
    ),
    "a text that is written": ("import io\nS = io.StringIO()", "print(x, file=S)\n    return x", "global S"),
    "a bar": (
        "import io, tqdm\nB = tqdm.tqdm(total=9, file=io.StringIO())",
        "B.update()\n    return x",
        "global B",
    ),
    "a weak table": (
        "import weakref\nclass K: pass\nk = K()\nW = weakref.WeakKeyDictionary()",
        "W[k] = W.get(k, 0) + 1\n    return x",
        "global W",
    ),
    "bytes": (
        "import struct\nB = bytearray(8)",
        "struct.pack_into('q', B, 0, B[0] + 1)\n    return x",
        "global B",
    ),
    "a state that each call reads": (
        "class S:\n    _m = 0\n    def f(self, x): self._m += x; return [self._m]\ns = S()",
        "return s.f(x)",
        "global s",
    ),
    "an estimator": (
        "class E:\n    def fit(self, x):\n        self.k = [x]\n        return self\nE = E()",
        "return E.fit(x).k[0]",
        "global E",
    ),
}
HITS = {
    "an array that is only overwritten": "np.add(A, x, out=B)",
    "an array that is added to": "np.add(B, x, out=B)",
    "an array that is copied to": "np.copyto(B, B + x)",
    "an array that is shuffled": "np.random.shuffle(B)",
    "an array whose items are set": "B[...] = B + x",
    "an array of which a slice is set": "B[1:3] = x",
    "an array of which a slice is set whose ends vary": "B[x - 1:x] = x",
    "an array of which a slice is added to": "B[1:3] += x",
    "a list in a slice": "M[0:1][0].append(x)",
    "a list in a slice that is set": "M[0:1][0][0:1] = [x]",
    "an array of which items are added to": "np.add.at(B, [0], x)",
    "an array that is sorted": "B[0] = x\n    B.sort()",
    "a list that is shuffled": "random.shuffle(L)",
    "a list that is a heap": "heapq.heappush(L, x)",
    "a list by another name": "extend([x])",
    "an array that a helper overwrites": "helper(x, B)",
}
READ = {
    "an array, of which another part is set": "B[0] = x\n    return float(B[1])",
    "an array, of which another slice is set": "B[1:3] = x\n    return float(B[0])",
    "an array of which a slice is read": "read = float(B[1:].sum())\n    B[0] = x\n    return read",
    "an array of which a slice is added to": "B[1:3] += x\n    return float(B[1])",
    "an array, of which nothing is set": "np.add(x, x, out=B, where=False)\n    return float(B.sum())",
    "an array that is added to": "B[...] += x\n    return float(B.sum())",
    "an array that a helper reads": "read = total()\n    np.copyto(B, x)\n    return read",
    "an array that a function within reads": "read = lambda: float(B[0])\n    B[1] = x\n    return read()",
    "an array that a helper sets in part": "helper(x, B[:1])\n    return float(B[1])",
    "a result of a call that changes": "return heapq.heappop(L)",
    "a heap": "heapq.heapify(L)\n    return L[0]",
    "a list that is shuffled": "random.shuffle(L)\n    return L[0]",
    "a list that is given to a function of that name": "return insort(L, x)",
}
MODULE = """
import heapq, random
import numpy as np
A, B = np.ones(3), np.full(3, 1.0)
L = [1, 1]
M = [[], []]
extend = L.extend
def helper(x, b): np.multiply(x, 2, out=b)
def total(): return float(B.sum())
def insort(values, x): return sum(values)
def f(x):
    {body}
"""


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Import a module of the user's from its source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def import_(source):
        (tmp_path / "changing.py").write_text(source)
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, "changing", raising=False)
        return importlib.import_module("changing")

    yield import_
    sys.modules.pop("changing", None)


@pytest.fixture
def cache(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        yield cache


@pytest.mark.parametrize("case", CHANGED)
def test_a_run_that_changes_what_a_node_reads_warns_by_name(case, imported, cache):
    before, body, what = CHANGED[case]
    takes = "x, _n=itertools.count()" if case == "a default" else "x"
    body = f"next(_n)\n    {body}" if case == "a default" else body
    module = imported(f"{before}\ndef f({takes}):\n    {body}\n")
    pipeline = Pipeline([node(module.f, output_name="y")], cache=cache, name="p")
    with pytest.warns(
        CacheWarning, match="the next run will compute node 'f' of pipeline 'p' again"
    ) as caught:
        pipeline.run({"x": 2})
    assert len(caught) == 1
    assert what in str(caught[0].message)
    with warnings.catch_warnings(record=True) as again:
        warnings.simplefilter("always")
        pipeline.run({"x": 2})
    assert again == []


@pytest.mark.parametrize("case", HITS)
def test_what_the_code_only_changes_is_an_effect(case, imported, cache):
    module = imported(MODULE.format(body=f"{HITS[case]}\n    return x"))
    pipeline = Pipeline([node(module.f, output_name="y")], cache=cache)
    for _ in range(3):
        assert pipeline.run({"x": 2}) == {"y": 2}
        assert len(cache) == 1


@pytest.mark.filterwarnings("ignore:the next run will compute")
@pytest.mark.parametrize("case", READ)
def test_what_the_code_changes_and_reads_is_an_input(case, imported, cache):
    module = imported(MODULE.format(body=READ[case]))
    pipeline = Pipeline([node(module.f, output_name="y")], cache=cache)
    found, right = [], []
    for results, run in ((found, pipeline.run), (right, pipeline.with_cache(None).run)):
        for value in (2, 3, 2):
            module.B[:] = value
            module.L[:] = [value, value]
            results.append(run({"x": 2})["y"])
    assert found == right
    assert found[0] == found[2] != found[1]


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded"])
def test_a_map_that_changes_what_a_node_reads_warns_once(executor, cache):
    import random

    source = random.Random(1)

    @node(output_name="y")
    def draw(x):
        return x + source.random()

    with HyperNodesEngine(map_executor=executor) as engine:
        pipeline = Pipeline([Pipeline([draw], name="inner")], cache=cache, engine=engine)
        with pytest.warns(CacheWarning, match="closure value source of 'draw'") as caught:
            pipeline.map({"x": [1, 2, 3]}, map_over="x")
        assert len(caught) == 1


def test_a_known_run_and_one_in_other_processes_change_nothing(cache):
    seen = [0]

    def count(x):
        numbers = seen
        for position in range(len(numbers)):
            numbers[position] += 1
        return x

    pipeline = Pipeline([node(count, output_name="y")], cache=cache)
    with HyperNodesEngine(map_executor="parallel") as engine:
        for _ in range(2):
            assert pipeline.with_engine(engine).map({"x": [1, 2]}, map_over="x") == {"y": [1, 2]}
            assert len(cache) == 2
    assert pipeline.run({"x": 1}) == {"y": 1}


class Forgetful:
    """A cache that returns None for a miss."""

    def get(self, signature):
        return None

    def put(self, signature, value):
        pass


NUMBERS = itertools.count()
UNCACHEABLE = (number for number in range(3))


@pytest.mark.parametrize(
    ("function", "store"),
    [
        (lambda x: next(NUMBERS), DiskCache),
        (lambda x: UNCACHEABLE, DiskCache),
        (lambda x: x, lambda path: Forgetful()),
    ],
    ids=["changes what it reads", "has no fingerprint", "a cache that returns None"],
)
def test_a_warning_of_a_cache_names_the_line_that_has_called_the_library(function, store, tmp_path):
    pipeline = Pipeline([node(function, output_name="y")], cache=store(tmp_path))
    with pytest.warns(CacheWarning) as caught:
        pipeline.run({"x": 1})
    assert {warning.filename for warning in caught} == {__file__}
