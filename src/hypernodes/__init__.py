"""Plain functions, connected by name into pipelines that run anywhere.

>>> from hypernodes import Pipeline, node
>>> @node(output_name="clean")
... def tidy(text: str) -> str:
...     return text.strip().lower()
>>> @node(output_name="length")
... def measure(clean: str) -> int:
...     return len(clean)
>>> pipeline = Pipeline([tidy, measure])
>>> pipeline.run({"text": "  Hello "})
{'clean': 'hello', 'length': 5}
>>> pipeline.map({"text": ["a", " bc"]}, map_over="text", output_name="length")
{'length': [1, 2]}
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypernodes._compat.earlier_package import warn_of_earlier_package as _warn_of_earlier_package
from hypernodes.config import INHERIT
from hypernodes.earlier_names import lazy_attributes as _lazy_attributes
from hypernodes.exceptions import (
    BatchError,
    CacheWarning,
    ClusterConnectionError,
    CycleError,
    DaemonProcessError,
    DaftError,
    DuplicateOutputError,
    ExtraMissingError,
    FailedCallError,
    ForkedProcessError,
    GraphError,
    HintError,
    HintWarning,
    HyperNodesError,
    ImmutableError,
    InitializerError,
    InputError,
    InputTypeError,
    MainGuardError,
    MapError,
    MappingError,
    MissingInputError,
    MutationError,
    NodeAbandonedError,
    NodeTimeoutError,
    NotANodeError,
    ObjectStoreFullError,
    OptionError,
    OtherCodeError,
    OutputCountError,
    RemoteError,
    ResourcesError,
    SignatureError,
    TableWarning,
    TelemetryWarning,
    TransportError,
    TypeHintError,
    UnknownExecutorError,
    UnknownInputError,
    UnknownOutputError,
    UnpackError,
    WorkerDiedError,
)
from hypernodes.node import Node, node
from hypernodes.pipeline import Pipeline

if TYPE_CHECKING:
    from hypernodes.cache import DiskCache as DiskCache
    from hypernodes.cache import File as File
    from hypernodes.callbacks import CallbackContext as CallbackContext
    from hypernodes.callbacks import LoggingCallback as LoggingCallback
    from hypernodes.callbacks import PipelineCallback as PipelineCallback
    from hypernodes.callbacks import ProgressCallback as ProgressCallback
    from hypernodes.callbacks import RayMetrics as RayMetrics
    from hypernodes.callbacks import RunReport as RunReport
    from hypernodes.engine import Engine as Engine
    from hypernodes.engines import HyperNodesEngine as HyperNodesEngine
    from hypernodes.engines.daft import DaftEngine as DaftEngine
    from hypernodes.execution.calls.failed_call import FailedCall as FailedCall
    from hypernodes.executors import AsyncExecutor as AsyncExecutor
    from hypernodes.executors import ParallelExecutor as ParallelExecutor
    from hypernodes.executors import RayExecutor as RayExecutor
    from hypernodes.holders import stateful as stateful
    from hypernodes.telemetry import TelemetryCallback as TelemetryCallback

_LAZY = {
    "AsyncExecutor": "hypernodes.executors.asynchronous",
    "CallbackContext": "hypernodes.callbacks",
    "DaftEngine": "hypernodes.engines.daft",
    "DiskCache": "hypernodes.cache.disk",
    "Engine": "hypernodes.engine",
    "FailedCall": "hypernodes.execution.calls.failed_call",
    "File": "hypernodes.cache.file",
    "HyperNodesEngine": "hypernodes.engines",
    "LoggingCallback": "hypernodes.callbacks.log",
    "ParallelExecutor": "hypernodes.executors.parallel",
    "PipelineCallback": "hypernodes.callbacks",
    "ProgressCallback": "hypernodes.callbacks.progress",
    "RayExecutor": "hypernodes.executors.ray",
    "RayMetrics": "hypernodes.callbacks.ray_metrics",
    "RunReport": "hypernodes.callbacks.report",
    "TelemetryCallback": "hypernodes.telemetry.callback",
    "stateful": "hypernodes.holders",
}

__version__ = "0.1.0"

__all__ = [
    "INHERIT",
    "AsyncExecutor",
    "BatchError",
    "CacheWarning",
    "CallbackContext",
    "ClusterConnectionError",
    "CycleError",
    "DaemonProcessError",
    "DaftEngine",
    "DaftError",
    "DiskCache",
    "DuplicateOutputError",
    "Engine",
    "ExtraMissingError",
    "FailedCall",
    "FailedCallError",
    "File",
    "ForkedProcessError",
    "GraphError",
    "HintError",
    "HintWarning",
    "HyperNodesEngine",
    "HyperNodesError",
    "ImmutableError",
    "InitializerError",
    "InputError",
    "InputTypeError",
    "LoggingCallback",
    "MainGuardError",
    "MapError",
    "MappingError",
    "MissingInputError",
    "MutationError",
    "Node",
    "NodeAbandonedError",
    "NodeTimeoutError",
    "NotANodeError",
    "ObjectStoreFullError",
    "OptionError",
    "OtherCodeError",
    "OutputCountError",
    "ParallelExecutor",
    "Pipeline",
    "PipelineCallback",
    "ProgressCallback",
    "RayExecutor",
    "RayMetrics",
    "RemoteError",
    "ResourcesError",
    "RunReport",
    "SignatureError",
    "TableWarning",
    "TelemetryCallback",
    "TelemetryWarning",
    "TransportError",
    "TypeHintError",
    "UnknownExecutorError",
    "UnknownInputError",
    "UnknownOutputError",
    "UnpackError",
    "WorkerDiedError",
    "node",
    "stateful",
]


if not TYPE_CHECKING:  # Type checkers know the names that are imported for them above, and no others.
    __getattr__ = _lazy_attributes(__name__, _LAZY)


def _register_engines() -> None:
    """Register the engines that pipelines use by default, since pipelines do not import engines."""
    from hypernodes.engine import register_engine

    for name, engine in (("default", "HyperNodesEngine"), ("daft", "DaftEngine")):
        register_engine(name, _LAZY[engine], engine)


_register_engines()
_warn_of_earlier_package(__version__)


def __dir__() -> list[str]:
    return __all__
