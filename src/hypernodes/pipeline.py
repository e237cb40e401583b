"""Pipeline: names, configuration, and the ways to run it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

from hypernodes.config import INHERIT, Cache, type_of_inherit
from hypernodes.engine import OutputName, output_names, registered_engine
from hypernodes.exceptions import (
    GraphError,
    ImmutableError,
    InputError,
    MapError,
    NotANodeError,
    UnknownInputError,
    did_you_mean,
    listing,
)
from hypernodes.graph import Graph, Member, build_graph
from hypernodes.mapping import Columns, expand, parse_map_over, stream
from hypernodes.nested import MapMode, NestedPipeline
from hypernodes.node import Node
from hypernodes.tables import DataFrame, Table, table_of

if TYPE_CHECKING:
    import os

    import daft
    import networkx as nx

    from hypernodes.callbacks.base import PipelineCallback
    from hypernodes.callbacks.report import RunReport
    from hypernodes.engine import Engine
    from hypernodes.execution.explain import Explanation
    from hypernodes.visualization.picture import Form, Orient, Picture
    from hypernodes.visualization.svg import Theme

Inherit: TypeAlias = type_of_inherit


class Pipeline:
    """Functions wired by name: a parameter takes the output of the same name, or an input.

    A pipeline never changes; ``with_...`` and `bind` give copies.

    Args:
        nodes: Nodes, nested pipelines (``as_node(...)``), or pipelines, which are nested as they are.
        engine: Runs it; left out, that of the pipeline around, else one that runs everything in a
            plain loop.
        cache: Where results are kept; ``None`` for nowhere; left out, that of the pipeline around.
        callbacks: Get the events of its runs; ``[]`` for none; left out or ``None``, those of the pipeline
            around.
        name: Its name in messages and events.
        strict: Whether it is an error that a node, here or in a pipeline nested in it, changes its inputs in
            place. It costs two fingerprints of everything that a node takes.

    Raises:
        NotANodeError: Something in `nodes` is neither a node nor a pipeline.
        DuplicateOutputError: Two nodes make the same output.
        CycleError: Nodes wait for each other.

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

    def __init__(
        self,
        nodes: Iterable[Node | NestedPipeline | Pipeline],
        engine: Engine | None = None,
        cache: Cache | Inherit | None = INHERIT,
        callbacks: Iterable[PipelineCallback] | Inherit | None = INHERIT,
        name: str | None = None,
        *,
        strict: bool = False,
    ) -> None:
        if isinstance(nodes, Node | NestedPipeline | Pipeline):
            raise NotANodeError(f"nodes={nodes!r} is one node; give a list of them: Pipeline([...]).")
        members: list[Member] = []
        for position, member in enumerate(nodes):
            match member:
                case Pipeline():
                    members.append(member.as_node())
                case Node() | NestedPipeline():
                    members.append(member)
                case _:
                    hint = " Mark it with @node." if callable(member) else ""
                    raise NotANodeError(
                        f"pipeline {'without a name' if name is None else repr(name)}: nodes[{position}] "
                        f"is {member!r}, which is neither a node nor a pipeline.{hint}"
                    )
        last = [output for member in members for output in member.output_names][-1:]
        pipeline_id = name or "-".join(("pipeline", *last))
        vars(self).update(
            name=name,
            strict=strict,
            nodes=tuple(members),
            pipeline_id=pipeline_id,
            wiring=build_graph(members, pipeline_id),
            bound={},
            engine=_checked_engine(engine, pipeline_id),
            cache=_checked_cache(cache, pipeline_id),
            callbacks=_checked_callbacks(callbacks),
            token=object(),
            _compiled={},
        )

    # Declared for type checkers; `__init__` and `_copy` are the only places that set them.
    name: str | None
    strict: bool
    nodes: tuple[Member, ...]
    pipeline_id: str
    wiring: Graph
    bound: Mapping[str, Any]
    engine: Engine | None
    cache: Cache | Inherit | None
    callbacks: tuple[PipelineCallback, ...] | Inherit
    token: object
    _compiled: dict[tuple[Any, ...], Callable[[Mapping[str, Any]], dict[str, Any]]]

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise _immutable(self, name)

    def __delattr__(self, name: str) -> NoReturn:
        raise _immutable(self, name)

    # ------------------------------------------------------------------------------------- running

    def run(self, inputs: Mapping[str, Any] | None = None, output_name: OutputName = None) -> dict[str, Any]:
        """Compute every output, or just those asked for.

        Args:
            inputs: Values by name. A name of an output may be given, too: its node is then not run.
            output_name: The output or outputs wanted; only what they need is computed.

        Returns:
            The outputs by name.

        Raises:
            MissingInputError: An input that has no default was not given.
            UnknownInputError: A name that the pipeline neither takes nor makes.
            UnknownOutputError: An output that no node makes.
        """
        if inputs is None or inputs.__class__ is not dict:
            inputs = self._checked_inputs(inputs)
        if output_name is not None:
            output_name = output_names(output_name)
        compute = self._compiled.get((output_name, *inputs))
        if compute is not None:
            return compute(inputs)
        return self.effective_engine.run(self, inputs, output_name)

    def remember_compiled(
        self,
        engine: Engine,
        key: tuple[Any, ...],
        compute: Callable[[Mapping[str, Any]], dict[str, Any]],
    ) -> None:
        """Let `run` call a compiled plan directly, for an engine to whom nothing is left to decide.

        Args:
            engine: The engine; it is forgotten if another one runs this pipeline.
            key: The outputs asked for and the names of the inputs.
            compute: The compiled plan.
        """
        if self.effective_engine is engine:
            self._compiled[key] = compute

    def _checked_inputs(self, inputs: Mapping[str, Any] | DataFrame | None) -> Mapping[str, Any]:
        if inputs is None:
            return {}
        if not isinstance(inputs, Mapping):
            if table_of(inputs) is not None:
                raise InputError(
                    f"pipeline {self.pipeline_id!r}: a table has many rows, and run computes once. Use map: "
                    f"it takes each row as an item."
                )
            raise InputError(
                f"pipeline {self.pipeline_id!r}: inputs are values by name, as in {{'x': 1}}, but this is "
                f"a {type(inputs).__name__}: {inputs!r}."
            )
        return inputs

    def __call__(self, **inputs: Any) -> dict[str, Any]:
        """Compute every output, with the inputs as keywords."""
        return self.run(inputs)

    def map(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> dict[str, list[Any]]:
        """Run once per item, and collect each output in a list.

        Args:
            inputs: Values by name; those in `map_over` are collections. Or a table (of pandas, polars, Arrow
                or Daft) whose columns are inputs; columns that the pipeline does not know are left out.
            map_over: The input or inputs that vary from item to item; of a table, every column by default.
            map_mode: ``"zip"`` walks several together; ``"product"`` takes every combination, the last
                one varying fastest.
            output_name: The output or outputs wanted; every one by default.
            on_error: ``"raise"`` stops at the first error; ``"return"`` puts the exception in the place of
                each output of the item.

        Returns:
            Each output with its values, in the order of the items. With ``DaftEngine(collect=False)`` a lazy
            `daft.DataFrame` that has the outputs as columns.

        Raises:
            MapError: What is mapped over is no collection, zipped ones differ in length, or `map_over` is
                left out where `inputs` is no table.
            MissingInputError: An input that has no default was not given.

        Example:
            >>> from hypernodes import node
            >>> power = Pipeline([node(pow, output_name="power")])
            >>> power.map({"base": [2, 3], "exp": 2}, map_over="base")
            {'power': [4, 9]}
            >>> power.map({"base": [2, 3], "exp": [1, 2]}, map_over=["base", "exp"], map_mode="product")
            {'power': [2, 4, 3, 9]}
        """
        _check_modes(f"pipeline {self.pipeline_id!r}", map_mode, on_error)
        engine = self.effective_engine
        wanted = output_names(output_name)
        table = table_of(inputs)
        if table is not None and map_mode == "zip":
            names = self._inputs_of(table, map_over)
            if set(names) >= set(self._inputs_of(table)):
                found: Any = engine.map_frame(self, inputs, names, wanted, on_error=on_error)
                if found is not None:
                    return found  # type: ignore[no-any-return]
        names, items, fixed = self._mapped(inputs, map_over, map_mode)
        if not items and not engine.is_lazy:
            outputs_of_none = self._outputs_of_no_items(names, fixed, wanted)
            if self.effective_callbacks:  # they get the start and the end of a map over nothing
                list(engine.imap(self, iter(()), names, fixed, wanted))
            return {name: [] for name in outputs_of_none}
        rows = engine.map(self, items, fixed, wanted, on_error=on_error)
        if engine.is_lazy:
            return rows  # type: ignore[return-value]
        if isinstance(rows, Columns):
            return rows.columns
        if on_error == "raise":
            return {name: [row[name] for row in rows] for name in rows[0]}
        outputs = next((tuple(row) for row in rows if isinstance(row, dict)), None)
        if outputs is None:
            outputs = self._outputs_of_no_items(names, fixed, wanted)
        return {name: [row[name] if isinstance(row, dict) else row for row in rows] for name in outputs}

    def _mapped(
        self,
        inputs: Mapping[str, Any] | DataFrame | None,
        map_over: str | Sequence[str] | None,
        map_mode: MapMode,
        *,
        lazily: bool = False,
    ) -> tuple[tuple[str, ...], Any, dict[str, Any]]:
        """Return what varies by name, the items (``lazily`` an iterator of them), and the other inputs."""
        items_of: Callable[..., Any] = stream if lazily else expand
        where = f"pipeline {self.pipeline_id!r}"
        table = table_of(inputs)
        if table is None:
            checked = self._checked_inputs(inputs)
            if map_over is None:
                raise MapError(
                    f"{where}: say which inputs vary from item to item: map_over=... takes one or more of "
                    f"{listing(checked)}. Only of a table it is every column."
                )
            names = parse_map_over(map_over, checked, where)
            fixed = {name: value for name, value in checked.items() if name not in names}
            return names, items_of(checked, names, map_mode, where), fixed
        used, names = self._inputs_of(table), self._inputs_of(table, map_over)
        if lazily and set(names) >= set(used) and map_mode == "zip":
            return names, (dict(zip(names, row, strict=True)) for row in table.rows(names)), {}
        columns = table.columns([*dict.fromkeys((*used, *names))])
        fixed = {name: columns[name] for name in used if name not in names}
        return names, items_of(columns, names, map_mode, where), fixed

    def _inputs_of(self, table: Table, map_over: str | Sequence[str] | None = None) -> tuple[str, ...]:
        """Return the columns of a table that are inputs, or those of them that are mapped over."""
        where = f"pipeline {self.pipeline_id!r}"
        if map_over is not None:
            return parse_map_over(map_over, table.names, where)
        known = (*self.wiring.input_names, *self.wiring.output_names)
        used = tuple(name for name in table.names if name in known)
        if not used:
            raise MapError(
                f"{where}: no column of the table is an input. It has {listing(table.names)}; the pipeline "
                f"takes {listing(self.wiring.input_names)}."
            )
        return used

    def to_daft(self, frame: daft.DataFrame, output_name: OutputName = None) -> daft.DataFrame:
        """Add the outputs to a Daft data frame, as columns that are computed when somebody asks for them.

        Args:
            frame: Its columns are inputs, and stay; those that the pipeline does not know, too.
            output_name: The output or outputs wanted; every one by default.

        Returns:
            A lazy data frame. Where a node says what it returns, as in ``-> int``, the column has that type;
            else its values are Python objects.

        Raises:
            MapError: It is no Daft data frame, or none of its columns is an input.
            MissingInputError: An input that has no default is none of its columns.

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
                f"pipeline {self.pipeline_id!r}: to_daft takes a daft.DataFrame, not a "
                f"{type(frame).__name__}. Make it one: daft.from_pydict(...), daft.from_pandas(...)."
            )
        wanted = output_names(output_name)
        columns: daft.DataFrame = engine.add_columns(self, frame, self._inputs_of(table), wanted)
        return columns

    def _outputs_of_no_items(
        self, names: tuple[str, ...], fixed: Mapping[str, Any], wanted: tuple[str, ...] | None
    ) -> tuple[str, ...]:
        from hypernodes.execution.plan.build import build_plan
        from hypernodes.execution.plan.placement import Placement

        return build_plan(self, (*names, *fixed), wanted, Placement(), mapped=True).plan.outputs

    def imap(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: Literal["raise", "return"] = "raise",
        *,
        ordered: bool = True,
    ) -> Iterator[tuple[int, Any]]:
        """Run once per item, and hand out what comes of it as it comes: for items of any number.

        Items are drawn as there is room for them, and only a bounded number is here at any time.
        Nothing goes on that is not asked for: what is under way is cancelled when the iterator is closed.

        Args:
            inputs: Values by name; those in `map_over` are iterables, which may be endless. Or a table.
            map_over: The input or inputs that vary from item to item; of a table, every column by default.
            map_mode: How several of them are walked, as in `map`; of a product, the first may be endless.
            output_name: The output or outputs wanted; every one by default.
            on_error: ``"raise"`` stops at the first error; ``"return"`` gives the exception in place of the
                outputs.
            ordered: Whether they come in the order of the items, or as they are completed.

        Returns:
            An iterator over pairs of an item's index and its outputs by name.

        Raises:
            MapError: What is mapped over is no collection, zipped ones differ in length, or `map_over` is
                left out where `inputs` is no table.
            MissingInputError: An input that has no default was not given.

        Example:
            >>> from itertools import count
            >>> from hypernodes import node
            >>> power = Pipeline([node(pow, output_name="power")])
            >>> squares = power.imap({"base": count(), "exp": 2}, map_over="base")
            >>> next(squares), next(squares), next(squares)
            ((0, {'power': 0}), (1, {'power': 1}), (2, {'power': 4}))
        """
        _check_modes(f"pipeline {self.pipeline_id!r}", map_mode, on_error)
        names, items, fixed = self._mapped(inputs, map_over, map_mode, lazily=True)
        wanted = output_names(output_name)
        return self.effective_engine.imap(
            self, items, names, fixed, wanted, on_error=on_error, ordered=ordered
        )

    async def arun(
        self, inputs: Mapping[str, Any] | None = None, output_name: OutputName = None
    ) -> dict[str, Any]:
        """Do what `run` does, for code in an event loop: it goes on, and async nodes run on it."""
        from hypernodes.executors.loops import in_thread

        return await in_thread(partial(self.run, inputs, output_name))

    async def amap(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: Literal["raise", "return"] = "raise",
    ) -> dict[str, list[Any]]:
        """Do what `map` does, for code in an event loop: it goes on, and async nodes run on it."""
        from hypernodes.executors.loops import in_thread

        return await in_thread(partial(self.map, inputs, map_over, map_mode, output_name, on_error))

    async def aimap(
        self,
        inputs: Mapping[str, Any] | DataFrame,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        output_name: OutputName = None,
        on_error: Literal["raise", "return"] = "raise",
        *,
        ordered: bool = True,
    ) -> AsyncIterator[tuple[int, Any]]:
        """Do what `imap` does, for code in an event loop: it goes on, and async nodes run on it."""
        from hypernodes.executors.loops import in_thread, iterated

        # In a thread there is no loop in whose way it could be.
        start = partial(self.imap, inputs, map_over, map_mode, output_name, on_error, ordered=ordered)
        async for row in iterated(await in_thread(start)):
            yield row

    def explain(
        self,
        inputs: Mapping[str, Any] | DataFrame | None = None,
        output_name: OutputName = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
    ) -> Explanation:
        """Say what a run would find in the cache, and why not the rest. Nothing is computed.

        Args:
            inputs: Values by name, as `run` and `map` take them.
            output_name: The output or outputs wanted; every one by default.
            map_over: For what `map` would find: the input or inputs that vary.
            map_mode: How several of them are walked, as in `map`.

        Returns:
            A verdict for each node, compared with the entry that has most in common with it. It shows as
            a table.

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

        wanted = output_names(output_name)
        mapped = map_over is not None or table_of(inputs) is not None
        if mapped:
            names, drawn, fixed = self._mapped(inputs, map_over, map_mode)
            items = [{**fixed, **item} for item in drawn]
        else:
            names, fixed = (), dict(self._checked_inputs(inputs))
            items = [fixed]
        plan = build_plan(self, (*names, *fixed), wanted, Placement(), mapped=mapped).plan
        return explain(plan, items, fingerprint_plan(plan))

    # ------------------------------------------------------------------------------------- nesting

    def as_node(
        self,
        input_mapping: Mapping[str, str] | None = None,
        output_mapping: Mapping[str, str] | None = None,
        map_over: str | Sequence[str] | None = None,
        map_mode: MapMode = "zip",
        name: str | None = None,
    ) -> NestedPipeline:
        """Make this pipeline a node of another one.

        Args:
            input_mapping: The inner input that an outer name fills, by outer name.
            output_mapping: The outer name that an inner output gets, by inner name.
            map_over: The outer inputs that are collections; the pipeline runs once per item, and its
                outputs are lists.
            map_mode: How several of them are walked, as in `map`.
            name: The node's name; the pipeline's by default.

        Raises:
            MappingError: A name that the pipeline lacks.

        Example:
            >>> from hypernodes import node
            >>> single = Pipeline([node(len, output_name="length")], name="single")
            >>> lengths = single.as_node({"words": "obj"}, {"length": "lengths"}, map_over="words")
            >>> outer = Pipeline([lengths, node(lambda lengths: max(lengths), output_name="longest")])
            >>> outer.run({"words": ["a", "bcd"]})
            {'lengths': [1, 3], 'longest': 3}
        """
        return NestedPipeline(
            self,
            input_mapping=input_mapping,
            output_mapping=output_mapping,
            map_over=map_over,
            map_mode=map_mode,
            name=name,
        )

    # ------------------------------------------------------------------------------- configuration

    def bind(self, **values: Any) -> Pipeline:
        """Return a copy in which these inputs are fixed; `run` may still be given another value.

        Raises:
            UnknownInputError: A name that the pipeline neither takes nor makes.
        """
        graph = self.wiring
        known = (*graph.input_names, *graph.output_names)
        for name in values:
            if name not in known:
                raise UnknownInputError(
                    f"pipeline {self.pipeline_id!r} has no input {name!r} to bind; it takes "
                    f"{listing(graph.input_names)}.{did_you_mean(name, known)}"
                )
        return self._copy(bound={**self.bound, **values})

    def with_engine(self, engine: Engine | None) -> Pipeline:
        """Return a copy with another engine; ``None`` leaves it to the pipeline around."""
        return self._copy(engine=_checked_engine(engine, self.pipeline_id))

    def with_cache(self, cache: Cache | Inherit | None) -> Pipeline:
        """Return a copy with another cache; ``None`` switches caching off."""
        return self._copy(cache=_checked_cache(cache, self.pipeline_id))

    def with_callbacks(self, callbacks: Iterable[PipelineCallback] | Inherit | None) -> Pipeline:
        """Return a copy with other callbacks; ``[]`` is none, ``None`` those of the pipeline around."""
        return self._copy(callbacks=_checked_callbacks(callbacks))

    def with_name(self, name: str) -> Pipeline:
        """Return a copy with another name."""
        return self._copy(name=name, pipeline_id=name)

    def _copy(self, **changes: Any) -> Pipeline:
        copy = object.__new__(Pipeline)
        vars(copy).update({**vars(self), **changes, "token": object(), "_compiled": {}})
        return copy

    def __getstate__(self) -> dict[str, Any]:
        # Plans are made anew where it arrives, for the executors that are there.
        return {name: value for name, value in vars(self).items() if name not in ("token", "_compiled")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, token=object(), _compiled={})

    def __cache_key__(self) -> object:
        """Return what its results depend on; a node that runs it depends on that, too."""
        return (self.nodes, self.bound)

    @property
    def effective_engine(self) -> Engine:
        """The engine that runs it when it is the outermost pipeline."""
        return self.engine or registered_engine("default")

    @property
    def effective_cache(self) -> Cache | None:
        """The cache that it uses when it is the outermost pipeline."""
        return None if isinstance(self.cache, Inherit) else self.cache

    @property
    def effective_callbacks(self) -> tuple[PipelineCallback, ...]:
        """The callbacks that get its events when it is the outermost pipeline."""
        return () if isinstance(self.callbacks, Inherit) else self.callbacks

    # ------------------------------------------------------------------------------- looking at it

    @property
    def last_run(self) -> RunReport | None:
        """The report of the last run, if a `RunReport` is among its callbacks; it stays that of this run."""
        from hypernodes.callbacks.report import RunReport

        reports = (callback for callback in self.effective_callbacks if isinstance(callback, RunReport))
        return next(map(copy, reports), None)

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that come from outside, in the order of their use; bound ones are left out."""
        return tuple(name for name in self.wiring.input_names if name not in self.bound)

    @property
    def optional(self) -> frozenset[str]:
        """The inputs that may be left out, since every node that takes them has a default."""
        return self.wiring.optional - self.bound.keys()

    @property
    def output_names(self) -> tuple[str, ...]:
        """Everything that it makes."""
        return self.wiring.output_names

    @property
    def execution_order(self) -> tuple[Member, ...]:
        """The nodes in an order in which each comes after what it needs."""
        return self.wiring.order

    @property
    def graph(self) -> nx.DiGraph:
        """The nodes and inputs as a networkx DiGraph; edges carry the ``name`` of the value."""
        import networkx as nx

        graph = nx.DiGraph()
        for name in self.input_names:
            graph.add_node(name, kind="input", optional=name in self.optional)
        for member in self.execution_order:
            graph.add_node(member, kind="node" if isinstance(member, Node) else "pipeline")
            for name in member.input_names:
                if name not in self.bound:
                    graph.add_edge(self.wiring.producers.get(name, name), member, name=name)
        return graph

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
    ) -> Picture:
        """Draw the pipeline: inputs with types and defaults, nodes with what they make, nested pipelines.

        Args:
            filename: Where to put it; its suffix says which kind: ``.svg``, ``.html``, ``.mmd``, ``.dot``.
            orient: ``"TB"`` from top to bottom, ``"LR"`` from left to right.
            depth: How many levels of nested pipelines are open: 1 is this one's own, ``None`` is all.
            flatten: Whether nodes of open pipelines stand among the others, without a box around them.
            min_arg_group_size: How many inputs of one node, which no other takes, share a box.
            show_legend: Whether it says what its colours mean.
            show_types: Whether types are shown.
            theme: ``"light"``, ``"dark"``, or ``"auto"``, which follows the page that shows it.
            return_type: ``"svg"``, ``"html"`` (a page in which nested pipelines open and close by a click),
                ``"mermaid"`` (a flowchart for READMEs), ``"graphviz"`` (its source), or ``"auto"``: what the
                filename says, else SVG, or Mermaid where nothing is there to draw SVG.
            run: A report, such as `last_run`, of which the picture shows what took long (the warmer the
                colour), what came from the cache and what failed.

        Returns:
            The text of the picture; a notebook shows it as the picture.

        Raises:
            InputError: An option that is none.
            ExtraMissingError: SVG was asked for, and there is no Graphviz.

        Example:
            >>> from hypernodes import node
            >>> print(Pipeline([node(abs, output_name="size")]).visualize(return_type="mermaid"))
            flowchart TB
                i0(["x"])
                n0["abs → size"]
                i0 --> n0
        """
        from hypernodes.visualization.picture import picture

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

    def __repr__(self) -> str:
        taken = [name + ("=…" if name in self.optional else "") for name in self.input_names]
        return (
            f"<Pipeline {self.pipeline_id}({_some(taken)}) -> {_some(self.output_names)}, "
            f"{len(self.nodes)} node{'s' if len(self.nodes) != 1 else ''}>"
        )

    def _repr_html_(self) -> str:
        from hypernodes.visualization.table import table

        drawn = self.visualize()
        return str(drawn) if drawn.form == "svg" else table(self)


def _some(names: Sequence[str], most: int = 8) -> str:
    """Return names as far as they fit a line."""
    more = f", … {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _check_modes(where: str, map_mode: object, on_error: object) -> None:
    if map_mode not in ("zip", "product"):
        raise InputError(f"{where}: map_mode is 'zip' or 'product', not {map_mode!r}.")
    if on_error not in ("raise", "return"):
        raise InputError(f"{where}: on_error is 'raise' or 'return', not {on_error!r}.")


def _checked_engine(engine: Engine | None, pipeline_id: str) -> Engine | None:
    if engine is not None and not (callable(getattr(engine, "run", None)) and hasattr(engine, "placement")):
        raise GraphError(
            f"pipeline {pipeline_id!r}: engine={engine!r} is no Engine. Give HyperNodesEngine(...), or leave "
            f"it out."
        )
    return engine


def _checked_cache(cache: Cache | Inherit | None, pipeline_id: str) -> Cache | Inherit | None:
    if cache is not None and cache is not INHERIT and not isinstance(cache, Cache):
        raise GraphError(
            f"pipeline {pipeline_id!r}: cache={cache!r} is no cache. Give DiskCache(path), or None to switch "
            f"caching off."
        )
    return cache


def _checked_callbacks(
    callbacks: Iterable[PipelineCallback] | Inherit | None,
) -> tuple[PipelineCallback, ...] | Inherit:
    if callbacks is None:
        return INHERIT
    return callbacks if isinstance(callbacks, Inherit) else tuple(callbacks)


def _immutable(pipeline: Pipeline, name: str) -> ImmutableError:
    remedy = (
        f"Use pipeline.with_{name}(...), which returns a copy."
        if name in ("engine", "cache", "callbacks", "name")
        else "Its with_... methods and bind(...) return copies."
    )
    return ImmutableError(
        f"pipeline {pipeline.pipeline_id!r} never changes: {name!r} cannot be set. {remedy}"
    )
