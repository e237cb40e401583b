"""The exceptions and warnings of the library.

HyperNodesError
├── GraphError (ValueError)               a pipeline that cannot be built
│   ├── NotANodeError (TypeError)         an element of nodes=[...] is no node
│   ├── DuplicateOutputError              two nodes produce the same output
│   ├── CycleError                        nodes depend on each other
│   ├── MappingError                      as_node(...) or rename(...) contains an unknown name
│   └── TypeHintError (TypeError)         a node takes another type than the node before it returns
├── ImmutableError (AttributeError)       code tried to change a pipeline
├── InputError (ValueError)               a run that cannot start
│   ├── MissingInputError                 a missing input
│   ├── UnknownInputError                 an input that no node takes or produces
│   ├── UnknownOutputError                an output that no node produces
│   ├── InputTypeError (TypeError)        a value is not of the type that a node asks for
│   └── MapError                          map_over and the values that it names do not fit together
├── OptionError (ValueError, TypeError)   an option of an engine, executor, cache or callback is wrong
├── UnknownExecutorError (ValueError)     an alias that does not exist, or an object that is no executor
├── OutputCountError (ValueError)         a node returned more or fewer values than it has outputs
├── BatchError (ValueError)               a batch function did not return one value for each item
├── MutationError (RuntimeError)          a node of a strict pipeline changed its inputs in place
├── TransportError (PicklingError)        a function, value or error is not picklable
│   ├── RemoteError                       replaces an exception of a worker that is not picklable
│   └── UnpackError (BrokenExecutor)      a pickled value cannot be unpickled in the receiving process
│       └── OtherCodeError                a worker has imported other code than the driver
├── MainGuardError (RuntimeError)         a script without a main guard started worker processes
├── DaemonProcessError (RuntimeError)     a daemonic process, which may start no others, was to start workers
├── ForkedProcessError (RuntimeError)     what is used has its threads in the process that forked this one
├── WorkerDiedError (BrokenExecutor)      a worker process died before its work was done
├── InitializerError (BrokenExecutor)     the initializer of an executor's workers raised
├── NodeTimeoutError (TimeoutError)       a node timed out
├── NodeAbandonedError (RuntimeError)     a node was running when its run ended; only callbacks see it
├── ResourcesError (ValueError)           no host of the cluster has the resources of a call
├── ClusterConnectionError (ConnectionError)
│                                         a Ray cluster cannot be reached
├── ExtraMissingError (ImportError)       a package is not installed; the message names the extra
├── DaftError (RuntimeError)              Daft cannot execute the pipeline
├── FailedCallError (LookupError)         a failed call is not known, or cannot be saved or loaded
├── HintError (TypeError)                 a node returned another type than its type hint
└── SignatureError (TypeError)            a value or function has no stable fingerprint

CacheWarning, HintWarning, TableWarning,
TelemetryWarning (UserWarning)            something was not done; the results are correct all the same

Exceptions that nodes raise are not wrapped: they reach the caller unchanged, with a note that names the node.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from importlib import import_module
from pickle import PicklingError
from typing import TYPE_CHECKING, Final

from hypernodes.earlier_names import lazy_attributes as _lazy_attributes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

CALL_ATTRIBUTE: Final = "__hypernodes_call__"
"""The attribute of an exception that has the call of a node which has raised it: a `FailedCall`."""


class HyperNodesError(Exception):
    """The base of the exceptions that the library itself raises."""


class GraphError(HyperNodesError, ValueError):
    """A pipeline cannot be built of its nodes or its configuration."""


class NotANodeError(GraphError, TypeError):
    """An object cannot be a node, or an element of ``nodes=[...]`` is neither a node nor a pipeline."""


class DuplicateOutputError(GraphError):
    """Two nodes of one pipeline produce an output of the same name."""


class CycleError(GraphError):
    """The nodes of a pipeline form a cycle: each depends on the output of another one."""


class MappingError(GraphError):
    """A mapping of names contains a name that does not exist."""


class TypeHintError(GraphError, TypeError):
    """A node takes another type than the node returns whose output it takes, by their type hints."""


class ImmutableError(HyperNodesError, AttributeError):
    """Code tried to change a pipeline. Its ``with_...`` methods return copies."""


class InputError(HyperNodesError, ValueError):
    """A run cannot start with the arguments that it was given."""


class MissingInputError(InputError):
    """A missing input: an input without a default was not given.

    Attributes:
        names: The inputs that are missing.
    """

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message, names)
        self.names = names

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownInputError(InputError):
    """An input was given that no node of the pipeline takes or produces."""


class UnknownOutputError(InputError):
    """An output was requested that no node of the pipeline produces."""


class InputTypeError(InputError, TypeError):
    """A value given to `Pipeline.validate` is not of the type that a node asks for."""


class MapError(InputError):
    """A map whose ``map_over`` is missing, or names values that are no collections or differ in length."""


class OptionError(HyperNodesError, ValueError, TypeError):
    """An option of an engine, executor, cache or callback has a value or a type that it does not take."""


class UnknownExecutorError(HyperNodesError, ValueError):
    """An executor alias does not exist, or an object has no ``submit``."""


class OutputCountError(HyperNodesError, ValueError):
    """A node returned a different number of values than it has outputs."""


class BatchError(HyperNodesError, ValueError):
    """The batch function of a node did not return one value for each item."""


class MutationError(HyperNodesError, RuntimeError):
    """A node of a strict pipeline changed its inputs in place."""


class TransportError(HyperNodesError, PicklingError):
    """A function, a value or an error is not picklable, so that it cannot be sent to another process."""


class ObjectStoreFullError(TransportError):
    """Ray's object store and its disk have no room for an input or a result."""


class RemoteError(TransportError):
    """Replaces an exception of a worker that is not picklable. Its message is that of the exception."""


class UnpackError(TransportError, BrokenExecutor):
    """A pickled value cannot be unpickled in the process that receives it.

    Attributes:
        output: The output of a pipeline that the value is, if that is known.
    """

    output: str | None = None


class OtherCodeError(UnpackError):
    """A worker has imported other code of a node than the process that runs the pipeline."""


class MainGuardError(HyperNodesError, RuntimeError):
    """A script that starts worker processes has no ``if __name__ == "__main__":`` guard."""


class DaemonProcessError(HyperNodesError, RuntimeError):
    """A daemonic process, such as a worker of `multiprocessing.Pool`, was to start worker processes."""


class ForkedProcessError(HyperNodesError, RuntimeError):
    """A forked process was to use an executor or a connection whose threads are in its parent."""


class WorkerDiedError(HyperNodesError, BrokenExecutor):
    """A worker process died before its work was done.

    Attributes:
        seconds: How long it had worked, if that is known.
    """

    seconds: float | None = None


class InitializerError(HyperNodesError, BrokenExecutor):
    """The initializer of an executor's workers raised. The executor accepts no more work."""


class NodeTimeoutError(HyperNodesError, TimeoutError):
    """A node timed out: a call took longer than its ``timeout``."""


class NodeAbandonedError(HyperNodesError, RuntimeError):
    """A node was running when the error of another node ended the run. Its result is discarded."""

    @classmethod
    def of(cls, node: str, pipeline: str, error: BaseException) -> NodeAbandonedError:
        """Return the error of a node that was running when an error ended the run."""
        return cls(
            f"node {node!r} of pipeline {pipeline!r} was running when the run ended "
            f"({type(error).__name__}); its result is discarded."
        )


class ResourcesError(HyperNodesError, ValueError):
    """A call requires more resources than any host of the cluster has."""


class ClusterConnectionError(HyperNodesError, ConnectionError):
    """The Ray cluster cannot be reached."""


class ExtraMissingError(HyperNodesError, ImportError):
    """A feature needs a package that is not installed."""


class DaftError(HyperNodesError, RuntimeError):
    """Daft cannot execute the pipeline in the way that was requested."""


class FailedCallError(HyperNodesError, LookupError):
    """It is not known which call has raised an error; or a failed call cannot be saved, or loaded."""


class HintError(HyperNodesError, TypeError):
    """A node returned another type than its type hint, which determines the type of a column."""


class SignatureError(HyperNodesError, TypeError):
    """A value or a function has no fingerprint that is the same in every process."""


class HintWarning(UserWarning):
    """A node returned another type than its type hint. The results are correct all the same."""


class CacheWarning(UserWarning):
    """The cache did less than it was asked to. The results are correct all the same."""


class TableWarning(UserWarning):
    """A column of a table is not used, since a node computes the output of its name."""


class TelemetryWarning(UserWarning):
    """The telemetry of a run is not exported. The results are correct all the same."""


if not TYPE_CHECKING:
    __getattr__ = _lazy_attributes(__name__, {})


def import_extra(module: str, need: str, package: str, extra: str) -> ModuleType:
    """Import a module of an optional library; `need` begins the error if it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        advice = f"pip install {package}, or hypernodes-ray with its extra {extra!r}"
        raise ExtraMissingError(f"{need}: {advice}") from error


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the names closest to a wrong one, or an empty text.

    >>> did_you_mean("corpse", ["corpus", "k"])
    " Did you mean 'corpus'?"
    """
    from difflib import get_close_matches

    close = get_close_matches(wrong, list(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def listing(names: Iterable[str]) -> str:
    """Return names as messages show them: quoted and separated by commas; ``nothing`` for no names.

    >>> listing(["x", "y"]), listing([])
    ("'x', 'y'", 'nothing')
    """
    return ", ".join(map(repr, names)) or "nothing"
