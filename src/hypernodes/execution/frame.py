"""One plan over one set of inputs: what is wanted, what is known, what follows.

Values are asked for from the wanted outputs backwards. A step that may be cached is signed, which
takes identities only; when the cache has it, nothing behind it is asked for:

    wanted ─▶ signed ─▶ looked up ─┬─ hit ──────────────────────────▶ done
       └── may not be cached ──────┴─▶ waits for values ─▶ called ───▶ done
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from hypernodes.config import MISS
from hypernodes.exceptions import MapError
from hypernodes.execution.invoke import locate
from hypernodes.execution.jobs import Call
from hypernodes.execution.record import keep
from hypernodes.execution.scene import Scene, Waiter
from hypernodes.execution.signature import identify
from hypernodes.execution.steps import CallStep, NestedStep, Plan, Step
from hypernodes.portable import Gathered, fetched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.event import Scope, Worker
    from hypernodes.execution.jobs import Outcome, Values
    from hypernodes.execution.probe import Signed
    from hypernodes.execution.run import Run


class Frame(Scene):
    """One plan over one set of inputs."""

    def __init__(
        self,
        run: Run,
        plan: Plan,
        scope: Scope,
        waiter: Waiter,
        values: Values,
        *,
        identities: Mapping[str, bytes | None],
        signed: Signed | None = None,
    ) -> None:
        super().__init__(run, plan, scope, waiter)
        self.values = values
        self.signer = run.signer(plan)
        if signed is not None:
            self.identities, self.signatures = signed.identities, signed.signatures
        else:
            self.identities = {**run.codes.bound.get(plan.key, {}), **identities}
            self.signatures = {}
            if self.signer.steps:
                self._sign()
        self._asked: set[int] = set()  # steps whose values are wanted
        self._unmet: dict[int, int] = {}  # how many values a step still waits for
        self._for_value: dict[str, list[Step]] = {}  # who waits for the value of a name
        self._unsigned: set[int] = set()  # steps whose identity somebody waits for
        self._children: dict[int, float] = {}  # when a nested step was started
        self._wanted: set[int] = set()

    @property
    def is_of_chunk(self) -> bool:
        """Whether this is one of the items that a worker has been given together."""
        return self.waiter.scene is not None and self.waiter.scene.is_chunk

    @property
    def common(self) -> Values:
        """The values that it has in common with the other items of its map."""
        return {} if self.waiter.scene is None else self.waiter.scene.fixed

    def _sign(self) -> None:
        """Sign every step that can be signed before anything is computed."""
        for name in self.signer.inputs:
            if name not in self.identities and name in self.values:
                self.identities[name] = identify(fetched(self.values[name]), name, self.plan, self.run.codes)
        self.signer.sign(self.identities, self.signatures)

    def begin(self, told_as: str | None = None) -> None:
        """Ask for the wanted outputs; an item of a map is told of by its sweep, a pipeline under its id."""
        self.told_as = told_as
        if told_as is not None:
            self.emit("on_pipeline_start", told_as, {name: self.values[name] for name in self.plan.inputs})
        for name in self.plan.outputs:
            if name not in self.values:
                step = self.plan.producers[name]
                self._wanted.add(step.index)
                self.run.later(self._ask, step)
        if not self._wanted:
            self.run.later(self._end)

    # ------------------------------------------------------------------ from the outputs backwards

    def _ask(self, step: Step) -> None:
        if step.index in self._asked:
            return
        self._asked.add(step.index)
        if step.index not in self.signer.steps:
            self._wait_for_values(step)
        elif step.index in self.signatures:
            self._look_up(step)
        else:
            self._wait_for_identities(step)

    def _wait_for_identities(self, step: Step) -> None:
        """Ask for those values by whose content a step will be identified."""
        if step.index in self._unsigned:
            return
        self._unsigned.add(step.index)
        is_known = False
        for _, name in step.arguments:
            if name in self.identities:
                continue
            if name in self.values:
                self.identities[name] = identify(fetched(self.values[name]), name, self.plan, self.run.codes)
                is_known = True
            else:
                producer = self.plan.producers[name]
                if producer.index in self.signer.steps and producer.index not in self.signatures:
                    self.run.later(self._wait_for_identities, producer)
                else:
                    self.run.later(self._ask, producer)
        if is_known:
            self._identified()

    def _identified(self) -> None:
        """Go on with the steps that can be signed, now that more is identified."""
        for step in self.signer.sign(self.identities, self.signatures):
            if step.index not in self._unsigned:
                continue
            self._unsigned.discard(step.index)
            if step.index in self._asked:
                self._look_up(step)
            elif not self.identities.keys() >= {name for name in step.outputs if name is not None}:
                self.run.later(self._ask, step)  # it is identified by content, so the value is needed

    def look_again(self, step: CallStep) -> None:
        """Look a step up that somebody else has computed meanwhile."""
        if not self.over:
            self.run.absent.discard(self.signatures[step.index])
            self._look_up(step)

    def _look_up(self, step: Step) -> None:
        signature = self.signatures[step.index]
        if signature is not None and self.plan.cache is not None and not self.run.is_absent(signature):
            outputs = self.plan.cache.get(signature.hex())
            if outputs is not MISS:
                self.emit("on_node_cached", step.name, signature.hex(), signature=signature)
                self._resolve(step, outputs)
                return
        self._wait_for_values(step)

    def _wait_for_values(self, step: Step) -> None:
        waiting = 0
        for _, name in step.arguments:
            if name not in self.values:
                waiting += 1
                self._for_value.setdefault(name, []).append(step)
                self.run.later(self._ask, self.plan.producers[name])
        if waiting:
            self._unmet[step.index] = waiting
        else:
            self._start(step)

    # ------------------------------------------------------------------------ from results forwards

    def _start(self, step: Step) -> None:
        arguments = {parameter: self.values[name] for parameter, name in step.arguments}
        match step:
            case CallStep():
                lane = self.plan.node_lane
                if self.run.has_kept and (lane is None or not lane.places):
                    arguments = {parameter: fetched(value) for parameter, value in arguments.items()}
                signature = self.signatures.get(step.index) if self.plan.cache is not None else None
                self.run.jobs.append(Call(self, step, arguments, signature))
            case NestedStep():
                self._start_nested(step, arguments)

    def _start_nested(self, step: NestedStep, arguments: Values) -> None:
        self._children[step.index] = perf_counter()
        self.emit("on_node_start", step.name, arguments)
        self.emit("on_nested_pipeline_start", self.plan.path[-1], step.name)
        source = dict(step.arguments)
        identities = {
            name: self.identities[source[name]]
            for name in arguments
            if name not in step.map_over and source[name] in self.identities
        }
        waiter = Waiter(
            finish=lambda result: self.run.later(self._nested_done, step, result),
            fail=lambda error: self.failed(step, error),
            scene=self,
        )
        try:
            self.run.open_nested(step, arguments, identities, self.scope, waiter)
        except MapError as error:
            locate(error, step.name, self.scope.path, self.scope.items, arguments)
            self.failed(step, error)

    def _nested_done(self, step: NestedStep, result: Any) -> None:
        if self.over:
            return
        if step.map_over:
            gather = Gathered if self.run.has_kept else list
            outputs = tuple(gather([row[inner] for row in result]) for inner, _ in step.results)
        else:
            outputs = tuple(result[inner] for inner, _ in step.results)
        seconds = perf_counter() - self._children.pop(step.index)
        self.emit("on_nested_pipeline_end", self.plan.path[-1], step.name, seconds)
        self.emit("on_node_end", step.name, dict(zip(step.outputs, outputs, strict=True)), seconds)
        self._resolve(step, outputs)

    def called(self, step: CallStep, outcome: Outcome) -> None:
        """Take note of what a call returned."""
        if self.over:
            return
        self.count_call()
        outputs = outcome.outputs
        if not outcome.stored:
            keep(self, step, outputs, outcome.seconds)
        named = {name: value for name, value in zip(step.outputs, outputs, strict=True) if name is not None}
        signature = self.signatures.get(step.index)
        self.emit("on_node_end", step.name, named, outcome.seconds, signature=signature, ended=outcome.ended)
        self._resolve(step, outputs)

    def failed(self, step: Step, error: BaseException, ended: tuple[float, Worker] | None = None) -> None:
        """Take note that a step raised, which ends the frame."""
        if not self.over:
            self.emit("on_error", step.name, error, signature=self.signatures.get(step.index), ended=ended)
            self.fail(error)

    def _resolve(self, step: Step, outputs: tuple[Any, ...]) -> None:
        for name, value in zip(step.outputs, outputs, strict=True):
            if name is None:
                continue
            self.values[name] = value
            if self._unsigned and name not in self.identities:
                self.identities[name] = identify(fetched(value), name, self.plan, self.run.codes)
                self._identified()
            for waiting in self._for_value.pop(name, ()):
                self._unmet[waiting.index] -= 1
                if not self._unmet[waiting.index]:
                    self._start(waiting)
        self._wanted.discard(step.index)
        if not self._wanted:
            self.run.later(self._end)

    def _end(self) -> None:
        if self.over:
            return
        self.over = True
        outputs = {name: self.values[name] for name in self.plan.outputs}
        if self.run.has_kept and self.waiter.scene is None:
            outputs = {name: fetched(value) for name, value in outputs.items()}  # these were asked for
        if self.told_as is not None:
            self.emit("on_pipeline_end", self.told_as, outputs, perf_counter() - self.started)
        self.waiter.finish(outputs)
