"""Names that are imported on first use, and the names of earlier versions, with what replaces them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_ENGINE: Final = "Use HyperNodesEngine(node_executor=..., map_executor=...)"
_OF_PIPELINES: Final = "It is an option of pipelines: Pipeline(nodes, {}=...)."
_WORKERS: Final = (
    "It is an option of executors: map_executor=ThreadPoolExecutor(max_workers=4), "
    "AsyncExecutor(max_concurrent=100), ParallelExecutor(4), RayExecutor(max_workers=4)."
)

IMPORTS: Final[Mapping[str, str]] = {
    "SeqEngine": f"{_ENGINE}, which is the default; cache and callbacks are options of Pipeline(...).",
    "DaskEngine": "Use HyperNodesEngine(map_executor='threaded'), 'parallel' or 'ray', or the executor of a "
    "Dask client: map_executor=client.get_executor().",
    "DualNode": "Give the function for many items to the node: @node(output_name=..., batch=function).",
    "HyperNode": "Use Node, or NestedPipeline of hypernodes.nested.",
    "PipelineNode": "Use pipeline.as_node(...), which returns a NestedPipeline.",
    "Backend": "Use Engine.",
    "LocalBackend": f"{_ENGINE}.",
    "DaftBackend": "Use DaftEngine(...).",
    "ModalBackend": "Use HyperNodesEngine(map_executor=...) with an executor of Modal, or a Ray cluster.",
    "PipelineExecutionEngine": f"{_ENGINE}.",
    "HypernodesEngine": "It is called HyperNodesEngine.",
    "SequentialExecutor": "Use HyperNodesEngine(), which calls nodes in a plain loop.",
    "CallbackDispatcher": "Subclass PipelineCallback; engines call its hooks.",
    "DependencyError": "Use MissingInputError, or GraphError for what cannot be built.",
    "ExecutionError": "Errors of nodes reach the caller unchanged, with a note that names the node.",
    "GraphvizStyle": "Use pipeline.visualize(theme=...).",
    "GraphvizTheme": "Use pipeline.visualize(theme=...).",
    "DESIGN_STYLES": "Use pipeline.visualize(theme=...).",
    "visualize": "Use pipeline.visualize(...).",
    "build_graph": "Use pipeline.graph.",
    "Cache": "Any object with get(signature) and put(signature, value) is a cache; DiskCache is one.",
}
"""Names that could be imported."""

ATTRIBUTES: Final[Mapping[str, Mapping[str, str]]] = {
    "Pipeline": {
        "backend": "Use pipeline.engine.",
        "effective_backend": "Use pipeline.effective_engine.",
        "with_backend": "Use pipeline.with_engine(...), which returns a copy.",
        "unbind": "Keep the pipeline from before bind(...), which returns a copy.",
        "bound_inputs": "Use pipeline.bound.",
        "unfulfilled_args": "Use pipeline.input_names.",
        "root_args": "Use pipeline.input_names.",
    },
    "Node": {
        "func": "Use node.function.",
        "singular": "Use node.function.",
        "root_args": "Use node.input_names.",
        "output_name": "Use node.output_names, which is a tuple.",
        "code_hash": "Callbacks have the signature of a call: ctx.signature.",
    },
    "CallbackContext": {
        "data": "Use ctx.get(key, default) and ctx.set(key, value).",
        "set_pipeline_metadata": "Use ctx.get_pipeline_metadata(), which engines fill.",
    },
}
"""Attributes, by class."""

OPTIONS: Final[Mapping[str, Mapping[str, str]]] = {
    "Pipeline": {
        "backend": "Give engine=HyperNodesEngine(...), DaftEngine(...), or an Engine of your own.",
        "executor": "Give engine=HyperNodesEngine(node_executor=..., map_executor=...).",
        "max_workers": "Executors have it: engine=HyperNodesEngine(map_executor=ThreadPoolExecutor(4)).",
    },
    "HyperNodesEngine": {
        "backend": "The engine is what a backend was: Pipeline(nodes, engine=HyperNodesEngine(...)).",
        "cache": _OF_PIPELINES.format("cache"),
        "callbacks": _OF_PIPELINES.format("callbacks"),
        "executor": "Give node_executor=... for single nodes, map_executor=... for the items of a map.",
        "map_execution": "It is called map_executor.",
        "max_workers": _WORKERS,
        "node_execution": "It is called node_executor.",
        "num_workers": _WORKERS,
        "scheduler": "Give map_executor='threaded', 'parallel' or 'sequential'.",
    },
    "DaftEngine": {
        "cache": _OF_PIPELINES.format("cache"),
        "callbacks": _OF_PIPELINES.format("callbacks"),
        "default_daft_config": "Give batch_size=... and concurrency=...; resources are options of nodes.",
        "use_batch_udf": "Plain functions share a batch UDF already; @node(batch=...) adds one of your own.",
    },
    "AsyncExecutor": {"max_workers": "It is called max_concurrent, and is 10 by default."},
    "ParallelExecutor": {"max_concurrent": "It is called max_workers."},
    "RayExecutor": {"max_concurrent": "It is called max_workers."},
    "TelemetryCallback": {
        "logfire_instance": "Call logfire.configure(), or give tracer_provider=....",
        "trace_map_items": "Give sample_items=..., the share of items that have spans.",
    },
    "map": {"engine": "Use pipeline.with_engine(engine).map(...)."},
    "as_node": {"cache": "Use pipeline.with_cache(None).as_node(...)."},
    "visualize": {
        "engine": "Give return_type='svg', 'html', 'mermaid' or 'graphviz'.",
        "interactive": "Give return_type='html'.",
        "separate_outputs": "Leave it out: a node is drawn with its outputs.",
        "style": "Give theme='light', 'dark' or 'auto'.",
    },
}
"""Keywords, by what is called."""


def missing_name(module: str, name: str) -> Exception:
    """Return the error of a module that has no attribute of a name.

    A name of an earlier version is an `ImportError`: ``from hypernodes import ...`` replaces the message of
    an `AttributeError` by one of its own.

    >>> missing_name("hypernodes", "Backend")
    ImportError("cannot import name 'Backend' from 'hypernodes': it is of an earlier version. Use Engine.")
    """
    if (advice := IMPORTS.get(name)) is not None:
        return ImportError(
            f"cannot import name {name!r} from {module!r}: it is of an earlier version. {advice}", name=module
        )
    return AttributeError(f"module {module!r} has no attribute {name!r}")


def lazy_attributes(module: str, homes: Mapping[str, str]) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package whose names are in modules that are imported on first use."""

    def get_attribute(name: str) -> object:
        if (home := homes.get(name)) is None:
            raise missing_name(module, name)
        return getattr(import_module(home), name)

    return get_attribute


def missing_attribute(owner: object, kind: str, name: str) -> AttributeError:
    """Return the error of an object that has no attribute of a name."""
    advice = ATTRIBUTES[kind].get(name)
    message = f"{kind!r} object has no attribute {name!r}"
    if advice is not None:
        return AttributeError(f"{message}, which is of an earlier version. {advice}")
    return AttributeError(message, name=name, obj=owner)


class _EarlierAttribute:
    """An attribute of an earlier version: to get it is an error that says what replaces it."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind = kind
        self.name = name

    def __get__(self, instance: object, owner: type) -> NoReturn:
        raise missing_attribute(instance, self.kind, self.name)


def with_earlier_attributes(kind: type[T]) -> type[T]:
    """Have the attributes that a class had in earlier versions say what replaces them.

    A class with a ``__getattr__`` could say it as well, but all its attributes would be slower.
    """
    earlier = ATTRIBUTES[kind.__name__]
    members: dict[str, object] = {name: _EarlierAttribute(kind.__name__, name) for name in earlier}
    members["__dir__"] = lambda self: [name for name in object.__dir__(self) if name not in earlier]
    for name, member in members.items():
        setattr(kind, name, member)
    return kind
