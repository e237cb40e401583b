"""Which state is an input of a node, and which is an effect of it?"""

import functools
import importlib
import subprocess
import sys
import textwrap
import threading
import types

import pytest
from state_cases import EFFECTS, INPUTS

from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.cache.content import digest
from hypernodes.exceptions import CacheWarning
from hypernodes.node import Node


@pytest.fixture
def cache(tmp_path):
    with DiskCache(tmp_path / "cache") as cache:
        yield cache


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """Import a module of the user's from its source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def import_(source, name="stateful"):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    yield import_
    sys.modules.pop("stateful", None)


def run(function, inputs, cache, **options):
    """Run a node, and return its result and whether it was computed."""
    one = function if isinstance(function, Node) else node(function, output_name="y")
    before = len(cache) if cache is not None else 0
    result = Pipeline([one], cache=cache, **options).run(inputs)["y"]
    return result, cache is not None and len(cache) > before


@pytest.mark.parametrize("case", EFFECTS)
def test_what_the_code_changes_itself_is_an_effect(case, imported, cache):
    module = imported(EFFECTS[case])
    function, inputs = module.make(2)
    first, computed = run(function, inputs, cache)
    assert computed
    for _ in range(2):
        assert run(function, inputs, cache) == (first, False)
    function, inputs = module.make(2)
    assert run(function, inputs, cache) == (first, False)


@pytest.mark.filterwarnings("ignore:the next run will compute")
@pytest.mark.parametrize("case", INPUTS)
def test_what_the_result_depends_on_is_an_input(case, imported, cache):
    module = imported(INPUTS[case])
    first, computed = run(*module.make(2), cache)
    assert computed
    first = plain(first)
    second, computed = run(*module.make(3), cache)
    assert computed
    assert plain(second) == plain(run(*module.make(3), None)[0]) != first


def plain(value):
    """Return the content of a value, objects of the user's classes included."""
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    return plain(vars(value)) if hasattr(value, "__dict__") else value


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded", "parallel"])
def test_state_of_a_node_is_an_effect_on_every_executor(executor, cache):
    log = []

    class Model:
        def __init__(self, k):
            self.k, self.calls, self.memo = k, 0, {}

        def __call__(self, x):
            self.calls += 1
            log.append(x)
            if x not in self.memo:
                self.memo[x] = x * self.k
            return self.memo[x]

    used = Model(2)
    used(7)
    with HyperNodesEngine(map_executor=executor) as engine:
        for model in (Model(2), used):
            pipeline = Pipeline([node(model, output_name="y")], cache=cache, engine=engine)
            assert pipeline.map({"x": [1, 2, 1]}, map_over="x") == {"y": [2, 4, 2]}
            assert len(cache) == 2
        pipeline = Pipeline([node(Model(3), output_name="y")], cache=cache, engine=engine)
        assert pipeline.map({"x": [1, 2]}, map_over="x") == {"y": [3, 6]}


def test_a_counter_with_another_value_in_an_equal_object_is_an_effect(cache):
    class Processor:
        def __init__(self, multiplier):
            self.multiplier, self._internal_counter = multiplier, 0

        def process(self, x):
            self._internal_counter += 1
            return x * self.multiplier

    @node(output_name="y")
    def processed(processor, x):
        return processor.process(x)

    one, other = Processor(2), Processor(2)
    other._internal_counter = 999
    assert run(processed, {"processor": one, "x": 5}, cache) == (10, True)
    assert run(processed, {"processor": other, "x": 5}, cache) == (10, False)
    assert run(processed, {"processor": Processor(3), "x": 5}, cache) == (15, True)


def test_a_table_that_a_node_returns_counts_with_its_private_rows(cache):
    class Table:
        def __init__(self, *rows):
            self._rows = list(rows)

        def add(self, row):
            self._rows.append(row)

    @node(output_name="extended")
    def extended(table, row):
        table.add(row)
        return table

    @node(output_name="y")
    def total(extended):
        return sum(extended._rows)

    for nodes in ([extended, total], [Pipeline([extended], name="inner"), total]):
        pipeline = Pipeline(nodes, cache=cache)
        assert [pipeline(table=Table(v), row=1)["y"] for v in (2, 3, 2)] == [3, 4, 3]
    only = Pipeline([extended], cache=cache)
    assert [only(table=Table(v), row=1)["extended"]._rows for v in (5, 6)] == [[5, 1], [6, 1]]


def test_what_another_function_changes_is_an_effect_for_the_node_that_reads_it(imported, cache):
    module = imported(
        """
        LOG = []
        def note(x): LOG.append(x)
        def f(x):
            note(x)
            return x, bool(LOG)
        def other(x): return x, len(LOG)
        """
    )
    assert run(module.f, {"x": 1}, cache)[1]
    assert not run(module.f, {"x": 1}, cache)[1]
    for size in (1, 2):  # This function does not change it.
        assert run(module.other, {"x": 1}, cache) == ((1, size), True)
        module.note(1)


def test_a_strict_pipeline_lets_an_object_keep_the_result_of_a_property():
    class Model:
        def __init__(self):
            self.k = 2

        @functools.cached_property
        def weights(self):
            return [self.k]

        def call(self, x):
            return x * self.weights[0]

    class Derived(Model):
        pass

    pipeline = Pipeline([node(lambda model, x: model.call(x), output_name="y")], strict=True)
    assert pipeline(model=Derived(), x=2) == {"y": 4}


def test_nothing_of_a_container_is_called_that_its_class_overrides(cache):
    class Rows(list):
        def __iter__(self):
            raise RuntimeError

        __len__ = __bool__ = __eq__ = __repr__ = __iter__

    class Options(dict):
        def items(self):
            raise RuntimeError

    class Name(str):
        __slots__ = ()

        def __str__(self):
            raise RuntimeError

    def f(thing, x):
        return x

    for make, other in ((Rows, [2]), (Options, {1: 3}), (Name, "b")):
        first = {Rows: [1], Options: {1: 2}, Name: "a"}[make]
        assert digest(make(first)) == digest(make(first)) != digest(make(other))
        assert run(f, {"thing": make(first), "x": 1}, cache)[1]


def test_attributes_that_a_class_adds_to_a_lock_count():
    class Guarded(threading.Condition):
        rows = 0

    one, other = Guarded(), Guarded()
    assert digest(one) == digest(other)
    other.rows = 1
    assert digest(one) != digest(other)


def test_private_attributes_that_are_connections_are_left_out_with_one_warning(cache, monkeypatch, tmp_path):
    import socket
    import sqlite3

    monkeypatch.setattr("hypernodes.execution.cache_warnings._warned_classes", set())

    class Client:
        def __init__(self, k):
            self.k = k
            self._socket = socket.socket()
            self._base = sqlite3.connect(":memory:")
            self._file = (tmp_path / "log").open("w")
            self._items = iter(lambda: 1, 2)
            self._local = threading.local()
            self._lock = threading.Lock()

        def call(self, x):
            return self.k * x

        def close(self):
            for one in (self._socket, self._base, self._file):
                one.close()

    clients = [Client(2), Client(2), Client(3)]
    found = []
    with pytest.warns(CacheWarning) as caught:
        for client in clients:
            found.append(run(lambda client, x: client.call(x), {"client": client, "x": 1}, cache))
            client.close()
    assert found == [(2, True), (2, False), (3, True)]
    (warning,) = caught
    for part in ("Client'", "_socket", "_base", "_file", "_local", "__cache_key__"):
        assert part in str(warning.message)
    assert "_lock" not in str(warning.message)


# --------------------------------------------------------------------------------------- defaults


def scaled(x, b=10, *, c=(1, 2)):
    return x * b + sum(c)


def passes_all(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


class Scale:
    def method(self, x, b=10, *, c=(1, 2)):
        return scaled(x, b, c=c)

    __call__ = method


WITH_DEFAULTS = {
    "a function": scaled,
    "a wrapped function": passes_all(scaled),
    "a method": Scale().method,
    "a callable object": Scale(),
    "a partial function": functools.partial(scaled, c=(1, 2)),
}


@pytest.mark.parametrize("case", WITH_DEFAULTS)
def test_a_default_that_is_given_explicitly_is_the_same_computation(case, cache):
    function = WITH_DEFAULTS[case]
    assert run(function, {"x": 1}, cache) == (13, True)
    for given in ({"b": 10}, {"c": (1, 2)}, {"b": 10, "c": (1, 2)}):
        assert run(function, {"x": 1, **given}, cache) == (13, False)
    assert run(function, {"x": 1, "b": 11}, cache) == (14, True)
    assert run(function, {"x": 1, "c": [1, 2]}, cache) == (13, True)


def test_a_wrapper_with_a_default_of_its_own_keeps_it(cache):
    def inner(x, b=10):
        return x * b

    @functools.wraps(inner)
    def outer(x, b=20):
        return inner(x, b)

    assert run(outer, {"x": 1}, cache) == (20, True)
    assert run(outer, {"x": 1, "b": 10}, cache) == (10, True)
    assert run(outer, {"x": 1, "b": 20}, cache) == (20, False)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_default_in_a_nested_pipeline_is_the_same_computation(depth, cache):
    @node(output_name="z")
    def doubled(y):
        return y * 2

    inner = node(scaled, output_name="y")
    for level in range(depth):
        inner = Pipeline([inner], name=f"level {level}")
    pipeline = Pipeline([inner, doubled], cache=cache)
    results = [pipeline(x=1, **given)["z"] for given in ({}, {"b": 10}, {"c": (1, 2)})]
    assert results == [26, 26, 26]
    assert len(cache) == 2
    assert pipeline(x=1, b=11)["z"] == 28
    assert len(cache) == 4


def test_two_nodes_with_other_defaults_of_one_input_stay_apart(cache):
    @node(output_name="one")
    def one(x, b=10):
        return x * b

    @node(output_name="two")
    def two(x, b=20):
        return x * b

    @node(output_name="y")
    def both(one, two):
        return one, two

    pipeline = Pipeline([Pipeline([one, two], name="inner"), both], cache=cache)
    expected = {None: (10, 20), 10: (10, 10), 20: (20, 20)}
    for _ in range(2):
        for b, result in expected.items():
            assert pipeline(x=1, **({} if b is None else {"b": b}))["y"] == result


def test_a_default_in_a_map_and_of_a_renamed_input_is_the_same_computation(cache):
    renamed = node(scaled, output_name="y").rename(inputs={"b": "factor"})
    pipeline = Pipeline([renamed], cache=cache)
    assert pipeline.map({"x": [1, 2]}, map_over="x") == {"y": [13, 23]}
    assert pipeline.map({"x": [1, 2], "factor": [10, 10]}, map_over=["x", "factor"]) == {"y": [13, 23]}
    assert len(cache) == 2


def test_a_changed_default_is_computed_anew(imported, cache):
    for b in (10, 11, 10):
        module = imported(f"def f(x, b={b}): return x * b")
        assert run(module.f, {"x": 1}, cache)[0] == b
    assert len(cache) == 2


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (range(0, 5, 2), range(0, 6, 2), True),
        (range(0), range(3, 3), True),
        (range(1), range(0, 9, 10), True),
        (range(3), range(1, 4), False),
        (range(0, 4, 2), range(0, 4, 3), False),
        (range(3, 0, -1), range(3), False),
        (memoryview(b"ab"), memoryview(bytearray(b"xaby"))[1:3], True),
        (memoryview(b"ab"), memoryview(b"ac"), False),
        (memoryview(b"abcd"), memoryview(b"abcd").cast("i"), False),
        (memoryview(b"abcd")[::2], memoryview(b"ac"), True),
        (memoryview(b"ab"), b"ab", False),
    ],
)
def test_ranges_and_views_of_equal_content_are_one_value(one, other, is_same, cache):
    def f(value):
        return list(value)

    assert run(f, {"value": one}, cache)[1]
    assert run(f, {"value": other}, cache)[1] is not is_same


# ------------------------------------------------------------------------------- import_module

IMPORTS = {
    "by the module": "def f(x): return importlib.import_module('pack.sub').help(x)",
    "by name": "from importlib import import_module\ndef f(x): return import_module('pack.sub').help(x)",
    "under another name": "from importlib import import_module as m\ndef f(x): return m('pack.sub').help(x)",
    "within the function": (
        "def f(x):\n    from importlib import import_module as m\n    return m('pack.sub').help(x)"
    ),
    "to a variable": "def f(x):\n    m = importlib.import_module('pack.sub')\n    return m.help(x)",
    "and asked by name": "def f(x): return getattr(importlib.import_module('pack.sub'), 'help')(x)",
    "and passed on": (
        "def g(m, x): return m.help(x)\ndef f(x): return g(importlib.import_module('pack.sub'), x)"
    ),
    "relative": "def f(x): return importlib.import_module('.sub', 'pack').help(x)",
    "relative to a keyword": "def f(x): return importlib.import_module('.sub', package='pack').help(x)",
    "as a keyword": "def f(x): return importlib.import_module(name='pack.sub').help(x)",
    "as a package": "import pack.sub\ndef f(x): return importlib.import_module('pack').sub.help(x)",
    "in a helper": "def g(): return importlib.import_module('pack.sub')\ndef f(x): return g().help(x)",
    "by a global": "NAME = 'pack.sub'\ndef f(x): return importlib.import_module(NAME).help(x)",
    "by the builtin": "def f(x): return __import__('pack.sub').sub.help(x)",
    "by the builtin, from a package": "def f(x): return __import__('pack.sub', fromlist=['help']).help(x)",
    "by the builtin, by position": (
        "def f(x): return __import__('pack.sub', None, None, ('help', 'a', 'b')).help(x)"
    ),
    "by a local variable": (
        "def f(x):\n    name = 'pack.sub'\n    return importlib.import_module(name).help(x)"
    ),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_a_module_that_import_module_imports_is_followed(case, imported, cache, tmp_path, monkeypatch):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    results = []
    for k in (1, 1, 2):
        (tmp_path / "pack" / "sub.py").write_text(f"def help(x): return x + {k}")
        for name in ("pack", "pack.sub"):
            monkeypatch.delitem(sys.modules, name, raising=False)
        function = imported(f"import importlib\n{IMPORTS[case]}").f
        results.append(run(function, {"x": 1}, cache))
    assert results == [(2, True), (2, False), (3, True)]


# ------------------------------------------------------------------------------------ explain


class Weighted:
    """A node that has state of all kinds."""

    rate = 1

    def __init__(self):
        self.w, self._v, self.calls, self.total = [1], 2, 0, 0

    def call(self, x):
        self.calls += 1
        self.total += x
        return x * self.w[0] * self._v * self.total * self.rate


class Called(Weighted):
    """A callable object."""

    __call__ = Weighted.call


GLOBAL = Weighted()


def uses_global(x):
    return GLOBAL.call(x)


def helper(x):
    return x * helper.rate


helper.rate = 1


def uses_helper(x):
    return helper(x)


def closure_over(rows):
    log = []

    def f(x):
        log.append(x)
        return x + rows[0]

    return f


def with_default(x, rows=[1]):  # noqa: B006
    return x + rows[0]


def namespace_of(rate):
    state = types.SimpleNamespace(n=0, rate=rate)

    def f(x):
        state.n += 1
        return x * state.rate

    return f


CHANGES = {
    "a public attribute": (
        lambda: Weighted().call,
        lambda f: f.__self__.w.insert(0, 3),
        "attribute w of Weighted",
    ),
    "a private attribute": (
        lambda: Weighted().call,
        lambda f: setattr(f.__self__, "_v", 5),
        "attribute _v of Weighted 2 → 5",
    ),
    "an attribute that the run changes": (
        lambda: Weighted().call,
        lambda f: None,
        "attribute total of Weighted 0 → 1",
    ),
    "an attribute of a callable object": (
        Called,
        lambda f: setattr(f, "_v", 5),
        "attribute _v of Called 2 → 5",
    ),
    "an attribute of a global": (
        lambda: uses_global,
        lambda f: setattr(GLOBAL, "_v", GLOBAL._v + 1),
        "attribute _v of global GLOBAL",
    ),
    "an attribute of a function": (
        lambda: uses_helper,
        lambda f: setattr(helper, "rate", helper.rate + 1),
        "attribute rate of helper",
    ),
    "a closure value": (
        lambda: closure_over([1]),
        lambda f: f.__closure__[1].cell_contents.insert(0, 3),
        "closure value rows list of 1 → list of 2",
    ),
    "a default": (lambda: with_default, lambda f: f.__defaults__[0].insert(0, 3), "default of rows"),
    "an attribute in a closure": (
        lambda: namespace_of(1),
        lambda f: setattr(f.__closure__[0].cell_contents, "rate", 3),
        "attribute rate of closure value state 1 → 3",
    ),
    "an argument of a partial": (
        lambda: functools.partial(lambda a, x: a[0] * x, [1]),
        lambda f: f.args[0].insert(0, 3),
        "argument 0 list of 1 → list of 2",
    ),
}


@pytest.mark.filterwarnings("ignore:the next run will compute")
@pytest.mark.parametrize("case", CHANGES)
def test_explain_names_the_state_that_differs(case, cache):
    make, change, expected = CHANGES[case]
    function = make()
    pipeline = Pipeline([node(function, output_name="y")], cache=cache)
    pipeline(x=1)
    change(function)
    (verdict,) = pipeline.explain({"x": 1})
    assert expected in verdict.because
    assert "code changed" not in verdict.because
    assert "calls" not in verdict.because


@pytest.mark.filterwarnings("ignore:the next run will compute")
def test_explain_names_an_attribute_of_a_class(cache, monkeypatch):
    pipeline = Pipeline([node(Weighted().call, output_name="y")], cache=cache)
    pipeline(x=1)
    monkeypatch.setattr(Weighted, "rate", 5)
    (verdict,) = pipeline.explain({"x": 1})
    assert "attribute rate of class Weighted 1 → 5" in verdict.because


# -------------------------------------------------------------------------------------- torch

LIKE_TORCH = """
    class Module:
        def __init__(self):
            self.__dict__.update(training=True, _parameters={}, _buffers={}, _modules={}, _hooks={})
        def __setattr__(self, name, value):
            kind = "_modules" if isinstance(value, Module) else "_parameters"
            if isinstance(value, (int, str, bool)):
                object.__setattr__(self, name, value)
            else:
                self.__dict__[kind][name] = value
        def __getattr__(self, name):
            for kind in ("_parameters", "_buffers", "_modules"):
                if name in self.__dict__.get(kind, ()):
                    return self.__dict__[kind][name]
            raise AttributeError(name)
        def __call__(self, *args): return self.forward(*args)
    """


def test_a_module_like_that_of_torch_counts_with_its_weights(imported, cache, monkeypatch):
    np = pytest.importorskip("numpy")
    base = imported(LIKE_TORCH, "liketorch")
    monkeypatch.setattr(  # Only an installed package has a base class whose code is not read.
        "hypernodes.cache.installed._INSTALLED_UNDER", (base.__file__,)
    )

    class Net(base.Module):
        def __init__(self, k, calls=0):
            super().__init__()
            self.weight = np.full(3, float(k))
            self.inner = base.Module()
            self.inner.bias = np.zeros(2)
            self.name = "net"

        def forward(self, x):
            return float(self.weight.sum() * x + self.inner.bias.sum())

    def f(net, x):
        return net(x)

    assert run(f, {"net": Net(1), "x": 2}, cache) == (6.0, True)
    assert run(f, {"net": Net(1), "x": 2}, cache) == (6.0, False)
    assert run(f, {"net": Net(2), "x": 2}, cache) == (12.0, True)
    moved = Net(1)
    moved.inner.bias += 1
    assert run(f, {"net": moved, "x": 2}, cache) == (8.0, True)


def test_the_bytes_of_a_large_module_are_hashed_in_place(monkeypatch):
    np = pytest.importorskip("numpy")
    from hypernodes.cache import hashing

    class Net:
        def __init__(self):
            self._parameters = {f"w{i}": np.full((256, 1024), i, "f4") for i in range(4)}

    hashed = []
    original = hashing.blake2b

    def counted(buffer=b"", **options):
        if len(buffer) >= 1 << 20:
            hashed.append((type(buffer), memoryview(buffer).nbytes))
        return original(buffer, **options)

    monkeypatch.setattr(hashing, "blake2b", counted)
    assert digest(Net()) == digest(Net())
    assert hashed == [(memoryview, 1 << 20)] * 8  # Each byte is hashed once, and none is copied.


torch_cases = {
    "weights": lambda torch, net: net.linear.weight.data.add_(1),
    "a buffer": lambda torch, net: net.norm.running_mean.add_(1),
    "a private attribute": lambda torch, net: setattr(net, "_scale", 3.0),
    "its mode": lambda torch, net: net.train(),
    "a frozen weight": lambda torch, net: net.linear.weight.requires_grad_(False),
    "a gradient": lambda torch, net: net(torch.ones(2, 4)).sum().backward(),
    "a hook": lambda torch, net: net.register_forward_hook(lambda module, args, output: output * 2),
}


@pytest.fixture
def make_net():
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self, seed=0):
            super().__init__()
            torch.manual_seed(seed)
            self.linear = torch.nn.Linear(4, 4)
            self.norm = torch.nn.BatchNorm1d(4)
            self._scale = 2.0

        def forward(self, x):
            return self.norm(self.linear(x)) * self._scale

    return lambda seed=0: Net(seed).eval()


@pytest.mark.parametrize("case", torch_cases)
def test_all_state_of_a_torch_module_counts(case, make_net):
    import torch

    net = make_net()
    assert digest(net) == digest(make_net()) != digest(make_net(1))
    with torch.no_grad():
        net(torch.ones(2, 4))
    assert digest(net) == digest(make_net())
    torch_cases[case](torch, net)
    assert digest(net) != digest(make_net())


def test_torch_modules_with_other_weights_do_not_share_an_entry(make_net, cache):
    import torch

    def f(net, x):
        return net(torch.full((2, 4), float(x))).detach().numpy().tolist()

    first = run(f, {"net": make_net(), "x": 1}, cache)
    assert run(f, {"net": make_net(), "x": 1}, cache) == (first[0], False)
    second = run(f, {"net": make_net(1), "x": 1}, cache)
    assert second[1]
    assert second[0] != first[0]


def test_torch_tensors_count_by_content():
    torch = pytest.importorskip("torch")

    class Marked(torch.Tensor):
        pass

    tensors = [
        torch.ones(2),
        torch.zeros(2),
        torch.ones(2).reshape(2, 1),
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(2).requires_grad_(),
        torch.nn.Parameter(torch.ones(2)),
        torch.ones(2).as_subclass(Marked),
        torch.zeros(2).as_subclass(Marked),
        torch.eye(3).to_sparse(),
        (2 * torch.eye(3)).to_sparse(),
        torch.tensor([1 + 2j]),
        torch.tensor([1 + 2j]).conj(),
    ]
    assert len({digest(tensor) for tensor in tensors}) == len(tensors)
    assert digest(torch.arange(10)[::2]) == digest(torch.arange(10)[::2].clone())
    assert digest(torch.ones(2).as_subclass(Marked)) == digest(torch.ones(2).as_subclass(Marked))


# -------------------------------------------------------------------------------- other processes

ACROSS = """
import sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
import stateful
from hypernodes import DiskCache, Pipeline, node
with DiskCache(sys.argv[2]) as cache:
    function, inputs = stateful.make(2)
    for _ in range(2):
        Pipeline([node(function, output_name="y")], cache=cache).run(inputs)
    print(len(cache))
"""


@pytest.mark.parametrize(
    "case",
    ["closure list", "nonlocal", "default list", "callable class", "class attr counter", "memo hits counter"],
)
def test_another_process_finds_what_this_one_has_computed(case, imported, tmp_path):
    module = imported(EFFECTS[case])
    with DiskCache(tmp_path / "cache") as cache:
        function, inputs = module.make(2)
        for _ in range(2):
            run(function, inputs, cache)
        assert len(cache) == 1
    done = subprocess.run(
        [sys.executable, "-c", ACROSS, str(tmp_path), str(tmp_path / "cache")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "1"
