"""The node: a function with named inputs and outputs."""

from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import replace
from types import MethodType
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    overload,
)

from hypernodes._compat.inspect import mark_coroutine_function
from hypernodes.earlier_names import missing_attribute
from hypernodes.exceptions import GraphError, MappingError, NotANodeError, did_you_mean, listing
from hypernodes.options import DEFAULTS, NodeOptions, NodeOptionValues, check_option_names
from hypernodes.parameters import (
    Positional,
    check_callable,
    inputs_of,
    named_parameters,
    positional_of,
    takes_any_keyword,
)
from hypernodes.text import identifier, names_in, renaming, short

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
Q = ParamSpec("Q")


class Node(Generic[P, R]):
    """A function whose parameters are inputs, and whose return values are named outputs.

    Nodes are made by `node`. Calling a node calls its function.

    Attributes:
        function: The function.
        name: The name of the function, which errors and events use.
        input_names: The names of the inputs, in the order of the parameters.
        output_names: The names of the return values, in order.
        arguments: Pairs of a parameter and the name of its input.
        optional: The inputs whose parameter has a default.
        options: How the node is executed and cached. Each option is also an attribute of the node, as in
            ``node.retries``.
        is_async: Whether a call of the function returns a coroutine or an async generator.
        positional: The parameters that can be passed by position.
        batch_positional: Those of its batch function.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[P, R],
        /,
        *,
        output_names: tuple[str, ...],
        renamed: Mapping[str, str] | None = None,
        options: NodeOptions = DEFAULTS,
    ) -> None:
        self.function = function
        self.name: str = callable_name(function)
        self.output_names: tuple[str, ...] = tuple(map(identifier, output_names))
        self.options = options
        self.renamed: dict[str, str] = {
            parameter: identifier(name) for parameter, name in (renamed or {}).items()
        }

        parameters = inputs_of(function, self.name)
        self.arguments: tuple[tuple[str, str], ...] = tuple(
            (parameter, self.renamed.get(parameter, parameter)) for parameter in parameters
        )
        self.input_names: tuple[str, ...] = tuple(name for _, name in self.arguments)
        self.optional: frozenset[str] = frozenset(
            name
            for parameter, name in self.arguments
            if parameters[parameter].default is not inspect.Parameter.empty
        )
        self.positional: tuple[Positional, ...] = positional_of(function, parameters)
        called = _innermost(function)
        self.is_async: bool = inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)
        self._check_names()
        self.batch_positional: tuple[Positional, ...] = ()
        self._check_batch(parameters)
        functools.update_wrapper(self, function)
        self.__name__ = self.name
        if inspect.iscoroutinefunction(called):
            mark_coroutine_function(self, called)

    def _check_names(self) -> None:
        for kind, names in (("output", self.output_names), ("input", self.input_names)):
            if len(set(names)) != len(names):
                raise GraphError(
                    f"node {self.name!r} has two {kind}s of the same name: {listing(names)}. Rename one."
                )
            for name in names:
                if not name.isidentifier():
                    raise GraphError(
                        f"node {self.name!r}: {name!r} cannot be the name of an {kind}, since it is not an "
                        f"identifier. Give the {kind} another name with output_name=... or rename(...)."
                    )
        if both := set(self.output_names) & set(self.input_names):
            raise GraphError(
                f"node {self.name!r}: {listing(sorted(both))} cannot be both an input and an output: that is "
                f"a cycle. Give the output another name with output_name=... or rename(...)."
            )

    def _check_batch(self, parameters: Mapping[str, inspect.Parameter]) -> None:
        batch = self.options.batch
        if batch is None:
            return
        if not callable(batch) or isinstance(batch, Node):
            raise GraphError(f"node {self.name!r}: batch={short(batch)} is not a plain function.")
        called = _innermost(batch)
        if inspect.iscoroutinefunction(called) or inspect.isgeneratorfunction(called):
            raise GraphError(
                f"node {self.name!r}: its batch function must return an array for many items, so that it "
                f"can be neither async nor a generator. Make it a plain function."
            )
        own = named_parameters(batch, callable_name(batch), f"the batch function of node {self.name!r}")
        missing = [name for name in parameters if name not in own and not takes_any_keyword(batch)]
        extra = [name for name, p in own.items() if name not in parameters and p.default is p.empty]
        positional = [name for name, p in own.items() if p.kind is p.POSITIONAL_ONLY]
        if missing or extra or positional:
            raise GraphError(
                f"node {self.name!r}: its batch function is called with the parameters of its function as "
                f"keywords, {listing(parameters)}, but {callable_name(batch)!r} takes {listing(own)}"
                f"{' by position only' if positional else ''}. Give both functions the same parameters."
            )
        self.batch_positional = positional_of(batch, own)

    def __getattr__(self, name: str) -> Any:
        if name in NodeOptions.__dataclass_fields__ and "options" in vars(self):
            return getattr(self.options, name)
        raise missing_attribute(self, "Node", name)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function, without a pipeline."""
        return self.function(*args, **kwargs)

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self: Node[Concatenate[S, Q], R], instance: S, owner: type | None = None) -> Node[Q, R]: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Bind a node that was defined in a class body to an instance, as Python binds methods."""
        if instance is None:
            return self
        options = self.options
        if options.batch is not None:
            options = replace(options, batch=MethodType(options.batch, instance))
        return self._copy(function=MethodType(self.function, instance), options=options)

    def rename(
        self, inputs: Mapping[str, str] | None = None, outputs: Mapping[str, str] | None = None
    ) -> Node[P, R]:
        """Return a copy with other names for some inputs and outputs.

        Args:
            inputs: ``{present name: new name}`` for inputs.
            outputs: ``{present name: new name}`` for outputs.

        Raises:
            MappingError: The node does not have an input or output of a present name.
            GraphError: A new name cannot be used.

        Example:
            >>> @node(output_name="doubled")
            ... def double(x):
            ...     return 2 * x
            >>> twice = double.rename(inputs={"x": "doubled"}, outputs={"doubled": "fourfold"})
            >>> twice
            <node double(doubled) -> fourfold>
        """
        new_inputs = self._checked("input", inputs, self.input_names)
        new_outputs = self._checked("output", outputs, self.output_names)
        renamed: Node[P, R] = self._copy(
            output_names=tuple(new_outputs.get(name, name) for name in self.output_names),
            renamed={
                parameter: new_inputs.get(name, name)
                for parameter, name in self.arguments
                if new_inputs.get(name, name) != parameter
            },
        )
        return renamed

    def _checked(
        self, kind: str, mapping: Mapping[str, str] | None, known: tuple[str, ...]
    ) -> dict[str, str]:
        """Return a mapping for `rename` by names as Python reads them."""
        names = renaming(mapping)
        if names is None:
            raise MappingError(
                f"node {self.name!r}: rename({kind}s=...) takes a mapping from names to names, as in "
                f"{{'x': 'y'}}, and not {short(mapping)}."
            )
        for old in names:
            if old not in known:
                raise MappingError(
                    f"node {self.name!r} has no {kind} {old!r} to rename; it has {listing(known)}."
                    f"{did_you_mean(old, known)}"
                )
        return names

    def _copy(self, **changes: Any) -> Any:
        function = changes.pop("function", self.function)
        return Node(function, **{**self._settings(), **changes})

    def _settings(self) -> dict[str, Any]:
        return {"output_names": self.output_names, "renamed": self.renamed, "options": self.options}

    def __cache_key__(self) -> object:
        """Return the parts that the results depend on, for signatures."""
        options = self.options
        key = (self.function, self.arguments, self.output_names, options.cache_version)
        return key if options.batch is None else (*key, options.batch)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the node by the name of its function if the receiving process can import it, else by value.

        The name of the function refers to this node in its module, not to the function. Pickle would always
        pickle the function by value, together with every global that it reads.
        """
        module = getattr(self.function, "__module__", None)
        qualname = getattr(self.function, "__qualname__", "")
        if module is not None and _is_importable(module):
            found: Any = sys.modules[module]
            for part in qualname.split("."):
                found = getattr(found, part, None)
            if isinstance(found, Node) and found.function is self.function:
                return _node_by_name, (module, qualname, self._settings())
        return _node_by_value, (self.function, self._settings())

    def __repr__(self) -> str:
        inputs = ", ".join(name + ("=…" if name in self.optional else "") for name in self.input_names)
        return f"<node {self.name}({inputs}) -> {', '.join(self.output_names)}>"


def _node_by_name(module: str, qualname: str, settings: dict[str, Any]) -> Node[..., Any]:
    import importlib

    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return Node(found.function, **settings)


def _node_by_value(function: Callable[..., Any], settings: dict[str, Any]) -> Node[..., Any]:
    return Node(function, **settings)


def _is_importable(module: str) -> bool:
    """Whether another process can import a module, by the rules of cloudpickle."""
    import cloudpickle

    if module == "__main__" or module not in sys.modules:
        return False
    by_value = cloudpickle.list_registry_pickle_by_value()
    return not any(module == name or module.startswith(f"{name}.") for name in by_value)


class _Decorator(Protocol):
    def __call__(self, function: Callable[P, R], /) -> Node[P, R]: ...


@overload
def node(
    function: Callable[P, R],
    /,
    *,
    output_name: str | tuple[str, ...] | None = ...,
    **options: Unpack[NodeOptionValues],
) -> Node[P, R]: ...
@overload
def node(
    *,
    output_name: str | tuple[str, ...] | None = ...,
    **options: Unpack[NodeOptionValues],
) -> _Decorator: ...
def node(
    function: Callable[..., Any] | None = None,
    /,
    *,
    output_name: str | tuple[str, ...] | None = None,
    **options: Unpack[NodeOptionValues],
) -> Node[..., Any] | _Decorator:
    """Make a node of a function, as a decorator or by a call.

    Args:
        function: A function, ``async def``, generator function, method, callable object or partial.
        output_name: The name of its return value, or a tuple of names for a function that returns several
            values. By default the name of the function.
        cache: Whether its results may be cached.
        cache_version: A text or number that counts in the signature. Change it when something changes that
            the code does not show, as a service or a file. It also allows caching of a function that cannot
            be fingerprinted.
        readonly: A promise that the function changes none of its inputs in place. On Ray, large arrays then
            are views of the object store, which cannot be written to; without it, each call gets a copy.
        retries: How often a call that raises is repeated.
        retry_on: The exception type, or a sequence of types, that is retried.
        retry_delay: How long to wait before a call is repeated. A number of seconds doubles with each
            attempt, with some jitter; a list has a number for each attempt, of which the last one is
            repeated; a function of the attempt (1, 2 ...) and the error returns a number, or ``None`` to
            give up, so that it can obey a server's ``Retry-After``. What waits holds no worker.
        max_concurrent: How many calls of the node may be under way at once in a run, wherever they are made.
        rate: How often the node may be called in a run, wherever the calls are made, as ``"18/s"``,
            ``"100/min"`` or ``"1000/h"``; the calls are spread evenly.
        timeout: The seconds that one call may take, or a `datetime.timedelta`. A call that takes longer
            raises `NodeTimeoutError`.
        num_cpus: The CPUs that one call takes. This and the next three options are for executors that place
            calls by resources (Ray).
        num_gpus: The GPUs that one call takes.
        memory: The bytes of memory that one call takes.
        resources: The custom resources of the cluster that one call takes, as amounts by name.
        batch: A function that computes the node for several items at once. It takes a `pyarrow.Array` for
            each parameter that varies and the plain value for the others, and returns an array, list or
            ndarray with a value for each item (for several outputs, a tuple of them). Maps call it for chunks
            of items; single calls use `function`.

    Returns:
        The node; without `function`, a decorator that makes one.

    Raises:
        NotANodeError: `function` cannot be called, its parameters cannot be read, or it has none but
            ``*args`` and ``**kwargs``.
        GraphError: A name or the value of an option is not valid, or `batch` takes other parameters.
        TypeError: A keyword is not an option.

    Example:
        >>> @node(output_name="length")
        ... def measure(text: str) -> int:
        ...     return len(text)
        >>> measure("four")
        4
        >>> node(str.upper, output_name="loud").output_names
        ('loud',)
    """
    check_option_names(options)

    def decorate(function: Callable[P, R], /) -> Node[P, R]:
        if isinstance(function, Node):
            raise NotANodeError(
                f"{function!r} is a node already. Use rename(...) for a copy with other names."
            )
        check_callable(function)
        name = callable_name(function)
        names = names_in(name if output_name is None else output_name)
        if not names:
            raise GraphError(
                f"node {name!r}: output_name is a name or a tuple of names, not {short(output_name)}."
            )
        return Node(function, output_names=names, options=NodeOptions.of(name, options))

    return decorate if function is None else decorate(function)


def callable_name(function: Callable[..., Any]) -> str:
    """Return the name of a callable: its own, that of the function of a partial, or that of its class."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


def _innermost(function: Callable[..., Any]) -> Any:
    """Return the function that a partial or a callable object finally calls."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.isroutine(function) or inspect.isclass(function):
            return function
        else:
            # A method of an object that is made later names its function as bound methods do.
            return getattr(function, "__dict__", {}).get("__func__", type(function).__call__)
