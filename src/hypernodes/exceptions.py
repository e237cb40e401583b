"""What can go wrong, as a tree.

HyperNodesError
├── GraphError (ValueError)               a pipeline that cannot be built
│   ├── NotANodeError (TypeError)
│   ├── DuplicateOutputError
│   ├── CycleError
│   └── MappingError                      as_node(...) names what is not there
├── ImmutableError (AttributeError)       a pipeline was to be changed in place
├── InputError (ValueError)               a run that cannot start
│   ├── MissingInputError
│   ├── UnknownInputError
│   ├── UnknownOutputError
│   └── MapError                          map_over that cannot be mapped over
├── UnknownExecutorError (ValueError)
├── OutputCountError (ValueError)         a node returned more or fewer values than it has outputs
├── MutationError (RuntimeError)          a node of a strict pipeline changed its inputs in place
├── TransportError (PicklingError)        something could not travel between processes
│   ├── RemoteError                       an exception that could not travel; stands in for it
│   └── UnpackError (BrokenExecutor)      something arrived that cannot be unpickled there
├── MainGuardError (RuntimeError)         a script started processes while being imported by one
├── WorkerDiedError (BrokenExecutor)      a worker ended before its work did
├── InitializerError (BrokenExecutor)     the initializer of an executor's workers raised
├── NodeTimeoutError (TimeoutError)       a node took longer than its timeout
├── NodeAbandonedError (RuntimeError)     a node was under way when its run ended; only callbacks get it
├── ResourcesError (ValueError)           no host of the cluster has what a call asks for
├── ClusterConnectionError (ConnectionError)
├── ExtraMissingError (ImportError)       a package is not installed; the message names the extra
├── DaftError (RuntimeError)              Daft cannot do what it was asked to
├── HintError (TypeError)                 a node returned something else than its hint says
└── SignatureError (TypeError)            a value or function without a stable fingerprint

CacheWarning, HintWarning,
TelemetryWarning (UserWarning)            less was done than was asked for; results are right

The user's own exceptions are never wrapped: they arrive as they are, with a note that says where.
"""

from __future__ import annotations

from concurrent.futures import BrokenExecutor
from pickle import PicklingError
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class HyperNodesError(Exception):
    """Anything this library raises on its own account."""


class GraphError(HyperNodesError, ValueError):
    """A pipeline whose nodes do not fit together."""


class NotANodeError(GraphError, TypeError):
    """Something in ``nodes=[...]`` that is neither a node nor a pipeline."""


class DuplicateOutputError(GraphError):
    """Two nodes of one pipeline produce an output of the same name."""


class CycleError(GraphError):
    """Nodes that wait for each other."""


class MappingError(GraphError):
    """A mapping of names that names what is not there."""


class ImmutableError(HyperNodesError, AttributeError):
    """A pipeline was to be changed in place; its ``with_...`` methods return copies."""


class InputError(HyperNodesError, ValueError):
    """A run that cannot start with what it was given."""


class MissingInputError(InputError):
    """An input without a default that was not given.

    Attributes:
        names: The inputs that are missing.
    """

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message, names)
        self.names = names

    def __str__(self) -> str:
        return str(self.args[0])


class UnknownInputError(InputError):
    """An input that no node of the pipeline takes or makes."""


class UnknownOutputError(InputError):
    """An output was asked for that no node makes."""


class MapError(InputError):
    """A map whose ``map_over`` does not name collections that can be walked together."""


class UnknownExecutorError(HyperNodesError, ValueError):
    """An executor alias that does not exist, or an object that cannot submit."""


class OutputCountError(HyperNodesError, ValueError):
    """A node returned a different number of values than it has outputs."""


class BatchError(HyperNodesError, ValueError):
    """A node's batch function returned something else than a value for each item."""


class MutationError(HyperNodesError, RuntimeError):
    """A node of a strict pipeline changed what it was given."""


class TransportError(HyperNodesError, PicklingError):
    """A function, a value or an error that could not travel between processes."""


class RemoteError(TransportError):
    """Stands in for an exception of a worker that could not travel itself."""


class UnpackError(TransportError, BrokenExecutor):
    """What arrived at a worker, or came back from one, cannot be unpickled there."""


class MainGuardError(HyperNodesError, RuntimeError):
    """A script that starts worker processes has no ``if __name__ == "__main__":`` guard."""


class WorkerDiedError(HyperNodesError, BrokenExecutor):
    """A worker process ended before it had finished its work.

    Attributes:
        seconds: How long it had worked, where that is known.
    """

    seconds: float | None = None


class InitializerError(HyperNodesError, BrokenExecutor):
    """The initializer of an executor's workers raised, so that the executor takes no more work."""


class NodeTimeoutError(HyperNodesError, TimeoutError):
    """A node took longer than its ``timeout``."""


class NodeAbandonedError(HyperNodesError, RuntimeError):
    """A node was under way when another one's error ended the run; its outcome is not waited for."""

    @classmethod
    def of(cls, node: str, pipeline: str, error: BaseException) -> NodeAbandonedError:
        """Return the error of a node that is abandoned for another error.

        Args:
            node: The name of the node.
            pipeline: The path of its pipeline.
            error: What has ended the run.
        """
        return cls(
            f"node {node!r} of pipeline {pipeline!r} was under way when the run ended "
            f"({type(error).__name__}); its outcome is not waited for."
        )


class ResourcesError(HyperNodesError, ValueError):
    """A call asks for more than any host of the cluster has."""


class ClusterConnectionError(HyperNodesError, ConnectionError):
    """The Ray cluster could not be reached."""


class ExtraMissingError(HyperNodesError, ImportError):
    """Something that was asked for needs a package that is not installed."""


class DaftError(HyperNodesError, RuntimeError):
    """Daft cannot do what it was asked to."""


class HintError(HyperNodesError, TypeError):
    """A node returned something else than its hint says, where a column's type depends on it."""


class SignatureError(HyperNodesError, TypeError):
    """A value or a function that has no fingerprint which would be equal in the next process."""


class HintWarning(UserWarning):
    """A node returned something else than its hint says; results are right all the same."""


class CacheWarning(UserWarning):
    """The cache did less than it was asked to; results are right all the same."""


class TelemetryWarning(UserWarning):
    """What is told of a run goes nowhere; results are right all the same."""


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return a sentence that offers the names closest to the wrong one, or nothing.

    >>> did_you_mean("corpse", ["corpus", "k"])
    " Did you mean 'corpus'?"
    """
    from difflib import get_close_matches

    close = get_close_matches(wrong, list(known), n=2, cutoff=0.6)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def listing(names: Iterable[str]) -> str:
    """Return names as they are shown in a message: quoted, separated, ``nothing`` where there are none."""
    return ", ".join(map(repr, names)) or "nothing"
