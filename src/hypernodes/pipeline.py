"""The pipeline: nodes connected by name, and the methods that run them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Never, TypeVar

from hypernodes.arguments import flag, unknown_option
from hypernodes.async_inputs import drawn_inputs, streamed_rows
from hypernodes.earlier_names import with_earlier_attributes
from hypernodes.engine import OutputName, output_names
from hypernodes.exceptions import InputError
from hypernodes.inputs import check_inputs, has_plain_names, stream_inputs, warn_of_unused_columns
from hypernodes.inspection import PipelineInspection
from hypernodes.map_call import map_call
from hypernodes.nested import MapMode, NestedPipeline, OnError, check_map_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    import daft

    from hypernodes.tables import DataFrame

TableT = TypeVar("TableT")


@with_earlier_attributes
class Pipeline(PipelineInspection):
    """Nodes connected by name: a parameter takes the output of the same name, or else is an input.

    A pipeline is immutable. `bind` and the ``with_...`` methods return copies; setting or deleting an
    attribute raises `ImmutableError`.

    Args:
        nodes: Nodes, nested pipelines (``as_node(...)``), or pipelines, which are nested without renaming.
        engine: The engine that runs the pipeline. By default the engine of the enclosing pipeline; the
            outermost pipeline runs in a plain loop.
        cache: The store of results; ``None`` switches caching off. By default the cache of the enclosing
            pipeline; the outermost pipeline has none.
        callbacks: The receivers of the pipeline's events; ``[]`` for none. By default (or if ``None``) the
            callbacks of the enclosing pipeline.
        name: The name of the pipeline in messages and events. By default made of its last output.
        strict: Whether a node that changes its inputs in place is an error, in this pipeline and in those
            nested in it. It costs two fingerprints of all arguments of each call.
        check_types: Whether it is an error that a node takes another type than the node before it returns, by
            their type hints. What the hints do not decide is no error.

    Attributes:
        nodes: The nodes and nested pipelines, in the order given.
        engine: The engine that the pipeline itself was given, or ``None``.
        cache: The cache that the pipeline itself was given, ``None`` if caching is off, or `INHERIT`.
        callbacks: The callbacks that the pipeline itself was given, as a tuple, or `INHERIT`.
        name: The name that it was given, or ``None``.
        pipeline_id: The name that messages and events use: `name`, or one made of the last output.
        strict: Whether its nodes must not change their inputs.
        bound: The inputs that `bind` has fixed, with their values.

    Raises:
        NotANodeError: An element of `nodes` is neither a node nor a pipeline.
        DuplicateOutputError: Two nodes produce an output of the same name.
        CycleError: Nodes depend on each other.
        TypeHintError: The type hints of two nodes do not fit together; the message names both.
        GraphError: `engine`, `cache`, `callbacks` or `name` has a wrong type.

    Example:
        >>> from hypernodes import node
        >>> @node(output_name="b")
        ... def double(a):
        ...     return 2 * a
        >>> @node(output_name="c")
        ... def add(a, b):
        ...     return a + b
        >>> pipeline = Pipeline([double, add])
        >>> pipeline.run({"a": 1})
        {'b': 2, 'c': 3}
    """

    def run(self, inputs: Mapping[str, Any] | None = None, output_name: OutputName = None) -> dict[str, Any]:
        """Compute the outputs once.

        Args:
            inputs: Values by name. The name of an output is allowed, too, also of a nested pipeline: its node
                is not run then.
            output_name: The output or outputs to compute, with the nodes that they need; by default all.

        Returns:
            The outputs by name.

        Raises:
            MissingInputError: An input without a default was not given.
            UnknownInputError: A name is neither an input nor an output of the pipeline.
            UnknownOutputError: No node produces an output that was requested.

        Example:
            >>> from hypernodes import node
            >>> power = Pipeline([node(pow, output_name="power")])
            >>> power.run({"base": 2, "exp": 5})
            {'power': 32}
        """
        if inputs is None or type(inputs) is not dict:
            inputs = check_inputs(inputs, self._where)
        if output_name is not None:
            output_name = output_names(output_name)
        if (compute := self._compiled.get((output_name, *inputs))) is not None:
            return compute(inputs)
        if not has_plain_names(inputs):
            inputs = check_inputs(inputs, self._where)
        return self.effective_engine.run(self, inputs, output_name)

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Compute all outputs once, with the inputs as keywords. See `run`."""
        return self.run(inputs)

    def map(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: OnError = "raise",
        *,
        previous: Mapping[str, Sequence[Any]] | None = None,
        **_unknown: Never,
    ) -> dict[str, list[Any]]:
        """Run the pipeline once per item, and collect each output in a list.

        Args:
            inputs: Values by name; those named in `map_over` are collections. Or a table of pandas, polars,
                Arrow or Daft, or a `ray.data.Dataset`, whose columns are inputs; columns that are no inputs
                are ignored.
            map_over: The input or inputs that vary from item to item; for a table, by default every column.
            map_mode: ``"zip"`` combines the collections element by element; ``"product"`` takes every
                combination, the last collection varying fastest.
            output_name: The output or outputs to compute; by default all.
            on_error: ``"raise"`` stops at the first error; ``"return"`` continues, and puts the exception of
                an item in the place of each of its outputs.
            previous: The result of the same map with ``on_error="return"``: only the items that failed are
                computed, and all others are taken from it.

        Returns:
            Each output with its values, in the order of the items. With ``DaftEngine(collect=False)`` a lazy
            `daft.DataFrame` that has the outputs as columns; of a `ray.data.Dataset` another lazy one.

        Raises:
            MapError: A value to map over is not a collection, zipped collections differ in length, `map_over`
                is missing although `inputs` is not a table, or `previous` is of another map.
            MissingInputError: An input without a default was not given.

        Example:
            >>> from hypernodes import node
            >>> power = Pipeline([node(pow, output_name="power")])
            >>> power.map({"base": [2, 3], "exp": 2}, map_over="base")
            {'power': [4, 9]}
            >>> power.map({"base": [2, 3], "exp": [1, 2]}, map_over=["base", "exp"], map_mode="product")
            {'power': [2, 4, 3, 9]}
        """
        if _unknown:
            raise unknown_option("map", _unknown)
        check_map_options(map_mode, on_error, self._where)
        warn_of_unused_columns(inputs, map_over, self.wiring, self._where)
        return map_call(self, inputs, map_over, map_mode, output_names(output_name), on_error, previous)

    def imap(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: OnError = "raise",
        *,
        ordered: bool = True,
    ) -> Iterator[tuple[int, Any]]:
        """Run the pipeline once per item, and yield the outputs of each item when they are computed.

        The number of items is not limited: items are taken from the inputs as workers become free, and only
        a bounded number of them is in memory. Closing the iterator cancels the items that are in flight.

        Args:
            inputs: Values by name; those named in `map_over` are iterables, which may be endless. Or a table.
            map_over: The input or inputs that vary from item to item; for a table, by default every column.
            map_mode: As for `map`. Of a product, only the first iterable may be endless.
            output_name: The output or outputs to compute; by default all.
            on_error: ``"raise"`` stops at the first error; ``"return"`` continues, and yields the exception
                of an item in the place of its outputs.
            ordered: Whether to yield in the order of the items, or in the order of completion.

        Returns:
            An iterator over pairs of the index of an item and its outputs by name.

        Raises:
            MapError: As for `map`. A difference in length is noticed where the shortest collection ends.
            MissingInputError: An input without a default was not given.

        Example:
            >>> from itertools import count
            >>> from hypernodes import node
            >>> power = Pipeline([node(pow, output_name="power")])
            >>> squares = power.imap({"base": count(), "exp": 2}, map_over="base")
            >>> next(squares), next(squares), next(squares)
            ((0, {'power': 0}), (1, {'power': 1}), (2, {'power': 4}))
        """
        check_map_options(map_mode, on_error, self._where)
        warn_of_unused_columns(inputs, map_over, self.wiring, self._where)
        flag("ordered", ordered, where=self._where, kind=InputError)
        given = stream_inputs(inputs, map_over, map_mode, graph=self.wiring, where=self._where)
        items, names, fixed, wanted = given.items, given.names, given.fixed, output_names(output_name)
        imap = self.effective_engine.imap
        return imap(self, items, names, fixed, wanted, on_error=on_error, ordered=ordered)

    async def arun(
        self, inputs: Mapping[str, Any] | None = None, output_name: OutputName = None
    ) -> dict[str, Any]:
        """Compute the outputs once, for a caller in an event loop. The arguments are those of `run`.

        The loop is not blocked, and async nodes run on it. Cancelling the call cancels them.

        Example:
            >>> import asyncio
            >>> from hypernodes import node
            >>> power = Pipeline([node(pow, output_name="power")])
            >>> asyncio.run(power.arun({"base": 2, "exp": 5}))
            {'power': 32}
        """
        from hypernodes.executors.loops import run_in_thread

        # What `run` remembers cannot be stopped between two calls.
        checked = check_inputs(inputs, self._where)
        return await run_in_thread(
            partial(self.effective_engine.run, self, checked, output_names(output_name))
        )

    async def amap(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: OnError = "raise",
        *,
        previous: Mapping[str, Sequence[Any]] | None = None,
    ) -> dict[str, list[Any]]:
        """Run the pipeline once per item, for a caller in an event loop. The arguments are those of `map`.

        The loop is not blocked, and async nodes run on it. Cancelling the call cancels them. Iterators, such
        as the cursor of a database, are drawn from in this thread; async iterables can be mapped over, too.
        """
        from hypernodes.executors.loops import run_in_thread

        drawn = await drawn_inputs(inputs, map_over)
        return await run_in_thread(
            partial(self.map, drawn, map_over, map_mode, output_name, on_error, previous=previous)
        )

    def aimap(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: OnError = "raise",
        *,
        ordered: bool = True,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Yield the outputs of each item, for a caller in an event loop. The arguments are those of `imap`.

        The loop is not blocked, and async nodes run on it. Closing the iterator cancels them. Async iterables
        can be mapped over, too. Iterators are drawn from in other threads, since they may block.
        """
        imap = partial(
            self.imap,
            map_over=map_over,
            map_mode=map_mode,
            output_name=output_name,
            on_error=on_error,
            ordered=ordered,
        )
        return streamed_rows(imap, inputs, map_over)

    def map_table(
        self,
        table: TableT,
        map_over: str | Sequence[str] | None = None,
        output_name: OutputName = None,
        on_error: OnError = "raise",
    ) -> TableT:
        """Run the pipeline once per row of a table, and return the table with the outputs as columns.

        All columns of the table stay, and its index, if it has one. A column with the name of an output is
        replaced. Inputs that are the same for all rows are bound: ``pipeline.bind(k=5).map_table(table)``.

        Args:
            table: A table of pandas, polars, Arrow or Daft, or a `ray.data.Dataset`.
            map_over: The columns that are inputs; by default all of them that are.
            output_name: The output or outputs to add; by default all.
            on_error: ``"raise"`` stops at the first error. With ``"return"``, a row that failed has no
                outputs, and a further column ``error`` has the type and the text of its exception.

        Returns:
            A table of the same library. Those of Daft (if errors are raised) and of Ray Data are lazy; the
            workers of Ray Data compute batches of rows without the pipeline's engine and callbacks. In the
            columns of Arrow, values that no one type of it holds are JSON texts.

        Raises:
            MapError: `table` is no table of these libraries, or none of its columns is an input.
            MissingInputError: An input without a default is not among the columns.

        Example:
            >>> import pandas
            >>> from hypernodes import node
            >>> power = Pipeline([node(pow, output_name="power")])
            >>> power.bind(exp=2).map_table(pandas.DataFrame({"base": [2, 3], "page": [7, 8]}))
               base  page  power
            0     2     7      4
            1     3     8      9
        """
        from hypernodes.map_table import map_table

        check_map_options("zip", on_error, self._where)
        mapped: TableT = map_table(self, table, map_over, output_names(output_name), on_error)
        return mapped

    def to_daft(self, frame: daft.DataFrame, output_name: OutputName = None) -> daft.DataFrame:
        """Add the outputs to a Daft data frame as lazy columns.

        Args:
            frame: A data frame whose columns are inputs. All its columns stay in the result.
            output_name: The output or outputs to add; by default all.

        Returns:
            A lazy data frame. A column has the return type of its node if the function has one, as in
            ``-> int``; otherwise it holds Python objects.

        Raises:
            MapError: `frame` is not a Daft data frame, or none of its columns is an input.
            MissingInputError: An input without a default is not among the columns.

        Example:
            >>> import daft
            >>> from hypernodes import DaftEngine, node
            >>> @node(output_name="length")
            ... def measure(word: str) -> int:
            ...     return len(word)
            >>> words = daft.from_pydict({"word": ["a", "bcd"], "page": [1, 2]})
            >>> lengths = Pipeline([measure], engine=DaftEngine(runner="native")).to_daft(words)
            >>> lengths.where(lengths["length"] > 1).to_pydict()
            {'word': ['bcd'], 'page': [2], 'length': [3]}
        """
        from hypernodes.map_table import with_daft_columns

        warn_of_unused_columns(frame, None, self.wiring, self._where)
        columns: daft.DataFrame = with_daft_columns(self, frame, output_names(output_name))
        return columns

    def as_node(
        self,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        name: str | None = None,
        *,
        on_error: OnError = "raise",
        **_unknown: Never,
    ) -> NestedPipeline:
        """Return this pipeline as a node of another one.

        Args:
            input_mapping: ``{outer name: input of this pipeline}``.
            output_mapping: ``{output of this pipeline: outer name}``.
            map_over: The outer inputs that are collections: the pipeline runs once per item, and its outputs
                are lists. By default it runs once.
            map_mode: As for `map`.
            name: The name of the node; by default that of the pipeline.
            on_error: As for `map`: with ``"return"``, the exception of an item stands in the place of each of
                its outputs, and the nodes that take the lists deal with it.

        Raises:
            MappingError: A mapping or `map_over` contains a name that the pipeline does not have.

        Example:
            >>> from hypernodes import node
            >>> single = Pipeline([node(len, output_name="length")], name="single")
            >>> lengths = single.as_node({"words": "obj"}, {"length": "lengths"}, map_over="words")
            >>> outer = Pipeline([lengths, node(lambda lengths: max(lengths), output_name="longest")])
            >>> outer.run({"words": ["a", "bcd"]})
            {'lengths': [1, 3], 'longest': 3}
        """
        if _unknown:
            raise unknown_option("as_node", _unknown)
        return NestedPipeline(
            self,
            input_mapping=input_mapping,
            output_mapping=output_mapping,
            map_over=map_over,
            map_mode=map_mode,
            on_error=on_error,
            name=name,
        )
