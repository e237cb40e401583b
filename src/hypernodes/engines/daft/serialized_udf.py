"""A UDF for other processes: it is serialized once, and deserialized once in each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from hypernodes.engines.daft.transport import Transport
from hypernodes.engines.daft.udf import StageTask, StageUdf
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.targets.diagnose import unsent
from hypernodes.serialization.broadcast import BROADCAST_MIN_BYTES, Broadcast, PlacedValue, broadcast
from hypernodes.serialization.pickling import Serialized, serialize

if TYPE_CHECKING:
    from daft import Series


class SerializedUdf:
    """A stage as a function of columns, for other processes."""

    def __init__(
        self, task: StageTask, transport: Transport, place: Callable[[Serialized], PlacedValue]
    ) -> None:
        self._transport = transport
        self._large: dict[str, Broadcast] = {}
        try:
            for name, value in task.fixed.items():
                serialized = serialize(value)
                if serialized.size >= BROADCAST_MIN_BYTES:
                    self._large[name] = broadcast(serialized, place)
            small = {name: value for name, value in task.fixed.items() if name not in self._large}
            self._task = broadcast(serialize(replace(task, fixed=small)), place)
        except Exception as failure:
            plan = task.stage.plan
            raise unsent(plan.calls(), task.fixed, repr(plan.label), failure) from failure

    def __call__(self, *series: Series) -> Series:
        """Compute the stage for the items of some rows."""
        token = OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})
        try:
            return self._deserialized()(*series)
        finally:
            OCCUPIED.reset(token)

    async def on_loop(self, *series: Series) -> Series:
        """Compute the stage for the items of some rows, several items at once."""
        OCCUPIED.set(OCCUPIED.get() | {OTHER_PROCESS})  # This is in the context of the coroutine only.
        return await self._deserialized().on_loop(*series)

    def _deserialized(self) -> StageUdf:
        task: StageTask = self._task.get()
        large = {name: value.get() for name, value in self._large.items()}
        return StageUdf(replace(task, fixed={**task.fixed, **large}), self._transport, is_remote=True)
