"""A worker calls the code that was signed: fingerprints are compared where the call is made.

The result of a cached node is kept under the signature of the driver's code. A worker that has imported a
module before or after it was edited has other code, or other values of its globals. It refuses a job of such
code, which is then sent again with the driver's modules in the pickle.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Final
from weakref import WeakSet

import cloudpickle

from hypernodes.cache.installed import is_installed
from hypernodes.exceptions import OtherCodeError, SignatureError, UnpackError
from hypernodes.execution.jobs import MapContext
from hypernodes.execution.plan.model import CallStep
from hypernodes.execution.signature import fingerprint_step
from hypernodes.executors.unpicklable import missing_module_advice
from hypernodes.raw_errors import METHOD_ERRORS, is_a
from hypernodes.text import described, message_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hypernodes.execution.jobs import SignedStep

_checked: Final[WeakSet[SignedStep | MapContext]] = WeakSet()


def check_code(shared: SignedStep | tuple[SignedStep, ...] | MapContext) -> None:
    """Refuse to call other code than was signed, in a worker."""
    if isinstance(shared, tuple):
        for signed in shared:
            check_code(signed)
        return
    if shared in _checked:
        return
    other = [step.name for step, code in _signed_steps(shared) if _code_here(step) != code]
    if other:
        nodes = " and ".join(map(repr, other))
        raise OtherCodeError(
            f"a worker process has imported other code for node {nodes} than the process that runs the "
            f"pipeline: a module was edited or reloaded, or a global variable was changed, in one of them "
            f"only. The node was not called. Bring both to the same code: reload the module here "
            f"(importlib.reload), and start new workers (engine.shutdown() ends those of the engine)."
        )
    _checked.add(shared)


def _signed_steps(shared: SignedStep | MapContext) -> Iterator[tuple[CallStep, bytes]]:
    if not isinstance(shared, MapContext):
        if shared.code is not None:
            yield shared.step, shared.code
        return
    codes = shared.fingerprints.calls
    for plan in shared.plan.tree():
        for step in plan.steps:
            code = codes.get((plan.key, step.index))
            if code is not None and isinstance(step, CallStep):
                yield step, code


def _code_here(step: CallStep) -> bytes | None:
    try:
        return fingerprint_step(step).digest
    except SignatureError:
        return None


@contextmanager
def unpickling(what: str) -> Iterator[None]:
    """Unpickle what the driver has sent, in a worker that may lack a module, or a name in one."""
    try:
        yield
    except METHOD_ERRORS as error:
        kind = OtherCodeError if is_a(error, AttributeError) else UnpackError
        raise _unreadable(what, error, kind) from error


def unreadable_input(name: str, error: BaseException) -> UnpackError:
    """Return the error of an input that cannot be unpickled in a worker."""
    unreadable = _unreadable(f"input {name!r}", error, UnpackError)
    unreadable.__cause__ = error
    return unreadable


def _unreadable(what: str, error: BaseException, kind: type[UnpackError]) -> UnpackError:
    advice = missing_module_advice(message_of(error)) if is_a(error, ImportError) else None
    return kind(
        f"{what} was sent to a worker process and cannot be unpickled there: {advice or described(error)}"
    )


@contextmanager
def with_code() -> Iterator[None]:
    """Pickle functions and classes of the user's own modules by value, so that workers get the driver's."""
    with _lock:
        registered = cloudpickle.list_registry_pickle_by_value()
        own = {
            module.__name__: module
            for name, module in list(sys.modules.items())
            if isinstance(module, ModuleType) and not is_installed(name)
        }
        added = [module for name, module in own.items() if name not in registered and name in sys.modules]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


_lock: Final = threading.RLock()
