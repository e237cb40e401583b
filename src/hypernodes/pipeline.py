"""The pipeline: nodes connected by name, and the methods that run them."""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Never, TypeVar

from hypernodes.arguments import flag, unknown_option
from hypernodes.async_inputs import drawn_inputs, sync_inputs
from hypernodes.columns.extended import RAY_DATA, kind_of_table
from hypernodes.definition import PipelineDefinition
from hypernodes.earlier_names import with_earlier_attributes
from hypernodes.engine import OutputName, output_names, registered_engine
from hypernodes.exceptions import InputError, MapError
from hypernodes.inputs import (
    all_columns_vary,
    check_inputs,
    given_values,
    has_plain_names,
    input_columns,
    map_inputs,
    stream_inputs,
    warn_of_unused_columns,
)
from hypernodes.mapping import collect, failed_items
from hypernodes.nested import MapMode, NestedPipeline, OnError, check_map_options
from hypernodes.tables import DataFrame, table_of
from hypernodes.type_checks import check_values

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

    import daft

    from hypernodes.callbacks.report import RunReport
    from hypernodes.engine import Engine
    from hypernodes.execution.explain import Explanation
    from hypernodes.inputs import MapInputs
    from hypernodes.mapping import Columns
    from hypernodes.visualization.picture import Form, Orient, Picture
    from hypernodes.visualization.svg import Theme

TableT = TypeVar("TableT")


@with_earlier_attributes
class Pipeline(PipelineDefinition):
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

    # ------------------------------------------------------------------------------------- running

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

    def remember_compiled(
        self,
        engine: Engine,
        key: tuple[Any, ...],
        compute: Callable[[Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        """Let `run` call a plan that its engine has compiled directly. Engines call this.

        The key has the outputs requested, followed by the names of the inputs.
        """
        if self.effective_engine is engine:
            self._compiled[key] = compute

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
        engine = self.effective_engine
        wanted = output_names(output_name)
        if kind_of_table(inputs) == RAY_DATA:
            if map_mode != "zip" or previous is not None:
                raise MapError(
                    f"{self._where}: a data set of Ray Data is mapped row by row, and takes neither "
                    f"map_mode='product' nor previous=."
                )
            from hypernodes.ray_data.dataset import map_dataset

            dataset: dict[str, list[Any]] = map_dataset(self, inputs, map_over, wanted, on_error)
            return dataset
        if (table := table_of(inputs)) is not None and map_mode == "zip" and previous is None:
            columns = all_columns_vary(table, map_over, self.wiring, self._where)
            if columns is not None:
                outputs: dict[str, list[Any]] | None = engine.map_frame(
                    self, inputs, columns, wanted, on_error=on_error
                )
                if outputs is not None:
                    return outputs
        given = map_inputs(inputs, map_over, map_mode, graph=self.wiring, where=self._where)
        if not given.items and not engine.is_lazy:
            return self._map_no_items(engine, given.names, given.fixed, wanted)
        if previous is not None:
            return self._map_failed(engine, given, wanted, on_error, previous)
        rows: Any = engine.map(self, given.items, given.fixed, wanted, on_error=on_error)
        if engine.is_lazy:
            lazy: dict[str, list[Any]] = rows
            return lazy
        names = next((tuple(row) for row in rows if not isinstance(row, BaseException)), None)
        if names is None:
            names = self._check_names((*given.names, *given.fixed), wanted, is_map=True)
        return collect(rows, names)

    def _map_failed(
        self,
        engine: Engine,
        given: MapInputs[Columns],
        wanted: tuple[str, ...] | None,
        on_error: OnError,
        previous: Mapping[str, Sequence[Any]],
    ) -> dict[str, list[Any]]:
        """Compute the items that failed in an earlier map, and complete its result."""
        if engine.is_lazy:
            raise MapError(
                f"{self._where}: previous= needs results, and {engine!r} returns a lazy data frame. "
                f"Give DaftEngine(collect=True)."
            )
        names = self._check_names((*given.names, *given.fixed), wanted, is_map=True)
        failed = failed_items(previous, names, len(given.items), self._where)
        complete = {name: list(previous[name]) for name in names}
        if failed:
            items = given.items.only(failed)
            rows = engine.map(self, items, given.fixed, wanted, on_error=on_error)
            for name, values in collect(rows, names).items():
                for index, value in zip(failed, values, strict=True):
                    complete[name][index] = value
        return complete

    def _map_no_items(
        self, engine: Engine, names: tuple[str, ...], fixed: dict[str, Any], wanted: tuple[str, ...] | None
    ) -> dict[str, list[Any]]:
        """Check the inputs of a map without items, and emit its events if there are callbacks."""
        outputs = self._check_names((*names, *fixed), wanted, is_map=True)
        if self.effective_callbacks:
            list(engine.imap(self, iter(()), names, fixed, wanted))
        return {name: [] for name in outputs}

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
        return self.effective_engine.imap(
            self,
            given.items,
            given.names,
            given.fixed,
            output_names(output_name),
            on_error=on_error,
            ordered=ordered,
        )

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

    async def aimap(
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
        from hypernodes.executors.loops import awaits_at_end, iterate_in_thread, run_in_thread

        # The iterator is made in a thread without an event loop. In this thread, `imap` would drive its
        # coroutines on the caller's loop and block it.
        given, sources = sync_inputs(inputs, map_over)
        start = partial(self.imap, given, map_over, map_mode, output_name, on_error, ordered=ordered)
        rows = iterate_in_thread(await run_in_thread(start))
        can_await = True
        try:
            async for row in rows:
                yield row
        except GeneratorExit:
            can_await = awaits_at_end()
            raise
        finally:
            if can_await:
                for generator in (rows, *sources):
                    await generator.aclose()

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
        daft_engine: Any = registered_engine("daft")
        engine = self.engine if isinstance(self.engine, type(daft_engine)) else daft_engine
        table = table_of(frame)
        if table is None or type(frame).__module__.partition(".")[0] != "daft":
            raise MapError(
                f"{self._where}: to_daft takes a daft.DataFrame, not a {type(frame).__name__}. Convert it: "
                f"daft.from_pydict(...), daft.from_pandas(...)."
            )
        warn_of_unused_columns(frame, None, self.wiring, self._where)
        columns, _ = input_columns(table, None, self.wiring, self._where)
        extended: daft.DataFrame = engine.add_columns(self, frame, columns, output_names(output_name))
        return extended

    def validate(
        self,
        inputs: Mapping[str, Any] | DataFrame | None = None,
        output_name: OutputName = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
    ) -> None:
        """Check the names and types of inputs, without running anything.

        Iterators are not consumed, and their items not checked; neither are those of a lazy table.

        Args:
            inputs: Values by name, as for `run` and `map`.
            output_name: The output or outputs of the run; by default all.
            map_over: The input or inputs that vary from item to item, to check the inputs of a `map`.
            map_mode: As for `map`.

        Raises:
            InputTypeError: A value is not of the type that the hint of a node asks for.
            MissingInputError: An input without a default was not given.
            UnknownInputError: A name is neither an input nor an output of the pipeline.
            UnknownOutputError: No node produces an output that was requested.
            MapError: As for `map`.

        Example:
            >>> from hypernodes import node
            >>> def double(x: int) -> int:
            ...     return 2 * x
            >>> pipeline = Pipeline([node(double)], name="p")
            >>> pipeline.validate({"x": [1, "2"]}, map_over="x")  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            hypernodes.exceptions.InputTypeError: pipeline 'p': x[1] is '2', of type str, but node 'double'...
        """
        is_map = map_over is not None or table_of(inputs) is not None
        check_map_options(map_mode, "raise", self._where, is_map=is_map, kind=MapError)
        given = given_values(inputs, map_over, map_mode, graph=self.wiring, where=self._where, is_map=is_map)
        self._check_names(tuple(given.values), output_names(output_name), is_map=is_map)
        check_values(self.wiring, {**self.bound, **given.values}, given.varying, self._where)

    def _check_names(
        self, names: tuple[str, ...], wanted: tuple[str, ...] | None, *, is_map: bool
    ) -> tuple[str, ...]:
        """Return the names of the outputs that a run or map computes, or raise an error of the inputs."""
        from hypernodes.execution.plan.build import build_plan
        from hypernodes.execution.plan.placement import Placement

        return build_plan(self, names, wanted, Placement(), mapped=is_map).plan.outputs

    def explain(
        self,
        inputs: Mapping[str, Any] | DataFrame | None = None,
        output_name: OutputName = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
    ) -> Explanation:
        """Report what a run would find in the cache, and why the rest is missing. Nothing is computed.

        Args:
            inputs: Values by name, as for `run` and `map`.
            output_name: The output or outputs of the run; by default all.
            map_over: The input or inputs that vary from item to item, to explain a `map`.
            map_mode: As for `map`.

        Returns:
            A verdict for each node, printed as a table. A miss is compared with the most similar entry.

        Example:
            >>> import tempfile
            >>> from hypernodes import DiskCache, node
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     power = Pipeline([node(pow, output_name="power")], cache=DiskCache(directory))
            ...     _ = power.run({"base": 2, "exp": 5})
            ...     print(power.explain({"base": 2, "exp": 6}))
            node   cache   why
            ──────────────────────────────
            pow    miss    input exp 5 → 6
        """
        from hypernodes.execution.explain import explain
        from hypernodes.execution.plan.build import build_plan
        from hypernodes.execution.plan.placement import Placement
        from hypernodes.execution.signature import fingerprint_plan

        is_map = map_over is not None or table_of(inputs) is not None
        check_map_options(map_mode, "raise", self._where, is_map=is_map, kind=MapError)
        if is_map:
            warn_of_unused_columns(inputs, map_over, self.wiring, self._where)
            given = map_inputs(inputs, map_over, map_mode, graph=self.wiring, where=self._where)
            names = (*given.names, *given.fixed)
            items = [{**given.fixed, **item} for item in given.items]
        else:
            values = dict(check_inputs(inputs, self._where))
            names, items = tuple(values), [values]
        plan = build_plan(self, names, output_names(output_name), Placement(), mapped=is_map).plan
        return explain(plan, items, fingerprint_plan(plan))

    # ------------------------------------------------------------------------------------- nesting

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

    # ---------------------------------------------------------------------------------- inspection

    @property
    def last_run(self) -> RunReport | None:
        """A copy of the report of the last run, if there is a `RunReport` among the callbacks."""
        from hypernodes.callbacks.report import RunReport

        reports = (callback for callback in self.effective_callbacks if isinstance(callback, RunReport))
        return next(map(copy, reports), None)

    def visualize(
        self,
        filename: str | os.PathLike[str] | None = None,
        orient: Orient = "TB",
        depth: int | None = 1,
        *,
        flatten: bool = False,
        min_arg_group_size: int = 2,
        show_legend: bool = False,
        show_types: bool = True,
        theme: Theme = "auto",
        return_type: Form = "auto",
        run: RunReport | None = None,
        **_unknown: Never,
    ) -> Picture:
        """Draw the pipeline: inputs with types and defaults, nodes with outputs, nested pipelines.

        Args:
            filename: A file to write the picture to. Its suffix selects the format: ``.svg``, ``.png``,
                ``.pdf``, ``.html``, ``.mmd`` (Mermaid) or ``.dot`` (Graphviz).
            orient: ``"TB"`` from top to bottom, ``"LR"`` from left to right, ``"BT"``, or ``"RL"``.
            depth: How many levels of nested pipelines are expanded: 1 is the pipeline's own level, ``None``
                is all levels.
            flatten: Whether expanded pipelines are drawn without a box around their nodes.
            min_arg_group_size: The number of inputs from which on the inputs that only one node takes share a
                box.
            show_legend: Whether to explain the colours.
            show_types: Whether to show types.
            theme: ``"light"``, ``"dark"``, or ``"auto"``, which follows the page that shows the picture.
            return_type: ``"svg"``, ``"html"`` (a page in which nested pipelines expand by a click),
                ``"mermaid"`` (a flowchart for a README), ``"graphviz"`` (its source), or ``"auto"``: the
                format of the file, or SVG if Graphviz is installed, otherwise Mermaid.
            run: A report of a run, such as `last_run`: nodes that took longer get warmer colours, and the
                picture shows cache hits and failures.

        Returns:
            The text of the picture; of a file in PNG or PDF, as SVG. A notebook shows it as the picture.

        Raises:
            InputError: An option has a value that it does not take.
            ExtraMissingError: SVG, PNG or PDF was requested, and Graphviz is not installed.

        Example:
            >>> from hypernodes import node
            >>> print(Pipeline([node(abs, output_name="size")]).visualize(return_type="mermaid"))
            flowchart TB
                i0(["x"])
                n0["abs → size"]
                i0 --> n0
        """
        from hypernodes.visualization.picture import picture

        if _unknown:
            raise unknown_option("visualize", _unknown)
        return picture(
            self,
            filename,
            orient=orient,
            depth=depth,
            flatten=flatten,
            min_arg_group_size=min_arg_group_size,
            show_legend=show_legend,
            show_types=show_types,
            theme=theme,
            return_type=return_type,
            run=run,
        )

    def _repr_html_(self) -> str:
        from hypernodes.visualization.picture import pipeline_table

        drawn = self.visualize()
        return str(drawn) if drawn.form == "svg" else pipeline_table(self)
