"""One plan over one set of inputs: what is wanted, what is known, what follows.

Values are asked for from the wanted outputs backwards. A step that may be cached is first
identified, which takes identities only; when the cache has it, nothing behind it is asked for:

    wanted ─▶ identified ─▶ looked up ─┬─ hit ──────────────────────────▶ done
       └── may not be cached ──────────┴─▶ waits for values ─▶ called ───▶ done
"""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from hypernodes.config import MISS
from hypernodes.exceptions import MapError
from hypernodes.execution.invoke import locate
from hypernodes.execution.jobs import Call
from hypernodes.execution.scene import Scene, Waiter
from hypernodes.execution.signature import identify, output_identity, sign
from hypernodes.execution.steps import CallStep, NestedStep, Plan, Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.base import Scope
    from hypernodes.execution.jobs import Values
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
    ) -> None:
        super().__init__(run, plan, scope, waiter)
        self.values = values
        self.identities: dict[str, bytes | None] = {**run.codes.bound.get(plan.key, {}), **identities}
        self.signatures: dict[int, bytes | None] = {}
        self._asked: set[int] = set()  # steps whose values are wanted
        self._unidentified: dict[int, int] = {}  # how many identities a step still waits for
        self._unmet: dict[int, int] = {}  # how many values a step still waits for
        self._for_identity: dict[str, list[Step]] = {}  # who waits for the identity of a name
        self._for_value: dict[str, list[Step]] = {}  # who waits for its value
        self._children: dict[int, float] = {}  # when a nested step was started
        self._wanted: set[int] = set()

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
        if self._is_identified_by_lineage(step):
            if step.index in self.signatures:
                self._look_up(step)
            else:
                self._identify(step)
        else:
            self._wait_for_values(step)

    def _is_identified_by_lineage(self, step: Step) -> bool:
        key = (self.plan.key, step.index)
        return key in self.run.codes.calls or key in self.run.codes.nested

    def _identify(self, step: Step) -> None:
        if step.index in self._unidentified or step.index in self.signatures:
            return
        waiting = 0
        for _, name in step.arguments:
            if name in self.identities:
                continue
            if name in self.values:
                self.identities[name] = identify(self.values[name], name, self.plan)
            else:
                waiting += 1
                self._for_identity.setdefault(name, []).append(step)
                self.run.later(self._identify_output, self.plan.producers[name])
        self._unidentified[step.index] = waiting
        if not waiting:
            self._sign(step)

    def _identify_output(self, step: Step) -> None:
        """Identify what a step makes, by how it is made, or by content once it is made."""
        if not self._is_identified_by_lineage(step):
            self._ask(step)
        elif step.index in self.signatures:
            if any(name in self._for_identity for name in step.outputs):
                self._ask(step)
        else:
            self._identify(step)

    def _sign(self, step: Step) -> None:
        key = (self.plan.key, step.index)
        arguments = {parameter: self.identities[name] for parameter, name in step.arguments}
        known = {parameter: identity for parameter, identity in arguments.items() if identity is not None}
        match step:
            case CallStep():
                code = self.run.codes.calls[key]
                signature = sign(code, known) if len(known) == len(arguments) else None
                self.signatures[step.index] = signature
                if signature is not None:
                    for position, name in enumerate(step.outputs):
                        if name is not None:
                            self._identified(name, output_identity(signature, step, position))
            case NestedStep():
                self.signatures[step.index] = (
                    None  # a nested pipeline has no entry of its own; its nodes have
                )
                for (_, name), way in zip(step.results, self.run.codes.nested[key], strict=True):
                    if way is not None and way.inputs <= known.keys():
                        used = {inner: known[inner] for inner in sorted(way.inputs)}
                        self._identified(name, sign(way.digest, used))
        if step.index in self._asked:
            self._look_up(step)
        elif any(name in self._for_identity for name in step.outputs if name is not None):
            self.run.later(self._ask, step)  # identified by content, so the value is needed

    def _identified(self, name: str, identity: bytes | None) -> None:
        self.identities[name] = identity
        for step in self._for_identity.pop(name, ()):
            self._unidentified[step.index] -= 1
            if not self._unidentified[step.index]:
                self.run.later(self._sign, step)

    def _look_up(self, step: Step) -> None:
        signature = self.signatures[step.index]
        if signature is not None and self.plan.cache is not None:
            outputs = self.plan.cache.get(signature.hex())
            if outputs is not MISS:
                self.emit("on_node_cached", step.name, signature.hex())
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
                self.run.jobs.append(Call(self, step, arguments))
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
            self.run.open_nested(step, arguments, identities, self.scope.items, waiter)
        except MapError as error:
            locate(error, step.name, self.scope.path, self.scope.items, arguments)
            self.failed(step, error)

    def _nested_done(self, step: NestedStep, result: Any) -> None:
        if self.over:
            return
        if step.map_over:
            outputs = tuple([row[inner] for row in result] for inner, _ in step.results)
        else:
            outputs = tuple(result[inner] for inner, _ in step.results)
        seconds = perf_counter() - self._children.pop(step.index)
        self.emit("on_nested_pipeline_end", self.plan.path[-1], step.name, seconds)
        self.emit("on_node_end", step.name, dict(zip(step.outputs, outputs, strict=True)), seconds)
        self._resolve(step, outputs)

    def called(self, step: CallStep, outputs: tuple[Any, ...], seconds: float) -> None:
        """Take note of what a call returned."""
        if self.over:
            return
        self.count_call()
        signature = self.signatures.get(step.index)
        if signature is not None and self.plan.cache is not None:
            self.plan.cache.put(signature.hex(), outputs)
        named = {name: value for name, value in zip(step.outputs, outputs, strict=True) if name is not None}
        self.emit("on_node_end", step.name, named, seconds)
        self._resolve(step, outputs)

    def failed(self, step: Step, error: BaseException) -> None:
        """Take note that a step raised, which ends the frame."""
        if not self.over:
            self.emit("on_error", step.name, error)
            self.fail(error)

    def _resolve(self, step: Step, outputs: tuple[Any, ...]) -> None:
        for name, value in zip(step.outputs, outputs, strict=True):
            if name is None:
                continue
            self.values[name] = value
            if name in self._for_identity and name not in self.identities:
                self._identified(name, identify(value, name, self.plan))
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
        if self.told_as is not None:
            self.emit("on_pipeline_end", self.told_as, outputs, perf_counter() - self.started)
        self.waiter.finish(outputs)
