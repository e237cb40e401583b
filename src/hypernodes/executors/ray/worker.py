"""What a Ray worker does with a task: unpack it, call it, and serialize what comes of it.

Ray itself only ever sees bytes and buffers, so that whatever happens while the user's own objects are
unpickled, called or pickled comes back as an answer, and not as the death of the worker. Only SIGTERM is
one (a drained host, a stopped pod): Ray's handler raises a SystemExit wherever the worker is just then,
which is no error of the user's code.
"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from hypernodes.exceptions import TransportError
from hypernodes.serialization.errors import SerializedError, serialize_error
from hypernodes.serialization.pickling import Serialized, dumps, loads, serialize
from hypernodes.serialization.remote import REMOTE_MIN_BYTES, SeparateResults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

held_cpus: float | None = None
"""How many CPUs the task that runs here holds, lent ones included; ``None`` where none of ours runs."""

_watches_sigterm = False
_got_sigterm = False

_initialized: dict[str, SerializedError | None] = {}

Bare = tuple[bytes, "Sequence[Any]", "Sequence[Any]"]
"""A `Serialized` as plain data, which Ray can move without this package."""


class Dependency(NamedTuple):
    """Stands for the result of another task among what a task carries."""

    position: int


class Here(NamedTuple):
    """A result that came with the answer."""

    bare: Bare


class There(NamedTuple):
    """A result that stays in the object store.

    Attributes:
        kind: The name of its type.
        size: Bytes.
    """

    kind: str
    size: int


class Answer(NamedTuple):
    """What came of a task.

    Attributes:
        attempt: How often a worker had died of it before.
        results: Where each result is.
        error: What it raised.
        broken: Why it could not even be called.
        initializer: What the initializer raised.
    """

    attempt: int = 0
    results: tuple[Here | There, ...] = ()
    error: SerializedError | None = None
    broken: str | None = None
    initializer: SerializedError | None = None


class Order(NamedTuple):
    """What a worker is to do; it travels as a plain tuple, since Ray takes its time over anything else.

    Attributes:
        executor: The name of the executor.
        initializer: Its pickled initializer and that one's arguments, if it has one.
        returns: How many results there may be.
        cpus: How many CPUs the task holds, lent ones included.
        call: The function and its arguments.
    """

    executor: str
    initializer: bytes | None
    returns: int
    cpus: float
    call: Bare


def work(order: tuple[Any, ...], *dependencies: Bare) -> tuple[Any, ...]:
    """Carry out an order, in the worker: return an answer, and the results that stay behind.

    Args:
        order: An `Order`.
        dependencies: The results of other tasks that it takes.

    Raises:
        SystemExit: The worker was told to end, which is told to Ray: it begins the task again elsewhere.
    """
    _watch_sigterm()
    answer = _carried_out(order, dependencies)
    if _got_sigterm:
        raise SystemExit(1)
    return answer


def _watch_sigterm() -> None:
    """Have SIGTERM remembered, whatever the user's code makes of the SystemExit that Ray's handler raises."""
    global _watches_sigterm  # noqa: PLW0603
    if _watches_sigterm or threading.current_thread() is not threading.main_thread():
        return
    _watches_sigterm = True
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler):  # then the signal ends the process at once
        return

    def remember(number: int, frame: FrameType | None) -> None:
        global _got_sigterm  # noqa: PLW0603
        _got_sigterm = True
        handler(number, frame)

    signal.signal(signal.SIGTERM, remember)


def _carried_out(order: tuple[Any, ...], dependencies: tuple[Bare, ...]) -> tuple[Any, ...]:
    global held_cpus  # noqa: PLW0603
    executor, initializer, returns, held_cpus, bare = order
    attempt = _attempt()
    nothing = (None,) * returns
    if (failure := _initialize(executor, initializer)) is not None:
        return Answer(attempt, initializer=failure), *nothing
    try:
        header, buffers, carried = bare
        values = [
            Serialized(*dependencies[part.position]).deserialize() if isinstance(part, Dependency) else part
            for part in carried
        ]
        fn, args, kwargs = Serialized(header, buffers, values).deserialize()
        del values, carried, buffers, bare, dependencies
    except BaseException as error:
        return Answer(attempt, broken=f"{type(error).__name__}: {error}"), *nothing
    try:
        return _answer(attempt, returns, fn(*args, **kwargs))
    except BaseException as error:
        return Answer(attempt, error=serialize_error(error)), *nothing
    finally:
        held_cpus = None


def _answer(attempt: int, returns: int, value: Any) -> tuple[Any, ...]:
    values, kinds = (value.values, value.kinds) if isinstance(value, SeparateResults) else ((value,), None)
    results: list[Here | There] = []
    staying: list[Bare | None] = []
    for position, part in enumerate(values):
        packed = part if isinstance(part, Serialized) else _packed(part)
        bare = (packed.header, packed.buffers, packed.carried)
        if packed.size < REMOTE_MIN_BYTES:
            results.append(Here(bare))
            staying.append(None)
        else:
            results.append(There(kinds[position] if kinds else type(part).__qualname__, packed.size))
            staying.append(bare)
    staying += [None] * (returns - len(staying))
    return Answer(attempt, tuple(results)), *staying


def _packed(result: Any) -> Serialized:
    try:
        return serialize(result)
    except (TypeError, AttributeError, RecursionError) as error:  # what pickle raises of its own accord
        raise TransportError(
            f"the result, a {type(result).__qualname__}, cannot be pickled on its way back from a Ray "
            f"worker: {error}. Return something that pickles."
        ) from error


def _initialize(executor: str, initializer: bytes | None) -> SerializedError | None:
    if initializer is None:
        return None
    if executor not in _initialized:
        failure = None
        try:
            function, args = loads(initializer)
            function(*args)
        except BaseException as error:
            failure = serialize_error(error)
        _initialized[executor] = failure
    return _initialized[executor]


def _attempt() -> int:
    """Return how often this task was begun before; Ray counts it, but tells only in its core."""
    from ray._private.worker import global_worker

    count = getattr(global_worker.core_worker, "get_current_task_attempt_number", None)
    return count() if count is not None else 0


def initializer_of(function: Callable[..., object] | None, args: tuple[Any, ...]) -> bytes | None:
    """Return an initializer as it travels."""
    return None if function is None else dumps((function, args))
