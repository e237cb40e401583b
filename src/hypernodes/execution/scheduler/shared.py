"""What is the same for all items of a map: is it there, which items need it, and can it travel?

It is computed when the first item needs it, as a part of the run beside the items, and is a fixed input of
the items from then on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from hypernodes.exceptions import NodeAbandonedError, TransportError, UnpackError
from hypernodes.execution.jobs import CommonValue
from hypernodes.execution.plan.variants import shared_part
from hypernodes.execution.scheduler.plan_run import PlanRun
from hypernodes.execution.signature import identify
from hypernodes.iterators import can_be_shared
from hypernodes.raw_errors import is_a
from hypernodes.serialization.pickling import is_serializable
from hypernodes.serialization.remote import is_remote

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import Values
    from hypernodes.execution.plan.model import Plan
    from hypernodes.execution.scheduler.lookup import SignedItem
    from hypernodes.execution.scheduler.plan_execution import PlanExecution
    from hypernodes.execution.scheduler.state import RunState


class SharingMap(Protocol):
    """The map whose items share values."""

    def shared_values_ended(self, child: PlanExecution, error: BaseException | None) -> None:
        """Go on with the items, now that the values are there, or that they never will be."""


class SharedValues:
    """The values of one map that depend on fixed inputs only.

    The fixed inputs of the map, what jobs have in common, and the identities are added to.
    """

    def __init__(
        self,
        run: RunState,
        plan: Plan,
        scope: Scope,
        *,
        fixed: Values,
        common: dict[str, CommonValue],
        identities: dict[str, bytes | None],
    ) -> None:
        self._run = run
        self._plan = plan
        self._scope = scope
        self._owner: SharingMap | None = None  # only while they are computed: a cycle would outlive the run
        self._fixed = fixed
        self._common = common
        self._identities = identities
        self._names = tuple(name for name in plan.shared if name not in fixed)  # that are not there yet
        self._unneeding: set[int] = set()  # the positions of items for which the cache has what needs them
        self.computing: PlanRun | None = None
        self.error: BaseException | None = None  # which ended their computation

    @property
    def are_there(self) -> bool:
        """Whether there are such values, and all of them are among the fixed inputs."""
        return bool(self._plan.shared) and self._fixed.keys() >= set(self._plan.shared)

    @property
    def are_missing(self) -> bool:
        """Whether items may need values that are not there."""
        return bool(self._names)

    def needing(self, positions: Sequence[int]) -> list[int]:
        """Return those of some items that need values which are not there."""
        return [position for position in positions if position not in self._unneeding] if self._names else []

    def look_at(self, position: int, signed: SignedItem, absent: Collection[bytes] | None) -> None:
        """Note whether an item that was looked up needs them.

        `absent` are the signatures that the cache does not have; ``None`` if the cache does not say.
        """
        plan, outputs = self._plan, set(self._plan.outputs)
        wanted, seen = list(plan.outputs), set[str]()
        while wanted:
            name = wanted.pop()
            if name in seen or (step := plan.producers.get(name)) is None:
                continue
            seen.add(name)
            if step.index in signed.known:
                continue
            if name in self._names:
                return
            signature = signed.signatures.get(step.index)
            is_there = signature is not None and absent is not None and signature not in absent
            if not is_there or name in outputs:
                wanted += [taken for _, taken in step.arguments]
        self._unneeding.add(position)

    def compute(self, owner: SharingMap) -> None:
        """Compute them here, or by the workers of the map if they can hand them on.

        Other processes return what they make only as a pickle, which this process would send to all of them.
        """
        part, target = shared_part(self._plan), self._plan.map_target
        if part.node_target is None and target is not None and not target.capabilities.gathers:
            able = target.capabilities
            if able.places_calls or not able.serializes:
                part = replace(part, node_target=target)
        self._owner = owner
        self.computing = PlanRun(
            self._run,
            part,
            self._scope,
            self,
            dict(self._fixed),
            identities=self._identities,
            common=self._common,
        )
        self.computing.begin()

    def child_finished(self, child: PlanRun, values: Values) -> None:
        """Take the values."""
        self.computing, self._names = None, ()
        if not can_be_shared(values.values()):
            self._tell(child, None)
            return
        self._fixed |= values
        self._common |= {name: CommonValue(value) for name, value in values.items()}
        signer = self._run.signer(self._plan)
        for name, value in values.items():
            if (identity := child.identities.get(name)) is not None:
                self._identities[name] = identity
            elif signer.identifies(name) and not is_remote(value):
                self._identities[name] = identify(value, name, self._plan, signer.reach)
        self._tell(child, None)

    def child_failed(self, child: PlanRun, error: BaseException) -> None:
        """Take the error; values that cannot travel are computed by each chunk."""
        self.computing = None
        target, events = self._plan.map_target, self._run.events
        if not (is_a(error, TransportError) and target is not None and target.capabilities.serializes):
            self.error = error
            self._tell(child, error)
            return
        self._names = ()
        if events and events[-1].hook == "on_error" and events[-1].arguments[1] is error:
            name = events[-1].arguments[0]
            abandoned = NodeAbandonedError.of(name, self._plan.label, error)
            events[-1] = events[-1]._replace(arguments=(name, abandoned))
        self._tell(child, None)

    def _tell(self, child: PlanRun, error: BaseException | None) -> None:
        owner, self._owner = self._owner, None
        if owner is not None:
            owner.shared_values_ended(child, error)

    def withdraw(self, error: BaseException) -> bool:
        """Whether a chunk failed since they cannot travel: then each chunk computes them from now on."""
        if not is_a(error, TransportError):
            return False
        if self.are_there and (
            is_a(error, UnpackError)
            or not all(is_serializable(self._fixed[name]) for name in self._plan.shared)
        ):
            for name in self._plan.shared:
                del self._fixed[name], self._common[name]
        return not self.are_there

    def abandon(self, error: BaseException) -> list[Any]:
        """Give up their computation; return it, if it was under way."""
        computing, self.computing, self._owner = self.computing, None, None
        if computing is None:
            return []
        computing.abandon(error)
        return [computing]
