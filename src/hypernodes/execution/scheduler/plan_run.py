"""One plan over one set of inputs: what is wanted, what is known, what follows.

Values are asked for from the wanted outputs backwards. A step that may be cached is signed, which takes
identities only; if the cache has its result, nothing behind it is asked for:

    wanted ─▶ signed ─▶ looked up ─┬─ hit ──────────────────────────▶ done
       └── may not be cached ──────┴─▶ waits for values ─▶ called ───▶ done
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypernodes.exceptions import NodeAbandonedError, WorkerDiedError
from hypernodes.execution.calls.location import locate, locate_output
from hypernodes.execution.calls.timeout import overdue
from hypernodes.execution.jobs import Call, EntryKey, Failure, Fetch, Fetched, Store
from hypernodes.execution.plan.model import CallStep, NestedStep
from hypernodes.execution.provenance import taken
from hypernodes.execution.scheduler.call_groups import CallGroups
from hypernodes.execution.scheduler.lookup import SignedItem, sign_item
from hypernodes.execution.scheduler.plan_execution import PlanExecution
from hypernodes.execution.scheduler.step_lookup import StepLookup
from hypernodes.mapping import Columns, collect
from hypernodes.raw_errors import is_a
from hypernodes.serialization.remote import RemoteList, can_resolve, is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hypernodes.callbacks.event import Scope
    from hypernodes.execution.jobs import CommonValue, Outcome, Values
    from hypernodes.execution.plan.model import Plan, Step
    from hypernodes.execution.scheduler.state import JobOwner, Parent, RunState

_NOTHING: Final[Mapping[str, Any]] = {}


class PlanRun(PlanExecution):
    """One plan over one set of inputs.

    What is known of an item that was looked up is `signed`; `batches` is the map whose items are here
    together, so that batch functions are called for several. If it returns here, its remote values are
    brought here.
    """

    def __init__(
        self,
        run: RunState,
        plan: Plan,
        scope: Scope,
        parent: Parent,
        values: Values,
        *,
        identities: Mapping[str, bytes | None],
        common: Mapping[str, CommonValue] = _NOTHING,
        signed: SignedItem | None = None,
        about: Any = None,
        batches: JobOwner | None = None,
        returns_here: bool = False,
    ) -> None:
        super().__init__(run, plan, scope, parent, about)
        self.values = values
        self.common = common
        self._batches = batches
        self._returns_here = returns_here
        signer = run.signer(plan)
        if signed is None:
            bound = run.fingerprints.bound.get(plan.key)
            signed = sign_item(plan, signer, values, {**bound, **identities} if bound else identities)
        self._lookup = StepLookup(self, signer, signed) if signer.steps else None
        self.identities = signed.identities
        self._signatures = signed.signatures
        self.asked: set[int] = set()  # steps whose values are wanted
        self.unmet: dict[int, int] = {}  # how many values a step still waits for
        self._groups: CallGroups | None = None
        if plan.grouped and plan.node_target is not None:
            self._groups = CallGroups(self, run.target_info(plan.node_target).durations)
        self._for_value: dict[str, list[Step]] = {}  # the steps that wait for the value of a name
        self._under_way: dict[int, float] = {}  # when a step that has not ended was started
        self._children: dict[int, PlanExecution] = {}  # nested plans that are under way, by step
        self._wanted: set[int] = set()  # steps that make the outputs asked for, and are not done

    def begin(self, emit_as: str | None = None) -> None:
        """Ask for the wanted outputs; an item of a map has no pipeline id, since the map emits its events."""
        self.emitted_as = emit_as
        if emit_as is not None:
            self.emit("on_pipeline_start", emit_as, {name: self.values[name] for name in self.plan.inputs})
        for name in self.plan.outputs:
            if name not in self.values:
                step = self.plan.producers[name]
                self._wanted.add(step.index)
                self.run.later(self.ask, step)
        if not self._wanted:
            self.run.later(self._end)

    # ------------------------------------------------------------------ from the outputs backwards

    def ask(self, step: Step) -> None:
        """Ask for the outputs of a step."""
        if self.over or step.index in self.asked:
            return
        self.asked.add(step.index)
        if self._lookup is None or not self._lookup.takes(step):
            self.wait_for_values(step)

    def look_again(self, about: Step) -> None:
        """Look up the result of a call that was made elsewhere meanwhile."""
        if self._lookup is not None:
            self._lookup.look_again(about)

    def found(self, step: Step, signature: bytes, outputs: tuple[Any, ...]) -> None:
        """Go on with outputs that were found in the cache."""
        self.hits += 1
        self.emit("on_node_cached", step.name, signature.hex(), signature=signature)
        self._resolve(step, outputs)

    def wait_for_values(self, step: Step) -> None:
        """Have a step executed when its arguments are known."""
        waiting = 0
        for _, name in step.arguments:
            if name not in self.values:
                waiting += 1
                self._for_value.setdefault(name, []).append(step)
                self.run.later(self.ask, self.plan.producers[name])
        if waiting:
            self.unmet[step.index] = waiting
        else:
            self._start(step)

    # ------------------------------------------------------------------------ from results forwards

    def _start(self, step: Step) -> None:
        if self.over:  # another step that waited for the same value has just failed
            return
        match step:
            case CallStep():
                self.call(step)
            case NestedStep():
                arguments = {parameter: self.values[name] for parameter, name in step.arguments}
                remote = [name for name in step.map_over if is_remote(arguments[name])]
                if remote:
                    values = tuple(arguments[name] for name in remote)
                    self.run.jobs.append(Fetch(self.run.key_for(self, (step, remote)), values))
                else:
                    self._start_nested(step, arguments)

    def call(self, step: CallStep) -> None:
        """Have a call made whose arguments are known, by itself or together with others."""
        if self._groups is not None and self._groups.takes(step):
            return
        plan, target = self.plan, self.plan.node_target
        arguments = {parameter: self.values[name] for parameter, name in step.arguments}
        entry, takes = self.entry_of(step), None
        if entry is not None and target is not None and target.capabilities.places_calls:
            takes = taken(plan, step, self.identities, self.values)
        common = self.common
        shared: dict[str, CommonValue] = {}
        if common:
            shared = {parameter: common[name] for parameter, name in step.arguments if name in common}
        call = Call(self.run.key_for(self, step), step, arguments, self.scope, target, shared, entry, takes)
        if step.options.batch is not None and self._batches is not None and len(shared) < len(arguments):
            self.run.add_to_batch(self._batches, call)
        else:
            self.run.jobs.append(call)

    def entry_of(self, step: CallStep) -> EntryKey | None:
        """Return where the result of a call is kept, if it is cached."""
        plan, signature = self.plan, self._signatures.get(step.index)
        if signature is None or plan.cache is None:
            return None
        return EntryKey(plan.cache, signature, self.run.fingerprints.calls[plan.key, step.index].hex())

    def job_begins(self, about: CallStep) -> None:
        """Emit that a call is about to be made."""
        self._under_way[about.index] = self.run.clock()
        self.emit_start(about)

    def emit_start(self, step: CallStep, outcome: Outcome | None = None) -> None:
        """Emit that a call is about to be made, or was, if its outcome is here."""
        if "on_node_start" in self.plan.subscribed:
            arguments = {parameter: self.values[name] for parameter, name in step.arguments}
            began = None
            if outcome is not None and outcome.ended is not None:
                time, worker = outcome.ended
                began = time - outcome.seconds, worker
            signature = self._signatures.get(step.index)
            self.emit("on_node_start", step.name, arguments, signature=signature, ended=began)

    def job_done(self, about: Any, outcome: Outcome | Fetched) -> None:
        """Go on with the outcome of a job."""
        if isinstance(outcome, Fetched):
            self._fetched(about, outcome)
        else:
            self._called(about, outcome)

    def job_failed(self, about: Any, error: BaseException) -> None:
        """Go on after a job that could not be carried out at all."""
        if about is None or isinstance(about, str):  # a value that could not be brought here
            names = self.plan.outputs if about is None else (about,)
            name = next((name for name in names if not can_resolve(self.values[name])), names[0])
            locate_output(error, self.plan, name, self.scope, self.values)
            self.fail(error)
            return
        step = about[0] if isinstance(about, tuple) else about
        if is_a(error, WorkerDiedError) and isinstance(step, CallStep):
            error = overdue(error, step.options.timeout) or error
        arguments = {parameter: self.values[name] for parameter, name in step.arguments}
        locate(error, step, self.scope, arguments)
        self.failed(step, error)

    def _fetched(self, about: Any, outcome: Fetched) -> None:
        if about is None:
            self._finish(dict(zip(self.plan.outputs, outcome.values, strict=True)))
            return
        step, remote = about
        arguments = {parameter: self.values[name] for parameter, name in step.arguments}
        self._start_nested(step, arguments | dict(zip(remote, outcome.values, strict=True)))

    def _called(self, step: CallStep, outcome: Outcome) -> None:
        self.run.events += outcome.events
        if outcome.error is not None:
            self.failed(step, outcome.error, outcome)
            return
        self._under_way.pop(step.index, None)
        self.executed += 1
        if self._groups is not None:
            self._groups.note(step, outcome)
        outputs, plan = outcome.outputs, self.plan
        signature = self._signatures.get(step.index)
        if not outcome.is_stored and (entry := self.entry_of(step)) is not None:
            takes = taken(plan, step, self.identities, self.values)
            self.run.store(Store(entry, step, outputs, takes, outcome.seconds))
        if "on_node_end" in plan.subscribed:
            named = {
                name: value for name, value in zip(step.outputs, outputs, strict=True) if name is not None
            }
            self.emit(
                "on_node_end", step.name, named, outcome.seconds, signature=signature, ended=outcome.ended
            )
        self._resolve(step, outputs)

    def _start_nested(self, step: NestedStep, arguments: Values) -> None:
        self._under_way[step.index] = self.run.clock()
        self.emit("on_node_start", step.name, arguments)
        self.emit("on_nested_pipeline_start", self.plan.path[-1], step.name)
        source = dict(step.arguments)
        identities = {
            name: self.identities[source[name]]
            for name in arguments
            if name not in step.map_over and source[name] in self.identities
        }
        common = self.common
        try:
            self._children[step.index] = self.run.open_nested(
                step,
                arguments,
                identities=identities,
                common={name: common[source[name]] for name in arguments if source[name] in common},
                scope=self.scope,
                parent=self,
            )
        except Exception as error:  # The collections do not fit together, or one fails while it is iterated.
            locate(error, step, self.scope, arguments)
            self.failed(step, error)

    def child_finished(self, child: PlanExecution, result: Any) -> None:
        """Go on with the results of a nested plan."""
        self._children.pop(child.about.index, None)
        self.count_of(child)
        self.run.later(self._nested_done, child.about, result)

    def child_failed(self, child: PlanExecution, error: BaseException) -> None:
        """Fail with a nested plan."""
        self._children.pop(child.about.index, None)
        self.count_of(child)
        self.failed(child.about, error)

    def _nested_done(self, step: NestedStep, result: Any) -> None:
        if self.over:
            return
        if step.map_over:
            gathered = RemoteList if self.run.has_remote_values else list
            names = [inner for inner, _ in step.results]
            if not isinstance(result, Columns):
                result = [row.error if type(row) is Failure else row for row in result]
            columns = collect(result, names)
            outputs = tuple(gathered(columns[inner]) for inner in names)
        else:
            outputs = tuple(result[inner] for inner, _ in step.results)
        seconds = self.run.clock() - self._under_way.pop(step.index)
        self.emit("on_nested_pipeline_end", self.plan.path[-1], step.name, seconds)
        self.emit("on_node_end", step.name, dict(zip(step.outputs, outputs, strict=True)), seconds)
        self._resolve(step, outputs)

    def failed(self, step: Step, error: BaseException, outcome: Outcome | None = None) -> None:
        """Take note that a step raised, which ends the plan; a call that was made has an outcome."""
        if not self.over:
            now = self.run.clock()
            seconds, ended = now - self._under_way.pop(step.index, now), None
            if outcome is not None:
                seconds, ended = outcome.seconds, outcome.ended
            signature = self._signatures.get(step.index)
            self.emit("on_error", step.name, error, signature=signature, ended=ended, seconds=seconds)
            self.fail(error)

    def _abandon_children(self, error: BaseException) -> None:
        for child in self._children.values():
            child.abandon(error)
            self.count_of(child)
        self._children.clear()
        self._let_go()
        if "on_error" in self.plan.subscribed:
            for index, began in self._under_way.items():
                name = self.plan.steps[index].name
                abandoned = NodeAbandonedError.of(name, "/".join(self.scope.path), error)
                seconds = self.run.clock() - began
                self.emit("on_error", name, abandoned, signature=self._signatures.get(index), seconds=seconds)
        self._under_way.clear()

    def _resolve(self, step: Step, outputs: tuple[Any, ...]) -> None:
        for name, value in zip(step.outputs, outputs, strict=True):
            if name is None:
                continue
            self.values[name] = value
            if self._lookup is not None:
                self._lookup.note_value(name, value)
            for waiting in self._for_value.pop(name, ()):
                self.unmet[waiting.index] -= 1
                if not self.unmet[waiting.index]:
                    self._start(waiting)
        self._wanted.discard(step.index)
        if not self._wanted:
            self.run.later(self._end)

    def _end(self) -> None:
        if self.over:
            return
        outputs = {name: self.values[name] for name in self.plan.outputs}
        if self._returns_here and self.run.has_remote_values and any(map(is_remote, outputs.values())):
            self._returns_here = False
            self.run.jobs.append(Fetch(self.run.key_for(self, None), tuple(outputs.values())))
            return
        self._finish(outputs)

    def _finish(self, outputs: Values) -> None:
        self.over = True
        self._let_go()
        if self.emitted_as is not None:
            self.emit("on_pipeline_end", self.emitted_as, outputs, self.run.clock() - self.started)
        self.parent.child_finished(self, outputs)

    def _let_go(self) -> None:
        """Let what has sent jobs forget this run."""
        for part in (self._groups, self._lookup):
            if part is not None:
                part.close()

    @property
    def cached_signature(self) -> str | None:
        """The signature of an item whose outputs all came from the cache; ``None`` if one was computed."""
        if self.executed or not self.hits:
            return None
        for name in self.plan.outputs:
            identity = self.identities.get(name)
            if name in self.plan.producers and identity is not None:
                return identity.hex()
        return None
