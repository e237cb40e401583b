"""The definition of a pipeline: its nodes, its graph and its configuration, all immutable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MethodType
from typing import TYPE_CHECKING, Any, Final, Never, NoReturn, Self

from hypernodes.arguments import flag, unknown_option
from hypernodes.checks import check_cache, check_callbacks, check_engine, check_name, immutable_error
from hypernodes.config import INHERIT, Inherit
from hypernodes.engine import registered_engine
from hypernodes.exceptions import GraphError, NotANodeError, UnknownInputError, did_you_mean, listing
from hypernodes.graph import Graph, Member, build_graph, to_networkx
from hypernodes.nested import NestedPipeline
from hypernodes.node import Node
from hypernodes.text import identifier, short
from hypernodes.type_checks import check_types as check_hints

if TYPE_CHECKING:
    import networkx as nx

    from hypernodes.callbacks.base import PipelineCallback
    from hypernodes.config import Cache
    from hypernodes.engine import Engine


class PipelineDefinition:
    """What a pipeline is, without the methods that run it. See `hypernodes.Pipeline`."""

    # Declared for type checkers: `__init__` and `_copy` set them through `vars`, past `__setattr__`.
    nodes: tuple[Member, ...]
    engine: Engine | None
    cache: Cache | Inherit | None
    callbacks: tuple[PipelineCallback, ...] | Inherit
    name: str | None
    pipeline_id: str
    strict: bool
    bound: Mapping[str, Any]
    wiring: Graph
    token: object
    _compiled: dict[tuple[Any, ...], Callable[[Mapping[str, Any]], dict[str, Any]]]

    def __init__(
        self,
        nodes: Iterable[Node[..., Any] | NestedPipeline | PipelineDefinition],
        engine: Engine | None = None,
        cache: Cache | Inherit | None = INHERIT,
        callbacks: Iterable[PipelineCallback] | Inherit | None = INHERIT,
        name: str | None = None,
        *,
        strict: bool = False,
        check_types: bool = True,
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_option("Pipeline", unknown)
        check_name(name)
        members = _members(nodes, name)
        last_output = [output for member in members for output in member.output_names][-1:]
        pipeline_id = name or "-".join(("pipeline", *last_output))
        where = f"pipeline {pipeline_id!r}"
        wiring = build_graph(members, pipeline_id)
        if flag("check_types", check_types, where=where, kind=GraphError):
            check_hints(wiring, where)
        vars(self).update(
            nodes=members,
            engine=check_engine(engine, where),
            cache=check_cache(cache, where),
            callbacks=check_callbacks(callbacks, where),
            name=name,
            pipeline_id=pipeline_id,
            strict=flag("strict", strict, where=where, kind=GraphError),
            bound={},
            wiring=wiring,
            **_own_state(),
        )

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise immutable_error(name, "set", self._where)

    def __delattr__(self, name: str) -> NoReturn:
        raise immutable_error(name, "deleted", self._where)

    @property
    def _where(self) -> str:
        """The pipeline, as messages name it."""
        return f"pipeline {self.pipeline_id!r}"

    def bind(self, **values: Any) -> Self:
        """Return a copy with fixed values for some inputs. A run may still be given other values.

        Args:
            **values: Values by the names of inputs or outputs.

        Raises:
            UnknownInputError: A name is neither an input nor an output of the pipeline.

        Example:
            >>> from hypernodes import Pipeline, node
            >>> Pipeline([node(pow, output_name="power")]).bind(exp=2)(base=3)
            {'power': 9}
        """
        known = (*self.wiring.input_names, *self.wiring.output_names)
        values = {identifier(name): value for name, value in values.items()}
        for name in values:
            if name not in known:
                raise UnknownInputError(
                    f"{self._where} has no input {name!r} to bind; it takes "
                    f"{listing(self.wiring.input_names)}.{did_you_mean(name, known)}"
                )
        return self._copy(bound={**self.bound, **values})

    def with_engine(self, engine: Engine | None) -> Self:
        """Return a copy with another engine; ``None`` inherits the engine of the enclosing pipeline."""
        return self._copy(engine=check_engine(engine, self._where))

    def with_cache(self, cache: Cache | Inherit | None) -> Self:
        """Return a copy with another cache; ``None`` switches caching off, `INHERIT` inherits."""
        return self._copy(cache=check_cache(cache, self._where))

    def with_callbacks(self, callbacks: Iterable[PipelineCallback] | Inherit | None) -> Self:
        """Return a copy with other callbacks; ``[]`` for none, ``None`` or `INHERIT` inherits."""
        return self._copy(callbacks=check_callbacks(callbacks, self._where))

    def with_name(self, name: str) -> Self:
        """Return a copy with another name."""
        if name is None:
            raise GraphError(f"{self._where}: with_name takes a text, not None.")
        check_name(name)
        return self._copy(name=name, pipeline_id=name)

    def _copy(self, **changes: Any) -> Self:
        copied = object.__new__(type(self))
        vars(copied).update({**vars(self), **changes, **_own_state()})
        return copied

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

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in _own_state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, **_own_state())

    def __cache_key__(self) -> object:
        """Return the parts that the results depend on. They count in the signature of a node that runs it."""
        return (self.nodes, self.bound)

    @property
    def id(self) -> str:
        """The same as `pipeline_id`."""
        return self.pipeline_id

    @property
    def effective_engine(self) -> Engine:
        """The engine of a run in which this is the outermost pipeline."""
        return self.engine or registered_engine("default")

    @property
    def effective_cache(self) -> Cache | None:
        """The cache of a run in which this is the outermost pipeline."""
        return None if isinstance(self.cache, Inherit) else self.cache

    @property
    def effective_callbacks(self) -> tuple[PipelineCallback, ...]:
        """The callbacks of a run in which this is the outermost pipeline."""
        return () if isinstance(self.callbacks, Inherit) else self.callbacks

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs that no node produces and that are not bound, in the order of their first use."""
        return tuple(name for name in self.wiring.input_names if name not in self.bound)

    @property
    def optional(self) -> frozenset[str]:
        """The inputs that may be left out, since they have a default in every node that takes them."""
        return self.wiring.optional - self.bound.keys()

    @property
    def output_names(self) -> tuple[str, ...]:
        """The outputs of all nodes."""
        return self.wiring.output_names

    @property
    def execution_order(self) -> tuple[Member, ...]:
        """The nodes, sorted so that each node comes after the nodes whose outputs it takes."""
        return self.wiring.order

    @property
    def graph(self) -> nx.DiGraph[Any]:
        """The inputs and nodes as a networkx DiGraph; each edge has the ``name`` of its value."""
        return to_networkx(self.wiring, self.bound)

    def __repr__(self) -> str:
        inputs = [name + ("=…" if name in self.optional else "") for name in self.input_names]
        return (
            f"<Pipeline {self.pipeline_id}({_shortened(inputs)}) -> {_shortened(self.output_names)}, "
            f"{len(self.nodes)} node{'s' if len(self.nodes) != 1 else ''}>"
        )


def _own_state() -> dict[str, Any]:
    """Return the attributes that no two pipelines share, copies and pickled ones included.

    The token identifies a pipeline in the keys of plans. Compiled plans are made for the executors of this
    process.
    """
    return {"token": object(), "_compiled": {}}


def _members(
    nodes: Iterable[Node[..., Any] | NestedPipeline | PipelineDefinition], name: str | None
) -> tuple[Member, ...]:
    """Return the nodes of a pipeline, each pipeline among them as a node."""
    where = "a pipeline without a name" if name is None else f"pipeline {name!r}"
    if isinstance(nodes, Node | NestedPipeline | PipelineDefinition) or not isinstance(nodes, Iterable):
        raise NotANodeError(
            f"{where}: nodes={short(nodes)} is not a list of nodes. Give a list: Pipeline([...])."
        )
    members: list[Member] = []
    member: Any
    for position, member in enumerate(nodes):
        match member:
            case PipelineDefinition():
                members.append(NestedPipeline(member))
            case Node() | NestedPipeline():
                members.append(member)
            case MethodType(__func__=Node()):  # @classmethod above @node, from Python 3.13 on
                members.append(member.__func__.__get__(member.__self__))
            case _:
                hint = " Mark it with @node." if callable(member) else ""
                raise NotANodeError(
                    f"{where}: nodes[{position}] is {short(member)}, which is neither a node nor a pipeline."
                    f"{hint}"
                )
    return tuple(members)


_SHOWN_NAMES: Final = 8


def _shortened(names: Sequence[str]) -> str:
    """Return the first names, and the number of the others."""
    more = f", … {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + more
