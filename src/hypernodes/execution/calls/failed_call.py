"""A call that has failed, as a thing: it can be saved to a file, and made again.

`record` puts it on the error where the call was made. It travels with the error as a pickle, which is
unpickled when `FailedCall.of` is called.
"""

from __future__ import annotations

import inspect
import pickle
import platform
import sys
import time
import traceback
import weakref
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, Self

from hypernodes.callbacks.event import Worker, current_worker, sizes
from hypernodes.exceptions import CALL_ATTRIBUTE, FailedCallError
from hypernodes.execution.calls.returned import final_value, unpack
from hypernodes.node import Node
from hypernodes.options import DEFAULTS
from hypernodes.raw_errors import attributes_of
from hypernodes.serialization.errors import deserialize_error, serialize_error
from hypernodes.serialization.pickling import dumps, loads
from hypernodes.serialization.remote import resolve
from hypernodes.text import described, short

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.plan.model import CallStep

MAX_INPUT_BYTES: Final = 32 << 20
"""Pickled inputs of one call up to this size travel with its error to another process."""
MAX_KEPT_BYTES: Final = 256 << 20
"""Inputs that have come with errors are kept up to this size together: a million items may fail."""


@dataclass(frozen=True, slots=True)
class _Pickled:
    """The step and the inputs of a call in another process; no inputs for the reason given."""

    step: bytes
    inputs: bytes | None
    reason: str


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True, repr=False)
class FailedCall:
    """A call of a node that has failed, with all that is needed to make it again.

    Get it from an error that a run has raised, from one in the results of a map, or from a file:

    Attributes:
        node: The name of the node.
        pipeline: The ids of the pipelines that contain it, separated by slashes.
        item: The indices of the item, in all maps around the call.
        error: The error.
        worker: The host, process and thread of the call.

    Example:
        >>> import tempfile
        >>> from hypernodes import FailedCall, Pipeline, node
        >>> def invert(x):
        ...     return 1 / x
        >>> pipeline = Pipeline([node(invert, output_name="y")], name="p")
        >>> result = pipeline.map({"x": [1, 0]}, map_over="x", on_error="return")
        >>> failed = FailedCall.of(result["y"][1])
        >>> failed
        <failed call of 'invert' of pipeline 'p', item 1: ZeroDivisionError: division by zero>
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     file = failed.save(f"{directory}/f.pkl")
        ...     FailedCall.load(file).inputs
        {'x': 0}
    """

    node: str
    pipeline: str
    item: tuple[int, ...]
    worker: Worker
    error: BaseException | None = None
    _call: _Pickled | tuple[CallStep, Mapping[str, Any]] = field(kw_only=True)
    saved: Mapping[str, Any] = field(default_factory=dict, kw_only=True)
    _sent: list[_Pickled] = field(default_factory=list, kw_only=True)  # An error is pickled several times.

    @classmethod
    def of(cls, error: BaseException) -> FailedCall:
        """Return the call that has raised an error.

        Raises:
            FailedCallError: The error comes from no call of a node, or its call is not known.
        """
        call = attributes_of(error).get(CALL_ATTRIBUTE)
        if not isinstance(call, cls):
            raise FailedCallError(
                f"{described(error)[:200]}: it is not known which call of a node has raised this error. "
                f"Errors that a run raises, or returns with on_error='return', have their call, unless the "
                f"worker of several items has died."
            )
        return replace(call, error=error)

    @property
    def inputs(self) -> dict[str, Any]:
        """The arguments of the call, by parameter.

        Raises:
            FailedCallError: They have not come with the error.
        """
        return dict(self._step_and_inputs()[1])

    def replay(self) -> Any:
        """Make the call again, in this process: return what the node returns, or raise what it raises.

        The node is called once: retries, the timeout and the cache do not count.
        """
        step, inputs = self._step_and_inputs()
        values = {**step.filled, **inputs}
        args = [values[name] for name, _ in step.positional]
        value = final_value(step.function(*args, **{name: inputs[name] for name in step.named}))
        return value if len(step.outputs) == 1 else unpack(value, step, (self.pipeline,))

    def save(self, filename: str | os.PathLike[str]) -> Path:
        """Write the call to a file, which ``hypernodes replay`` reads, here or on another machine.

        The file has the node, its inputs, its source, what its code is made of, the versions of packages, and
        the error with its traceback. It is a pickle: loading it runs code that is in it.

        Args:
            filename: The file to write, such as ``"f.pkl"``.

        Returns:
            The file.

        Raises:
            FailedCallError: The inputs are not known here, or are not picklable.
        """
        step, inputs = self._step_and_inputs()
        error = self.error
        content = {
            "node": self.node,
            "pipeline": self.pipeline,
            "item": self.item,
            "worker": tuple(self.worker),
            "saved": time.time(),
            "call": _Pickled(*_pickled(step, inputs, limit=None), ""),
            "error": None if error is None else _serialized(error),
            "traceback": "" if error is None else "".join(traceback.format_exception(error)),
            "source": _source(step.function),
            "code": _code(step),
            "versions": versions(),
        }
        file = Path(filename)
        partial = file.with_name(f".{file.name}.{token_hex(4)}.part")
        try:
            with partial.open("xb") as out:
                pickle.dump(content, out)
            partial.replace(file)
        finally:
            partial.unlink(missing_ok=True)
        return file

    @classmethod
    def load(cls, filename: str | os.PathLike[str]) -> Self:
        """Read a call that `save` has written. This unpickles the file, which can run any code.

        Raises:
            FailedCallError: The file is none that `save` writes, or not of this version.
        """
        try:
            content = pickle.loads(Path(filename).read_bytes())
            error = None if content["error"] is None else deserialize_error(loads(content["error"]))
            return cls(
                content["node"],
                content["pipeline"],
                content["item"],
                Worker(*content["worker"]),
                error,
                _call=content["call"],
                saved=content,
            )
        except OSError:
            raise
        except Exception as error:
            raise FailedCallError(f"{filename} holds no failed call: {described(error)}.") from error

    def changes(self) -> list[str]:
        """Return what has changed since the call was saved: packages, and parts of the node's code."""
        loaded = versions()
        found = [
            f"{name} {before} → {after}"
            for name, before in self.saved.get("versions", {}).items()
            if (after := loaded.get(name)) not in (None, before)
        ]
        before, now = self.saved.get("code", {}), _code(self._step_and_inputs()[0])
        return found + [part for part in {**before, **now} if before.get(part) != now.get(part)]

    def __repr__(self) -> str:
        item = f", item {'.'.join(map(str, self.item))}" if self.item else ""
        error = "" if self.error is None else f": {described(self.error)}"
        return f"<failed call of {self.node!r} of pipeline {self.pipeline!r}{item}{error}>"

    def __cache_key__(self) -> None:
        """Return nothing: how an error was raised is no part of its content."""

    def __reduce__(self) -> tuple[Any, ...]:
        call, reason = self._call, ""
        if not isinstance(call, _Pickled):
            if not self._sent:
                try:
                    step, inputs = _pickled(*call, limit=MAX_INPUT_BYTES)
                except FailedCallError as error:
                    step, inputs, reason = b"", None, str(error)
                self._sent.append(_Pickled(step, inputs, reason))
            call = self._sent[0]
        return _arrived, (self.node, self.pipeline, self.item, self.worker, call)

    def _step_and_inputs(self) -> tuple[CallStep, Mapping[str, Any]]:
        call = self._call
        if not isinstance(call, _Pickled):
            step, inputs = call
            return step, {name: resolve(value) for name, value in inputs.items()}
        if call.inputs is None:
            raise FailedCallError(f"{self!r}: {call.reason}")
        try:
            return loads(call.step), loads(call.inputs)
        except Exception as error:
            raise FailedCallError(
                f"{self!r} cannot be unpickled here: {described(error)}. Its modules must be importable: "
                f"start in the directory of the code, with the same packages installed."
            ) from error


def record(error: BaseException, step: CallStep, scope: Scope, arguments: Mapping[str, Any]) -> None:
    """Put the failed call on its error, unless one is there."""
    attributes = attributes_of(error)
    if CALL_ATTRIBUTE not in attributes:
        items = tuple(index for index in scope.items if index >= 0)
        attributes[CALL_ATTRIBUTE] = FailedCall(
            step.name, "/".join(scope.path), items, current_worker(), _call=(step, arguments)
        )


def _serialized(error: BaseException) -> bytes:
    """Pickle an error without its call."""
    attributes = attributes_of(error)
    call = attributes.pop(CALL_ATTRIBUTE, None)
    try:
        return dumps(serialize_error(error))
    finally:
        if call is not None:
            attributes[CALL_ATTRIBUTE] = call


def _pickled(step: CallStep, inputs: Mapping[str, Any], *, limit: int | None) -> tuple[bytes, bytes | None]:
    """Pickle a step and its inputs."""
    if (known := _last_step[0]) is None or known[0] is not step:
        names = tuple(f"output_{number}" for number in range(len(step.outputs)))
        function = step.function
        with suppress(Exception):  # Nodes of a module are pickled by their names.
            function = Node(function, output_names=names)
        try:
            known = step, dumps(replace(step, function=function, options=DEFAULTS))
        except Exception as error:
            raise FailedCallError(f"node {step.name!r} is not picklable: {described(error)}.") from None
        _last_step[0] = known
    pickled = known[1]
    if limit is not None and (large := _size_of(inputs)) > limit:
        raise FailedCallError(_too_large(step, large))
    try:
        values = dumps(dict(inputs))
    except Exception as error:
        raise FailedCallError(
            f"the inputs of node {step.name!r} are not picklable ({described(error)}): "
            f"{', '.join(f'{name}={short(value, 60)}' for name, value in inputs.items())}."
        ) from None
    if limit is not None and len(values) > limit:
        raise FailedCallError(_too_large(step, len(values)))
    return pickled, values


_last_step: Final[list[tuple[CallStep, bytes] | None]] = [None]
"""The last step that was pickled: many items may fail in the same one."""


def _size_of(inputs: Mapping[str, Any]) -> int:
    """Return the bytes of the arrays among inputs, which are not pickled if they are too large."""
    return sum(sizes(value)[1] or 0 for value in inputs.values())


def _too_large(step: CallStep, size: int) -> str:
    return (
        f"the inputs of node {step.name!r} have {size:,} bytes, and more than {MAX_INPUT_BYTES:,} do not "
        f"travel with an error from one process to another. Run the item again without an executor."
    )


_kept_bytes = 0


def _arrived(
    node: str, pipeline: str, item: tuple[int, ...], worker: Worker, pickled: _Pickled
) -> FailedCall:
    """Return a failed call that has come from another process; its inputs are kept if there is room."""
    size = len(pickled.inputs or b"")
    if size and _kept_bytes + size > MAX_KEPT_BYTES:
        reason = (
            f"its inputs were not kept, since the inputs of other errors have {_kept_bytes:,} bytes already. "
            f"Save and drop those, or run the item again."
        )
        pickled = _Pickled(pickled.step, None, reason)
        size = 0
    call = FailedCall(node, pipeline, item, worker, _call=pickled)
    _keep(size)
    weakref.finalize(call, _keep, -size).atexit = False
    return call


def _keep(size: int) -> None:
    global _kept_bytes  # noqa: PLW0603
    _kept_bytes += size


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are loaded."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name, module in sorted(sys.modules.items()):
        # A lazy attribute may import, or warn.
        version = (
            vars(module).get("__version__") if "." not in name and isinstance(module, ModuleType) else None
        )
        if isinstance(version, str):
            found[name] = version
    return found


def _source(function: Any) -> str:
    """Return the source of a node's function, with its place, as far as it is known."""
    called = inspect.unwrap(function.function if isinstance(function, Node) else function)
    try:
        lines, first = inspect.getsourcelines(called)
        return f"# {inspect.getsourcefile(called)}, line {first}\n{''.join(lines)}"
    except (OSError, TypeError):
        return ""


def _code(step: CallStep) -> dict[str, str]:
    """Return what the code of a node is made of: the digest of each part, with a summary of values."""
    from hypernodes.cache.code_parts import code_parts_of

    function = step.function.function if isinstance(step.function, Node) else step.function
    try:
        return {name: f"{part.digest} {part.summary}" for name, part in code_parts_of(function).items()}
    except Exception:  # The code cannot be fingerprinted.
        return {}
