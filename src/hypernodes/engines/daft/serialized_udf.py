"""A UDF for other processes: it is serialized once, and deserialized once in each of them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from hypernodes.engines.daft.udf import StageTask, StageUdf
from hypernodes.exceptions import UnpackError
from hypernodes.execution.current import OCCUPIED, OTHER_PROCESS
from hypernodes.execution.targets.diagnose import unsent
from hypernodes.execution.targets.same_code import check_code, names_of_driver, with_code
from hypernodes.serialization.broadcast import BROADCAST_MIN_BYTES, Broadcast, broadcast
from hypernodes.serialization.pickling import serialize

if TYPE_CHECKING:
    from collections.abc import Callable

    from daft import Series

    from hypernodes.engines.daft.transport import Transport
    from hypernodes.serialization.broadcast import PlacedValue
    from hypernodes.serialization.pickling import Serialized


class SerializedUdf:
    """A stage as a function of columns, for other processes.

    Args:
        task: What the calls of the UDF have in common.
        transport: How values go between stages.
        place: Places a large value where every worker finds it.
        sends_code: Whether the user's modules go along, since a worker has imported other ones.

    Raises:
        TransportError: A function or a fixed input cannot be pickled.
    """

    def __init__(
        self,
        task: StageTask,
        transport: Transport,
        place: Callable[[Serialized], PlacedValue],
        *,
        sends_code: bool = False,
    ) -> None:
        self._transport = transport
        self._large: dict[str, Broadcast] = {}
        try:
            for name, value in task.fixed.items():
                serialized = serialize(value)
                if serialized.size >= BROADCAST_MIN_BYTES:
                    self._large[name] = broadcast(serialized, place)
            small = {name: value for name, value in task.fixed.items() if name not in self._large}
            with with_code() if sends_code else nullcontext():
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
        try:
            with names_of_driver():
                task: StageTask = self._task.get()
            for signed in (task.context, task.signed):
                if signed is not None:
                    check_code(signed)
        except UnpackError as error:
            self._transport.raise_error(error)
        large = {name: value.get() for name, value in self._large.items()}
        return StageUdf(replace(task, fixed={**task.fixed, **large}), self._transport, is_remote=True)
