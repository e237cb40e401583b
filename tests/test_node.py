"""Nodes of all kinds of functions: names, defaults, options."""

import asyncio
import functools
import inspect
import math
import operator
import pickle

import pytest
from recorder import Recorder

import hypernodes
from hypernodes import DiskCache, HyperNodesEngine, Pipeline, node
from hypernodes.exceptions import GraphError, NotANodeError, UnknownInputError


@pytest.fixture(params=["plain", "cache", "callbacks", "cache and callbacks"])
def configured(request, tmp_path):
    """Without cache and callbacks a pipeline is compiled to one function; otherwise it runs node by node."""

    def configure(*nodes):
        cache = DiskCache(tmp_path / "cache") if "cache" in request.param else None
        callbacks = [Recorder()] if "callbacks" in request.param else []
        return Pipeline(nodes, cache=cache, callbacks=callbacks)

    return configure


def test_a_bare_decorator_names_the_output_after_the_function(configured):
    @node
    def double(x):
        return 2 * x

    assert configured(double).run({"x": 2}) == {"double": 4}


def test_a_decorator_called_without_options_names_the_output_after_the_function(configured):
    @node()
    def double(x):
        return 2 * x

    assert configured(double).run({"x": 2}) == {"double": 4}


def test_the_output_gets_the_name_that_was_asked_for(configured):
    @node(output_name="doubled")
    def double(x):
        return 2 * x

    assert configured(double).run({"x": 2}) == {"doubled": 4}


def test_a_plain_call_makes_a_node_too(configured):
    assert configured(node(lambda x: 2 * x, output_name="doubled")).run({"x": 2}) == {"doubled": 4}


def test_calling_a_node_calls_its_function():
    @node(output_name="total")
    def add(a, b=1, *rest, **others):
        return a + b + sum(rest) + sum(others.values())

    assert add(1) == 2
    assert add(1, 2, 3, other=4) == 10


def test_a_node_keeps_the_name_and_the_docstring_of_its_function():
    @node(output_name="doubled")
    def double(x):
        """Twice as much."""

    assert (double.__name__, double.__doc__) == ("double", "Twice as much.")


def test_several_outputs_are_several_values(configured):
    @node(output_name=("low", "high"))
    def bounds(x):
        return x - 1, x + 1

    @node(output_name="width")
    def measure(low, high):
        return high - low

    assert configured(bounds, measure).run({"x": 5}) == {"low": 4, "high": 6, "width": 2}


def test_a_tuple_of_one_name_is_one_output(configured):
    @node(output_name=("pair",))
    def both(x):
        return x, x

    assert configured(both).run({"x": 1}) == {"pair": (1, 1)}


def test_parameters_with_defaults_are_optional_inputs(configured):
    @node(output_name="total")
    def add(a, b=10):
        return a + b

    pipeline = configured(add)
    assert pipeline.optional == {"b"}
    assert pipeline.run({"a": 1}) == {"total": 11}
    assert pipeline.run({"a": 1, "b": 2}) == {"total": 3}


def test_a_default_gives_way_to_the_output_of_another_node(configured):
    @node(output_name="b")
    def make(a):
        return a * 100

    @node(output_name="total")
    def add(a, b=10):
        return a + b

    assert configured(add, make).run({"a": 1}, "total") == {"total": 101}


def test_an_input_that_only_one_of_two_nodes_can_do_without_is_required():
    first = node(lambda x=1: x, output_name="a")
    second = node(lambda x: x, output_name="b")
    assert Pipeline([first, second]).optional == frozenset()


def test_parameters_that_take_any_number_of_arguments_are_no_inputs(configured):
    @node(output_name="seen")
    def see(x, *args, **kwargs):
        return x, args, kwargs

    pipeline = configured(see)
    assert pipeline.input_names == ("x",)
    assert pipeline.run({"x": 1}) == {"seen": (1, (), {})}


def test_positional_only_and_keyword_only_parameters_are_filled(configured):
    @node(output_name="result")
    def combine(a, b=2, /, c=3, *, d, e=5):
        return a, b, c, d, e

    assert configured(combine).run({"a": 1, "d": 4}) == {"result": (1, 2, 3, 4, 5)}
    assert configured(combine).run({"a": 1, "b": 20, "d": 40, "e": 50}) == {"result": (1, 20, 3, 40, 50)}


def test_a_default_in_between_that_is_left_out_moves_no_other_argument(configured):
    @node(output_name="result")
    def combine(a, b=2, c=3):
        return a, b, c

    assert configured(combine).run({"a": 1, "c": 30}) == {"result": (1, 2, 30)}


def test_a_positional_only_default_in_between_that_is_left_out_moves_no_other_argument(configured):
    @node(output_name="result")
    def combine(a, b=2, c=3, /):
        return a, b, c

    assert configured(combine).run({"a": 1, "c": 30}) == {"result": (1, 2, 30)}


def test_a_node_without_parameters_needs_no_inputs(configured):
    @node(output_name="answer")
    def answer():
        return 42

    assert configured(answer).run() == {"answer": 42}


def test_rename_makes_a_copy_with_other_inputs_and_outputs(configured):
    @node(output_name="doubled")
    def double(x):
        return 2 * x

    renamed = double.rename(inputs={"x": "n"}, outputs={"doubled": "twice"})
    assert configured(renamed).run({"n": 3}) == {"twice": 6}
    assert (double.input_names, double.output_names) == (("x",), ("doubled",))


def test_one_function_serves_twice_in_one_pipeline(configured):
    @node(output_name="doubled")
    def double(x):
        return 2 * x

    again = double.rename(inputs={"x": "doubled"}, outputs={"doubled": "fourfold"})
    assert configured(double, again).run({"x": 3}) == {"doubled": 6, "fourfold": 12}


def test_rename_goes_by_the_present_names(configured):
    @node(output_name="difference")
    def subtract(a, b):
        return a - b

    renamed = subtract.rename(inputs={"a": "x"}).rename(inputs={"x": "y", "b": "x"})
    assert configured(renamed).run({"y": 5, "x": 3}) == {"difference": 2}


def test_rename_can_swap_inputs(configured):
    @node(output_name="difference")
    def subtract(a, b):
        return a - b

    assert configured(subtract.rename(inputs={"a": "b", "b": "a"})).run({"a": 1, "b": 5}) == {"difference": 4}


def test_a_renamed_default_stays_optional(configured):
    @node(output_name="total")
    def add(a, b=10):
        return a + b

    renamed = add.rename(inputs={"b": "c"})
    assert configured(renamed).run({"a": 1}) == {"total": 11}
    assert configured(renamed).run({"a": 1, "c": 2}) == {"total": 3}


def test_a_renamed_node_stays_callable_as_its_function_was():
    add = node(lambda a, b: a + b, output_name="total").rename(inputs={"a": "x"})
    assert add(a=1, b=2) == 3


def test_an_async_function_is_awaited(configured):
    @node(output_name="fetched")
    async def fetch(x):
        await asyncio.sleep(0)
        return x + 1

    @node(output_name="doubled")
    def double(fetched):
        return 2 * fetched

    pipeline = configured(fetch, double)
    assert pipeline.run({"x": 1}) == {"fetched": 2, "doubled": 4}
    assert pipeline.map({"x": [1, 2]}, "x", output_name="doubled") == {"doubled": [4, 6]}


def test_an_async_function_with_several_outputs_is_awaited(configured):
    @node(output_name=("low", "high"))
    async def bounds(x):
        await asyncio.sleep(0)
        return x - 1, x + 1

    assert configured(bounds).run({"x": 1}) == {"low": 0, "high": 2}


def test_a_coroutine_that_a_plain_function_returns_is_awaited(configured):
    async def fetch(x):
        await asyncio.sleep(0)
        return x + 1

    @node(output_name="fetched")
    def start(x):
        return fetch(x)

    assert configured(start).run({"x": 1}) == {"fetched": 2}


def test_an_awaitable_object_is_awaited(configured):
    class Later:
        def __init__(self, value):
            self.value = value

        def __await__(self):
            yield from asyncio.sleep(0).__await__()
            return self.value

    @node(output_name="fetched")
    def start(x):
        return Later(x)

    assert configured(start).run({"x": 1}) == {"fetched": 1}


def test_generators_that_a_plain_function_returns_are_collected(configured):
    async def numbers(x):
        for number in range(x):
            yield number

    listed = node(lambda x: (n for n in range(x)), output_name="listed")
    awaited = node(lambda x: numbers(x), output_name="awaited")
    assert configured(listed, awaited).run({"x": 2}) == {"listed": [0, 1], "awaited": [0, 1]}


def test_the_items_of_a_generator_function_are_collected(configured):
    @node(output_name="numbers")
    def count(x):
        yield from range(x)

    assert configured(count).run({"x": 3}) == {"numbers": [0, 1, 2]}


def test_the_items_of_an_async_generator_function_are_collected(configured):
    @node(output_name="numbers")
    async def count(x):
        for number in range(x):
            await asyncio.sleep(0)
            yield number

    assert configured(count).run({"x": 3}) == {"numbers": [0, 1, 2]}


def test_a_generator_may_fill_several_outputs(configured):
    @node(output_name=("a", "b"))
    def both(x):
        yield x
        yield x + 1

    assert configured(both).run({"x": 1}) == {"a": 1, "b": 2}


class Scaler:
    """Methods and calls as nodes."""

    def __init__(self, factor):
        self.factor = factor

    def scale(self, x):
        return self.factor * x

    async def fetch(self, x):
        await asyncio.sleep(0)
        return self.factor * x

    def count(self, x):
        yield from range(self.factor * x)

    def __call__(self, x):
        return self.factor * x

    @staticmethod
    def negate(x):
        return -x

    @classmethod
    def name_of(cls, x):
        return cls.__name__ * x

    @node(output_name="raised")
    def raise_it(self, x):
        return x**self.factor


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Scaler(3).scale, 6),
        (Scaler(3).fetch, 6),
        (Scaler(3).count, [0, 1, 2, 3, 4, 5]),
        (Scaler(3), 6),
        (Scaler.negate, -2),
        (Scaler.name_of, "ScalerScaler"),
    ],
    ids=["method", "async method", "generator method", "instance", "staticmethod", "classmethod"],
)
def test_methods_and_callable_objects_serve_as_nodes(configured, function, expected):
    assert configured(node(function, output_name="result")).run({"x": 2}) == {"result": expected}


class AsyncCall:
    async def __call__(self, x):
        await asyncio.sleep(0)
        return x + 1


def test_an_object_whose_call_is_async_is_awaited(configured):
    assert configured(node(AsyncCall(), output_name="next")).run({"x": 1}) == {"next": 2}


def test_a_callable_object_is_named_after_its_class():
    assert node(Scaler(2)).output_names == ("Scaler",)


def test_a_node_defined_in_a_class_body_is_bound_to_its_object(configured):
    assert Scaler(2).raise_it(5) == 25
    assert configured(Scaler(2).raise_it).run({"x": 5}) == {"raised": 25}
    assert configured(Scaler(3).raise_it).run({"x": 5}) == {"raised": 125}


def test_a_partial_leaves_its_other_parameters_as_inputs(configured):
    def scale(factor, x, offset):
        return factor * x + offset

    partial = functools.partial(scale, 3, offset=1)
    pipeline = configured(node(partial, output_name="scaled"))
    assert pipeline.run({"x": 2}) == {"scaled": 7}
    assert pipeline.optional == {"offset"}
    assert pipeline.run({"x": 2, "offset": 0}) == {"scaled": 6}


def test_a_partial_of_an_async_function_is_awaited(configured):
    async def fetch(x, y):
        return x + y

    assert configured(node(functools.partial(fetch, y=1), output_name="fetched")).run({"x": 1}) == {
        "fetched": 2
    }


def test_a_partial_method_with_a_positional_value_is_filled(configured):
    partial = functools.partial(Scaler(2).scale)
    assert configured(node(partial, output_name="scaled")).run({"x": 2}) == {"scaled": 4}


@pytest.mark.parametrize(
    ("function", "inputs", "expected"),
    [
        (len, {"obj": "abc"}, 3),
        (abs, {"x": -1}, 1),
        (operator.add, {"a": 1, "b": 2}, 3),
        (str.upper, {"self": "a"}, "A"),
        (sorted, {"iterable": [2, 1]}, [1, 2]),
        (sorted, {"iterable": [2, 1], "reverse": True}, [2, 1]),
        (Scaler, None, None),
    ],
    ids=["len", "abs", "operator.add", "str.upper", "sorted", "sorted with an option", "a class"],
)
def test_builtins_and_classes_serve_as_nodes(configured, function, inputs, expected):
    pipeline = configured(node(function, output_name="result"))
    if function is Scaler:
        assert pipeline.run({"factor": 3})["result"].factor == 3
    else:
        assert pipeline.run(inputs) == {"result": expected}


def test_a_decorated_function_is_called_with_its_decoration(configured):
    def shout(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs).upper()

        return wrapper

    @node(output_name="greeting")
    @shout
    def greet(name):
        return f"hello {name}"

    assert configured(greet).run({"name": "you"}) == {"greeting": "HELLO YOU"}


def test_a_decorator_of_an_async_function_that_stays_async_is_awaited(configured):
    def traced(function):
        @functools.wraps(function)
        async def wrapper(*args, **kwargs):
            return await function(*args, **kwargs) + 1

        return wrapper

    @node(output_name="fetched")
    @traced
    async def fetch(x):
        return x

    assert configured(fetch).run({"x": 1}) == {"fetched": 2}


def test_a_function_that_is_wrapped_to_be_plain_is_called_plainly(configured):
    async def fetch(x):
        return x

    @functools.wraps(fetch)
    def plain(x):
        return x + 1

    assert configured(node(plain, output_name="fetched")).run({"x": 1}) == {"fetched": 2}


def test_a_wrapper_that_consumes_a_generator_is_no_generator_function(configured):
    def count(x):
        yield from range(x)

    @functools.wraps(count)
    def total(x):
        return sum(count(x))

    assert configured(node(total, output_name="total")).run({"x": 3}) == {"total": 3}


def undecorated(function):
    """A decorator that has forgotten `functools.wraps`."""

    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)

    return wrapper


def with_an_option(function):
    def wrapper(*args, verbose=False, **kwargs):
        return function(*args, **kwargs)

    return wrapper


class Anything:
    def __call__(self, *args, **kwargs):
        return args, kwargs


@pytest.mark.parametrize(
    "function",
    [
        lambda *args: args,
        lambda **kwargs: kwargs,
        undecorated(lambda x: x),
        with_an_option(lambda x: x),
        functools.partial(undecorated(lambda x: x)),
        Anything(),
        print,
    ],
    ids=["args", "kwargs", "decorator", "decorator with an option", "partial", "object", "print"],
)
def test_a_function_without_named_parameters_is_refused(function):
    with pytest.raises(
        NotANodeError, match=r"only \*args and \*\*kwargs.* Wrap it in a function.* functools.wraps"
    ):
        node(function, output_name="y")


def test_an_unknown_input_beside_keywords_says_that_they_are_not_wired():
    wide = node(lambda x, **options: x, output_name="y")
    for pipeline in (Pipeline([wide]), Pipeline([wide, node(lambda y: y, output_name="z")])):
        with pytest.raises(
            UnknownInputError, match=r"unknown input 'size'.* The \*\* arguments of '<lambda>' are not"
        ):
            pipeline.run({"x": 1, "size": 2})
    with pytest.raises(UnknownInputError) as raised:
        Pipeline([node(lambda x: x, output_name="y")]).run({"x": 1, "size": 2})
    assert "**" not in str(raised.value)


@pytest.mark.parametrize(
    "decorator",
    [classmethod, staticmethod, property, functools.cached_property, functools.singledispatchmethod],
)
def test_a_node_above_a_decorator_of_methods_says_that_it_has_to_be_below(decorator):
    with pytest.raises(NotANodeError, match=rf"above @.*{decorator.__name__}, and has to be below it"):
        node(decorator(lambda self: 1), output_name="y")


def test_a_node_below_a_decorator_of_methods_serves():
    class Models:
        @classmethod
        @node(output_name="y")
        def of_class(cls, x):
            return cls.__name__ * x

        @staticmethod
        @node(output_name="y")
        def of_none(x):
            return -x

    assert Pipeline([Models.of_class]).run({"x": 2}) == {"y": "ModelsModels"}
    assert Pipeline([Models().of_class]).run({"x": 1}) == {"y": "Models"}
    assert Pipeline([Models.of_none]).run({"x": 2}) == Pipeline([Models().of_none]).run({"x": 2}) == {"y": -2}


@functools.singledispatch
def described(value, suffix="!"):
    return f"object{suffix}"


@described.register
def _(number: int, suffix="!"):
    return f"int{suffix}"


class Describer:
    @functools.singledispatchmethod
    def describe(self, value, suffix="!"):
        return f"object{suffix}"

    @describe.register
    def _(self, number: int, suffix="!"):
        return f"int{suffix}"

    @functools.singledispatchmethod
    @staticmethod
    def describe_plainly(value):
        return "object"

    @describe_plainly.register(int)
    @staticmethod
    def _(value):
        return "int"


def joined(a, b=2, c=3):
    return (a, b, c)


@functools.wraps(joined)
def over_args(*args):
    return joined(*args)


@functools.wraps(joined)
def over_keywords(**kwargs):
    return joined(**kwargs)


@functools.wraps(joined)
def in_another_order(c, b, a):
    return joined(a, b, c)


@functools.wraps(joined)
def with_its_own_first(*args, **kwargs):
    return joined(*args, **kwargs)


class Wrapped:
    @functools.wraps(joined)
    def __call__(self, *args):
        return joined(*args)


def only_by_position(a, b, c=3, /):
    return (a, b, c)


def signed(function):
    function.__signature__ = inspect.signature(joined)
    return function


@pytest.mark.parametrize(
    ("function", "inputs", "expected"),
    [
        (described, {"value": 1}, "int!"),
        (described, {"value": "a", "suffix": "?"}, "object?"),
        (Describer().describe, {"value": 1, "suffix": "?"}, "int?"),
        (Describer().describe, {"value": "a"}, "object!"),
        (Describer().describe_plainly, {"value": 1}, "int"),
        (over_args, {"a": 1, "b": 20, "c": 30}, (1, 20, 30)),
        (over_args, {"a": 1, "c": 30}, (1, 2, 30)),
        (over_args, {"a": 1}, (1, 2, 3)),
        (over_keywords, {"a": 1, "c": 30}, (1, 2, 30)),
        (in_another_order, {"a": 1, "b": 20, "c": 30}, (1, 20, 30)),
        (with_its_own_first, {"a": 1, "c": 30}, (1, 2, 30)),
        (functools.partial(over_args, 10), {"b": 20, "c": 30}, (10, 20, 30)),
        (functools.partial(joined, b=20), {"a": 1, "c": 30}, (1, 20, 30)),
        (only_by_position, {"a": 1, "b": 2}, (1, 2, 3)),
        (signed(lambda **kwargs: joined(**kwargs)), {"a": 1, "b": 20}, (1, 20, 3)),
        (signed(lambda *args: joined(*args)), {"a": 1, "c": 30}, (1, 2, 30)),
        (math.sqrt, {"x": 4}, 2.0),
        (math.hypot, None, None),
        (divmod, {"x": 7, "y": 2}, (3, 1)),
        (functools.lru_cache(joined), {"a": 1, "c": 30}, (1, 2, 30)),
        (complex, {"real": 1, "imag": 2}, 1 + 2j),
    ],
)
def test_arguments_go_by_position_where_they_can(configured, function, inputs, expected):
    if inputs is None:  # Python knows no names of their parameters
        with pytest.raises(NotANodeError, match="Wrap it in a function"):
            node(function, output_name="result")
        return
    pipeline = configured(node(function, output_name="result"))
    assert pipeline.run(inputs) == {"result": expected}
    name, value = next(iter(inputs.items()))
    assert pipeline.map({**inputs, name: [value]}, map_over=name) == {"result": [expected]}


@pytest.mark.parametrize("executor", ["sequential", "async", "threaded", "parallel"])
@pytest.mark.parametrize("level", ["map_executor", "node_executor"])
def test_arguments_go_by_position_on_every_executor(level, executor, executor_named):
    with HyperNodesEngine(**{level: executor_named(executor)}) as engine:
        nodes = [node(described, output_name="kind"), node(over_args, output_name="three")]
        pipeline = Pipeline(nodes, engine=engine)
        assert pipeline.map({"value": [1, "a"], "a": 1, "c": 30}, map_over="value") == {
            "kind": ["int!", "object!"],
            "three": [(1, 2, 30)] * 2,
        }


def test_arguments_go_by_position_on_daft():
    nodes = [node(described, output_name="kind"), node(over_args, output_name="three")]
    pipeline = Pipeline(nodes, engine=hypernodes.DaftEngine(runner="native"))
    assert pipeline.map({"value": [1, 2], "a": 1, "c": 30}, map_over="value") == {
        "kind": ["int!", "int!"],
        "three": [(1, 2, 30)] * 2,
    }
    assert pipeline.run({"value": 1, "a": 1})["three"] == (1, 2, 3)


def test_arguments_of_batch_functions_go_by_position_where_they_can():
    def doubled(x, y):
        return [value * 2 for value in x.to_pylist()]

    @functools.wraps(doubled)
    def over_args(*args):
        return doubled(*args)

    made = node(lambda x, y: x * 2, output_name="z", batch=over_args)
    with HyperNodesEngine(map_executor="threaded") as engine:
        pipeline = Pipeline([made], engine=engine)
        assert pipeline.map({"x": [1, 2], "y": 0}, map_over="x") == {"z": [2, 4]}


def test_names_are_normalized_as_python_normalizes_identifiers(configured):
    ligature = "\N{LATIN SMALL LIGATURE FI}le"
    make = node(lambda x: x + 1, output_name=ligature)
    use = node(lambda file: file * 2, output_name="used")
    assert make.output_names == ("file",)
    assert configured(make, use).run({"x": 1}) == {"file": 2, "used": 4}
    assert use.rename(inputs={"file": ligature}).input_names == ("file",)
    nested = Pipeline([use]).as_node({ligature: "file"}, {"used": ligature + "s"})
    assert (nested.input_names, nested.output_names) == (("file",), ("files",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cache": "yes"}, "cache is True or False, not 'yes'"),
        ({"retry_on": "OSError"}, "retry_on is an exception type or a tuple of them, not 'OSError'"),
        ({"retry_on": (OSError, 5)}, "retry_on is an exception type"),
        ({"retries": -1}, "retries must be a number of 0 or more"),
        ({"timeout": 0}, "timeout is a number of seconds above 0"),
        ({"cache_version": 1.5}, "cache_version is a text or a number"),
        ({"num_cpus": -1}, "num_cpus must be a number of 0 or more"),
        ({"batch": 5}, "batch=5 is not a plain function"),
        ({"batch": lambda y: y}, "takes 'y'. Give both functions the same parameters"),
    ],
)
def test_an_option_with_a_value_that_it_does_not_take_is_an_error_that_names_both(options, message):
    with pytest.raises(GraphError, match=f"node '<lambda>': .*{message}"):
        node(lambda x: x, output_name="y", **options)


def test_a_node_can_be_pickled():
    import sample

    again = pickle.loads(pickle.dumps(sample.add))
    assert again.output_names == ("total",)
    assert again(1, 2) == 4


def test_the_repr_of_a_node_has_its_inputs_and_outputs():
    @node(output_name=("low", "high"))
    def bounds(x, margin=1):
        return x - margin, x + margin

    assert repr(bounds) == "<node bounds(x, margin=…) -> low, high>"


def test_async_nodes_run_in_a_threaded_engine_too():
    @node(output_name="fetched")
    async def fetch(x):
        await asyncio.sleep(0)
        return x + 1

    with HyperNodesEngine(node_executor="threaded") as engine:
        assert Pipeline([fetch], engine=engine).run({"x": 1}) == {"fetched": 2}
