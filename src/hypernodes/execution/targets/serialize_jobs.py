"""Jobs on their way to another process, in one envelope.

    job ─ JobSerializer.serialize ─▶ SerializedJob ─▶ worker: deserialize_job ─▶ execute

What many jobs have in common (a step, the context of a map, large inputs) is broadcast: serialized once for a
run, and deserialized once in each worker process.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import ClusterConnectionError, ForkedProcessError
from hypernodes.execution.jobs import (
    Call,
    CallGroup,
    Chunk,
    CommonValue,
    MapContext,
    SignedStep,
    signed_step,
)
from hypernodes.execution.plan.model import change_nothing
from hypernodes.execution.targets.diagnose import unsent_job
from hypernodes.execution.targets.same_code import check_code, unpickling, with_code
from hypernodes.serialization.broadcast import BROADCAST_MIN_BYTES, Broadcast, broadcast, run_name
from hypernodes.serialization.errors import (
    ExceptionWrapper,
    unwrapped,
)
from hypernodes.serialization.pickling import Serialized, is_serializable, serialize
from hypernodes.serialization.remote import RemoteValue, resolve
from hypernodes.serialization.warning_filters import broadcast_filters

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hypernodes.execution.jobs import JobKey, RemoteJob
    from hypernodes.execution.plan.model import CallStep
    from hypernodes.serialization.broadcast import PlacedValue

_SIMPLE_TYPES: Final = frozenset({int, float, str, bytes, bool, type(None)})
"""Types whose values are unpickled faster than they are found among those that a worker has."""


@dataclass(frozen=True, slots=True)
class SerializedJob:
    """A job on its way to another process."""

    shared: Broadcast  # the step of a call, the steps of a group, or the context of a chunk
    inputs: dict[str, Broadcast]  # large ones that many jobs have in common
    payload: Serialized  # what is the job's own
    filters: Broadcast


@dataclass(slots=True)
class JobSerializer:
    """Serializes the jobs of one run, each shared part once."""

    place: Callable[[Serialized], PlacedValue]  # places a serialized value where every worker finds it
    places_calls: bool = False  # values that have stayed with their worker need not be brought here
    _run: bytes = field(default_factory=run_name)
    _sends_code: bool = False
    _sent_with_code: set[JobKey] = field(default_factory=set)
    _broadcasts: dict[object, Broadcast] = field(default_factory=dict)
    # dask takes submissions with equal arguments for one, and hands out its result again.
    _numbers: count[int] = field(default_factory=lambda: count(secrets.randbits(62)))
    _is_cache_portable: dict[object, bool] = field(default_factory=dict)

    def serialize(self, job: RemoteJob) -> SerializedJob:
        """Serialize a job, or raise a TransportError that says which part of what cannot be pickled."""
        try:
            if not self._sends_code:
                return self._job(job)
            self._sent_with_code.add(job.key)
            with with_code():
                return self._job(job)
        except ExceptionWrapper as wrapper:  # A value could not be placed.
            raise unwrapped(wrapper) from None
        except (ClusterConnectionError, ForkedProcessError):
            raise
        except Exception as error:
            raise unsent_job(job, error) from error

    def send_code_with(self, job: RemoteJob) -> bool:
        """Send the user's modules along from now on; ``False`` if they went with this job already."""
        if job.key in self._sent_with_code:
            return False
        if not self._sends_code:
            self._sends_code = True
            self._broadcasts.clear()
        return True

    def _job(self, job: RemoteJob) -> SerializedJob:
        match job:
            case Call():
                return self._call(job)
            case CallGroup():
                return self._group(job)
            case Chunk():
                return self._chunk(job)

    def _own(self, values: Mapping[str, Any], common: Mapping[str, Broadcast]) -> dict[str, Any]:
        """Return the values that travel with a job: those that are not broadcast."""
        own = {name: value for name, value in values.items() if name not in common}
        return own if self.places_calls else {name: resolve(value) for name, value in own.items()}

    def _group(self, group: CallGroup) -> SerializedJob:
        common = self._common(group.common)
        own = self._own(group.values, common)
        payload = serialize((next(self._numbers), own, group.scope))
        steps = tuple(signed_step(step, group.entries.get(step.index)) for step in group.steps)
        # Many items of a map may send a group of the same steps.
        shared = self._shared((group.steps, *(signed.code for signed in steps)), steps)
        return SerializedJob(shared, common, payload, self._filters)

    def _call(self, call: Call) -> SerializedJob:
        common = self._common(call.common)
        own = self._own(call.arguments, common)
        entry = call.entry
        if entry is not None and not (self.places_calls and self._travels(entry.cache)):
            entry = None  # then its result is stored by the driver
        takes = None if entry is None else call.takes
        payload = serialize((next(self._numbers), own, call.scope, entry, takes))
        signed = signed_step(call.step, call.entry)
        return SerializedJob(self._shared((call.step, signed.code), signed), common, payload, self._filters)

    def _chunk(self, chunk: Chunk) -> SerializedJob:
        context = chunk.context
        large = self._common(context.common)  # the others are in the context
        if context not in self._broadcasts:
            small = {name: resolve(value) for name, value in context.fixed.items() if name not in large}
            self._shared(context, replace(context, fixed=small, common={}))
        shared = self._broadcasts[context]
        payload = serialize((next(self._numbers), chunk.indices, chunk.items, chunk.known))
        return SerializedJob(shared, large, payload, self._filters)

    @property
    def _filters(self) -> Broadcast:
        if "filters" not in self._broadcasts:
            self._broadcasts["filters"] = broadcast_filters(self.place)
        return self._broadcasts["filters"]

    def _travels(self, cache: object) -> bool:
        """Whether a cache can be used elsewhere."""
        if cache not in self._is_cache_portable:
            self._is_cache_portable[cache] = is_serializable(cache)
        return self._is_cache_portable[cache]

    def _common(self, values: Mapping[str, CommonValue]) -> dict[str, Broadcast]:
        """Return the common values that are broadcast by themselves: all but small ones of simple types."""
        found = {}
        for name, common in values.items():
            value = common.value
            if isinstance(value, RemoteValue) and self.places_calls:
                found[name] = Broadcast(*value.as_placed(), value.size)
                continue
            if common not in self._broadcasts:
                run = b"" if type(value) in _SIMPLE_TYPES else self._run
                self._broadcasts[common] = self._broadcast(resolve(value), run)
            made = self._broadcasts[common]
            if type(value) not in _SIMPLE_TYPES or made.size >= BROADCAST_MIN_BYTES:
                found[name] = made
        return found

    def _shared(self, key: object, value: object) -> Broadcast:
        if (made := self._broadcasts.get(key)) is None:
            made = self._broadcasts[key] = self._broadcast(value)
        return made

    def _broadcast(self, value: object, run: bytes = b"") -> Broadcast:
        serialized = serialize(value)
        try:
            return broadcast(serialized, self.place, run)
        except Exception as error:  # There is no cluster, or no room: the value itself can be pickled.
            raise ExceptionWrapper(error) from error


def deserialize_job(job: SerializedJob) -> RemoteJob:
    """Return a job, in a worker."""
    with unpickling("what all calls of a node or items of a map have in common"):
        shared = job.shared.get()
    large = {}
    for name, value in job.inputs.items():
        with unpickling(f"input {name!r}"):
            large[name] = value.get()
    with unpickling("an input"):
        _, *rest = job.payload.deserialize(as_views=change_nothing(_calls_of(shared)))
    check_code(shared)
    if isinstance(shared, tuple):
        own, scope = rest
        common = {name: CommonValue(value) for name, value in large.items()}
        steps = tuple(signed.step for signed in shared)
        return CallGroup(0, steps, {**own, **large}, scope, common=common)
    if isinstance(shared, MapContext):
        indices, items, known = rest
        context = replace(shared, fixed={**shared.fixed, **large})
        return Chunk(0, context, indices, items, known=known)
    own, scope, entry, takes = rest
    return Call(0, shared.step, {**own, **large}, scope, entry=entry, takes=takes)


def _calls_of(shared: SignedStep | tuple[SignedStep, ...] | MapContext) -> Iterable[CallStep]:
    match shared:
        case SignedStep():
            return (shared.step,)
        case tuple():
            return (signed.step for signed in shared)
        case MapContext():
            return shared.plan.calls()
