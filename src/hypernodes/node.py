"""A node: a function of one item, with named outputs."""

from __future__ import annotations

import functools
import inspect
import sys
from dataclasses import replace
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, Unpack, overload

from hypernodes.exceptions import GraphError, MappingError, NotANodeError, did_you_mean, listing
from hypernodes.options import DEFAULTS, NodeOptions, NodeOptionValues, check_names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_NAMED: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Node:
    """A function whose parameters are inputs and whose return value has a name.

    Made by `node`. It stays callable just as its function was.

    Attributes:
        function: What is called.
        name: The function's name; errors and events use it.
        output_names: The names of what it returns, in order.
        arguments: Pairs of a parameter and the name of the input that fills it.
        optional: The inputs that may be left out since their parameter has a default.
        options: How it is executed and cached; each option can be read from the node as well
            (``node.retries``).
        is_async: Whether calling the function returns an awaitable or an async generator.
        positional: The parameters that cannot be passed by name, with their defaults.
    """

    __name__: str

    def __init__(
        self,
        function: Callable[..., Any],
        /,
        *,
        output_names: tuple[str, ...],
        renamed: Mapping[str, str] | None = None,
        options: NodeOptions = DEFAULTS,
    ) -> None:
        self.function = function
        self.name = name_of(function)
        self.output_names = output_names
        self.options = options
        self.renamed = dict(renamed or {})

        parameters = _parameters(function, self.name)
        self.arguments: tuple[tuple[str, str], ...] = tuple(
            (parameter, self.renamed.get(parameter, parameter)) for parameter in parameters
        )
        self.input_names: tuple[str, ...] = tuple(name for _, name in self.arguments)
        self.optional: frozenset[str] = frozenset(
            name
            for parameter, name in self.arguments
            if parameters[parameter].default is not inspect.Parameter.empty
        )
        self.positional: tuple[tuple[str, Any], ...] = tuple(
            (name, p.default) for name, p in parameters.items() if p.kind is inspect.Parameter.POSITIONAL_ONLY
        )
        called = _called(function)
        self.is_async: bool = inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called)
        self._check()
        self._check_batch(parameters)
        functools.update_wrapper(self, function)
        self.__name__ = self.name

    def _check(self) -> None:
        for what, names in (("output", self.output_names), ("input", self.input_names)):
            if len(set(names)) != len(names):
                raise GraphError(f"node {self.name!r} has two {what}s of the same name: {listing(names)}.")
            for name in names:
                if not name.isidentifier():
                    raise GraphError(
                        f"node {self.name!r}: {name!r} cannot be the name of an {what}, since it is no "
                        f"identifier. Give it one with output_name=... or rename(...)."
                    )
        if both := set(self.output_names) & set(self.input_names):
            raise GraphError(
                f"node {self.name!r} takes and makes {listing(sorted(both))}. Give its output another name."
            )
        self.options.check(self.name)

    def _check_batch(self, parameters: Mapping[str, inspect.Parameter]) -> None:
        batch = self.options.batch
        if batch is None:
            return
        called = _called(batch)
        if not callable(batch) or isinstance(batch, Node):
            raise GraphError(f"node {self.name!r}: batch={batch!r} is no plain function.")
        if inspect.iscoroutinefunction(called) or inspect.isgeneratorfunction(called):
            raise GraphError(
                f"node {self.name!r}: its batch function is called once for many items and returns an array, "
                f"so it can be neither async nor a generator."
            )
        signature = inspect.signature(batch)
        taken = _parameters(batch, name_of(batch))
        takes_any = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
        unknown = [name for name in parameters if name not in taken and not takes_any]
        unnamed = [name for name, p in taken.items() if p.kind is p.POSITIONAL_ONLY]
        extra = [name for name, p in taken.items() if name not in parameters and p.default is p.empty]
        if unknown or extra or unnamed:
            raise GraphError(
                f"node {self.name!r} takes {listing(parameters)}, and its batch function is called with the "
                f"same names, but {name_of(batch)!r} takes {listing(taken)}"
                f"{' by position only' if unnamed else ''}."
            )

    def __getattr__(self, name: str) -> Any:
        if name in NodeOptions.__dataclass_fields__ and "options" in vars(self):
            return getattr(self.options, name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function itself, without a pipeline."""
        return self.function(*args, **kwargs)

    def __get__(self, instance: object | None, owner: type | None = None) -> Node:
        """Bind a node that was defined in a class body to its object, as a method is bound."""
        if instance is None:
            return self
        options = self.options
        if options.batch is not None:
            options = replace(options, batch=MethodType(options.batch, instance))
        return self._copy(function=MethodType(self.function, instance), options=options)

    def rename(
        self, inputs: Mapping[str, str] | None = None, outputs: Mapping[str, str] | None = None
    ) -> Node:
        """Return a copy whose inputs and outputs have other names.

        Args:
            inputs: New input names by their present ones.
            outputs: New output names by their present ones.

        Raises:
            MappingError: A name that this node does not have.

        Example:
            >>> @node(output_name="doubled")
            ... def double(x):
            ...     return 2 * x
            >>> twice = double.rename(inputs={"x": "doubled"}, outputs={"doubled": "fourfold"})
            >>> twice
            <node double(doubled) -> fourfold>
        """
        inputs, outputs = dict(inputs or {}), dict(outputs or {})
        for what, mapping, known in (
            ("input", inputs, self.input_names),
            ("output", outputs, self.output_names),
        ):
            for old in mapping:
                if old not in known:
                    raise MappingError(
                        f"node {self.name!r} has no {what} {old!r} to rename; it has {listing(known)}."
                        f"{did_you_mean(old, known)}"
                    )
        return self._copy(
            output_names=tuple(outputs.get(name, name) for name in self.output_names),
            renamed={
                parameter: inputs.get(name, name)
                for parameter, name in self.arguments
                if inputs.get(name, name) != parameter
            },
        )

    def _copy(self, **changes: Any) -> Node:
        function = changes.pop("function", self.function)
        return Node(function, **{**self._settings(), **changes})

    def _settings(self) -> dict[str, Any]:
        return {"output_names": self.output_names, "renamed": self.renamed, "options": self.options}

    def __cache_key__(self) -> object:
        """Return what its results depend on."""
        options = self.options
        key = (self.function, self.arguments, self.output_names, options.cache_version)
        return key if options.batch is None else (*key, options.batch)

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel by name where the receiving process can import it, else by value.

        The function's own name leads to this node and not to the function, so pickle alone would
        always send the function by value, together with every global that it reads.
        """
        module, qualname = (
            getattr(self.function, "__module__", None),
            getattr(self.function, "__qualname__", ""),
        )
        if module is not None and _importable(module):
            found: Any = sys.modules[module]
            for part in qualname.split("."):
                found = getattr(found, part, None)
            if isinstance(found, Node) and found.function is self.function:
                return _by_name, (module, qualname, self._settings())
        return _by_value, (self.function, self._settings())

    def __repr__(self) -> str:
        taken = ", ".join(name + ("=…" if name in self.optional else "") for name in self.input_names)
        return f"<node {self.name}({taken}) -> {', '.join(self.output_names)}>"


def _by_name(module: str, qualname: str, settings: dict[str, Any]) -> Node:
    import importlib

    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return Node(found.function, **settings)


def _by_value(function: Callable[..., Any], settings: dict[str, Any]) -> Node:
    return Node(function, **settings)


def _importable(module: str) -> bool:
    """Whether other processes get this module by importing it, which is also what cloudpickle assumes."""
    import cloudpickle

    if module == "__main__" or module not in sys.modules:
        return False
    by_value = cloudpickle.list_registry_pickle_by_value()
    return not any(module == name or module.startswith(f"{name}.") for name in by_value)


@overload
def node(
    function: Callable[..., Any],
    /,
    *,
    output_name: str | tuple[str, ...] | None = ...,
    **options: Unpack[NodeOptionValues],
) -> Node: ...
@overload
def node(
    *,
    output_name: str | tuple[str, ...] | None = ...,
    **options: Unpack[NodeOptionValues],
) -> Callable[[Callable[..., Any]], Node]: ...
def node(
    function: Callable[..., Any] | None = None,
    /,
    *,
    output_name: str | tuple[str, ...] | None = None,
    **options: Unpack[NodeOptionValues],
) -> Node | Callable[[Callable[..., Any]], Node]:
    """Make a function a node, as a decorator or by a plain call.

    Args:
        function: A function, ``async def``, generator function, method, callable or partial.
        output_name: The name of its result, or several names for a function that returns as many
            values. Left out, the result is named after the function.
        cache: Whether its results may be cached.
        cache_version: Results of another version are not used. Change it when something changes that cannot
            be seen in the code: a service, a file. It also makes cacheable what cannot be fingerprinted.
        retries: How many more times it is called when it raises.
        retry_on: The exceptions that are worth a retry.
        timeout: Seconds that one call may take; one that takes longer raises `NodeTimeoutError`.
        num_cpus: CPUs that a call takes, for executors that place calls by what they take (Ray).
        num_gpus: GPUs, likewise.
        memory: Bytes of memory, likewise.
        resources: Resources of a cluster's own, by name, likewise.
        batch: The same for many items at once: it takes a `pyarrow.Array` for each parameter that varies and
            the others as they are, and returns an array, list or ndarray (of several outputs, a tuple of
            them). Maps that go over chunks of items call it; single calls are those of the function.

    Returns:
        The node; with options only, a decorator that makes one.

    Raises:
        NotANodeError: What was given cannot be called, or its parameters cannot be read.
        GraphError: Names that cannot be used, ``retries``, ``timeout`` or an amount below 0, or a ``batch``
            that takes other parameters.

    Example:
        >>> @node(output_name="length")
        ... def measure(text: str) -> int:
        ...     return len(text)
        >>> measure("four")
        4
        >>> node(str.upper, output_name="loud").output_names
        ('loud',)
    """
    check_names(options)

    def decorate(function: Callable[..., Any], /) -> Node:
        if isinstance(function, Node):
            raise NotANodeError(
                f"{function!r} is a node already. Use rename(...) for a copy with other names."
            )
        if not callable(function):
            raise NotANodeError(f"{function!r} cannot be a node, since it cannot be called.")
        names: Any = name_of(function) if output_name is None else output_name
        names = (names,) if isinstance(names, str) else tuple(names) if hasattr(names, "__iter__") else ()
        if not names or not all(isinstance(name, str) for name in names):
            raise GraphError(
                f"node {name_of(function)!r}: output_name is a name or a tuple of names, not {output_name!r}."
            )
        return Node(function, output_names=names, options=NodeOptions.of(name_of(function), options))

    return decorate if function is None else decorate(function)


def name_of(function: Callable[..., Any]) -> str:
    """Return what a callable is called: its own name, its function's, or its class's."""
    while isinstance(function, functools.partial):
        function = function.func
    return getattr(function, "__name__", None) or type(function).__name__


def _parameters(function: Callable[..., Any], name: str) -> dict[str, inspect.Parameter]:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise NotANodeError(
            f"{name!r} cannot be a node, since its parameters cannot be read ({error}). "
            f"Wrap it in a function that names them."
        ) from None
    kinds = (*_NAMED, inspect.Parameter.POSITIONAL_ONLY)
    return {name: parameter for name, parameter in parameters.items() if parameter.kind in kinds}


def _called(function: Callable[..., Any]) -> Any:
    """Return the function that a call ends up in, below partials and ``__call__``."""
    while True:
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.isroutine(function) or inspect.isclass(function):
            return function
        else:
            return type(function).__call__
