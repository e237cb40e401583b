"""Values and errors whose methods raise: nothing of that reaches the user, or changes a result."""

import logging

import numpy as np
import pytest

import hypernodes
from hypernodes import (
    DiskCache,
    HyperNodesEngine,
    LoggingCallback,
    Pipeline,
    ProgressCallback,
    RunReport,
    node,
)


class Unanswerable(Exception):
    """What the methods below raise."""


def raises(*args):
    raise Unanswerable


class DotDict(dict):
    __getattr__ = dict.__getitem__


class WithoutRepr:
    __repr__ = raises


class WithWrongRepr:
    def __repr__(self):
        return 3


class WithoutEquality:
    __eq__ = __ne__ = __hash__ = raises


class WithoutTruth:
    __bool__ = raises


class WithoutLength:
    __len__ = raises


class WithNegativeLength:
    def __len__(self):
        return int("-1")


class WithoutAttributes:
    def __getattr__(self, name):
        raise Unanswerable(name)


class WithShape:
    shape = property(raises)
    nbytes = property(raises)


class WithShapeWithoutText:
    def __init__(self):
        self.shape, self.dtype = (WithoutText(),), WithoutText()


class WithoutText:
    __str__ = __bool__ = __format__ = raises


class WithoutDirectory:
    __dir__ = raises


class WithEveryAttribute:
    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return 42


class Exits:
    def __repr__(self):
        raise SystemExit(3)


class TooDeep:
    def __repr__(self):
        raise RecursionError


class Text(str):
    __slots__ = ()
    __repr__ = __len__ = __getitem__ = raises


class Number(int):
    __repr__ = __eq__ = raises
    __hash__ = int.__hash__


class WithoutTextOfError(Exception):
    __str__ = __repr__ = raises


class WithoutAttributesOfError(Exception):
    def __getattr__(self, name):
        raise Unanswerable(name)


class OddList(list):
    __len__ = __iter__ = __repr__ = raises

    def __reduce__(self):
        return OddList, ()


class Proxy:
    """As some libraries have them: bound to nothing, they raise even if asked for their class."""

    __class__ = property(raises)


KINDS = [
    DotDict,
    WithoutRepr,
    WithWrongRepr,
    WithoutEquality,
    WithoutTruth,
    WithoutLength,
    WithNegativeLength,
    WithoutAttributes,
    WithShape,
    WithShapeWithoutText,
    WithoutDirectory,
    WithEveryAttribute,
    Exits,
    TooDeep,
    Text,
    Number,
    OddList,
]
ENGINES = {
    "sequential": HyperNodesEngine,
    "threaded": lambda: HyperNodesEngine(node_executor="threaded"),
    "async": lambda: HyperNodesEngine(node_executor="async", map_executor="async"),
    "parallel": lambda: HyperNodesEngine(map_executor="parallel"),
    "daft": hypernodes.DaftEngine,
}


def make(kind):
    return kind()


def name_of(value):
    return type(value).__name__


def fail(value):
    raise ValueError("the node's own")


def raise_(error):
    raise error("the node's own")


@pytest.fixture(scope="module", params=ENGINES)
def engine(request):
    engine = ENGINES[request.param]()
    yield engine
    engine.shutdown()


@pytest.fixture
def observed(engine, tmp_path):
    """Makes pipelines that everything observes."""
    logger = logging.getLogger("odd")

    def made(*functions, **options):
        nodes = [node(function, output_name=name) for name, function in functions]
        callbacks = [RunReport(), LoggingCallback(logger), ProgressCallback()]
        return Pipeline(
            nodes, engine=engine, callbacks=callbacks, cache=DiskCache(tmp_path / "cache"), **options
        )

    return made


@pytest.mark.parametrize("kind", KINDS)
def test_a_value_that_cannot_be_asked_goes_its_way(observed, kind, caplog):
    pipeline = observed(("value", make), ("name", name_of))
    for _ in range(2):
        results = pipeline.map({"kind": [kind, kind]}, map_over="kind")
        assert [type(value) for value in results["value"]] == [kind, kind]
        assert results["name"] == [kind.__name__] * 2
    assert pipeline.run({"kind": kind}, output_name="name") == {"name": kind.__name__}
    taking = observed(("name", name_of))
    assert taking.run({"value": kind()}) == {"name": kind.__name__}
    assert taking.run({"value": [kind()]}) == {"name": "list"}
    for seen in (pipeline.last_run, taking.explain({"value": kind()}), taking.bind(value=kind()), taking):
        assert repr(seen)
    assert "Unanswerable" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_default_that_cannot_be_asked_is_drawn(kind, caplog):
    pipeline = Pipeline([node(name_of, output_name="name")], callbacks=[RunReport()])
    assert pipeline.bind(value=kind()).visualize()
    assert "Unanswerable" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_of_a_node_is_its_own_whatever_it_was_called_with(observed, kind, caplog):
    pipeline = observed(("name", fail))
    with pytest.raises(ValueError, match="the node's own") as caught:
        pipeline.run({"value": kind()})
    assert "in node 'fail'" in caught.value.__notes__[0]
    errors = pipeline.map({"value": [kind(), kind()]}, map_over="value", on_error="return")["name"]
    assert [str(error) for error in errors] == ["the node's own"] * 2
    assert repr(pipeline.last_run)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("kind", [WithoutTextOfError, WithoutAttributesOfError])
def test_an_error_that_cannot_be_asked_arrives_as_itself(observed, kind, caplog):
    pipeline = observed(("name", raise_))
    with pytest.raises(kind):
        pipeline.run({"error": kind})
    errors = pipeline.map({"error": [kind, kind]}, map_over="error", on_error="return")["name"]
    assert [type(error) for error in errors] == [kind, kind]
    assert repr(pipeline.last_run)


def test_an_error_with_arrays_arrives_as_itself(observed):
    def fail(x):
        raise ValueError(np.arange(3), x)

    with pytest.raises(ValueError) as caught:
        observed(("y", fail)).run({"x": 1})
    assert caught.value.args[0].tolist() == [0, 1, 2]
    assert caught.value.args[1] == 1


def test_what_cannot_be_fingerprinted_is_not_cached_and_goes_its_way(tmp_path):
    pipeline = Pipeline([node(name_of, output_name="name")], cache=DiskCache(tmp_path / "cache"))
    with pytest.warns(match="'value' in pipeline .* cannot be fingerprinted"):
        assert pipeline.run({"value": Proxy()}) == {"name": "Proxy"}
    assert Pipeline([node(make, output_name="value")]).run({"kind": Proxy})["value"].__reduce__


@pytest.mark.parametrize("asked", ["__getattr__", "__eq__"])
def test_a_value_whose_class_cannot_be_asked_goes_its_way(asked, tmp_path):
    odd = type("Odd", (type,), {"__hash__": type.__hash__, asked: raises})
    kind = odd("Kind", (), {})
    pipeline = Pipeline(
        [node(lambda kind: kind[0](), output_name="value"), node(name_of, output_name="name")]
    )
    assert pipeline.run({"kind": [kind]})["name"] == "Kind"
    with pytest.warns(match="cannot be fingerprinted"):
        assert pipeline.with_cache(DiskCache(tmp_path / "cache")).run({"value": kind()})["name"] == "Kind"
