"""Signing the steps of one run of a plan, and looking up their results.

A step is signed once what identifies its arguments is known: their signatures, or the content of values that
are in no cache. Only then does it ask for these values. All steps that are asked for meanwhile are looked up
together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from hypernodes.execution.jobs import Fetch, Fetched, LookUp
from hypernodes.execution.scheduler.sent_jobs import SentJobs
from hypernodes.execution.signature import identify
from hypernodes.serialization.remote import is_remote

if TYPE_CHECKING:
    from hypernodes.execution.jobs import Found, Values
    from hypernodes.execution.plan.model import Plan, Step
    from hypernodes.execution.scheduler.lookup import SignedItem
    from hypernodes.execution.scheduler.state import RunState
    from hypernodes.execution.signature import Signer


class SignedRun(Protocol):
    """The run of a plan, as far as the look-up of its steps must know it."""

    run: RunState
    plan: Plan
    over: bool
    values: Values
    asked: set[int]  # steps whose values are wanted

    def ask(self, step: Step) -> None:
        """Ask for the outputs of a step."""

    def wait_for_values(self, step: Step) -> None:
        """Have a step executed when its arguments are known."""

    def found(self, step: Step, signature: bytes, outputs: tuple[Any, ...]) -> None:
        """Go on with outputs that were found in the cache."""

    def job_failed(self, about: Any, error: BaseException) -> None:
        """Go on after a job that could not be carried out at all."""


class StepLookup(SentJobs[SignedRun]):
    """The steps of one run of a plan that may be found in the cache."""

    def __init__(self, part: SignedRun, signer: Signer, signed: SignedItem) -> None:
        super().__init__(part)
        self._signer = signer
        self._identities = signed.identities
        self._signatures = signed.signatures
        self._known = dict(signed.known)
        self._unsigned: set[int] = set()  # steps whose signature is waited for
        self._to_look_up: list[Step] = []

    def takes(self, step: Step) -> bool:
        """Take a step that is asked for, unless it cannot be in the cache."""
        if step.index not in self._signer.steps:
            return False
        if step.index in self._signatures:
            self._look_up(step)
        else:
            self._wait_for_identities(step)
        return True

    def note_value(self, name: str, value: Any) -> None:
        """Go on with the steps that can be signed, now that a value is known."""
        if self._unsigned and self._identifies(name) and self._identify(name, value):
            self._sign_more()

    def look_again(self, about: Step) -> None:
        """Look up the result of a call that was made elsewhere meanwhile."""
        if not self.over:
            self._send([about], is_again=True)

    def _wait_for_identities(self, step: Step) -> None:
        """Ask for the values whose content identifies a step."""
        if self.over or step.index in self._unsigned:
            return
        self._unsigned.add(step.index)
        part, is_identified = self._part, False
        for _, name in step.arguments:
            if name in self._identities:
                continue
            if name in part.values:
                is_identified |= self._identify(name, part.values[name])
            else:
                producer = part.plan.producers[name]
                if producer.index in self._signer.steps and producer.index not in self._signatures:
                    part.run.later(self._wait_for_identities, producer)
                else:
                    part.run.later(part.ask, producer)
        if is_identified:
            self._sign_more()

    def _identify(self, name: str, value: Any) -> bool:
        """Identify a value by its content; ``False`` if it has to be brought here first."""
        part = self._part
        if is_remote(value):
            part.run.jobs.append(Fetch(part.run.key_for(self, name), (value,)))
            return False
        self._identities[name] = identify(value, name, part.plan, self._signer.reach)
        return True

    def _identifies(self, name: str) -> bool:
        """Whether a step can be signed only once the value of a name is identified by its content."""
        if name in self._identities:
            return False
        waiting = (self._part.plan.steps[index] for index in self._unsigned)
        return any(name == argument for step in waiting for _, argument in step.arguments)

    def _sign_more(self) -> None:
        """Go on with the steps that can be signed, now that more is identified."""
        part = self._part
        for step in self._signer.sign(self._identities, self._signatures):
            if step.index not in self._unsigned:
                continue
            self._unsigned.discard(step.index)
            if step.index in part.asked:
                self._look_up(step)
            elif not self._identities.keys() >= {name for name in step.outputs if name is not None}:
                part.run.later(part.ask, step)  # its outputs are identified by content, so they are needed

    def _look_up(self, step: Step) -> None:
        index, part = step.index, self._part
        if (signature := self._signatures[index]) is None or part.plan.cache is None:
            part.wait_for_values(step)
        elif index in self._known:
            part.found(step, signature, self._known.pop(index))
        elif part.run.is_absent(signature):
            part.wait_for_values(step)
        else:
            if not self._to_look_up:
                part.run.later(self._look_up_together)
            self._to_look_up.append(step)

    def _look_up_together(self) -> None:
        """Look up all steps at once that were asked for meanwhile."""
        steps, self._to_look_up = self._to_look_up, []
        if not self.over:
            self._send(steps)

    def _send(self, steps: list[Step], *, is_again: bool = False) -> None:
        run, cache = self._part.run, self._part.plan.cache
        wanted: list[Any] = [(self._signatures[step.index],) for step in steps]
        if cache is not None:
            run.jobs.append(LookUp(run.key_for(self, steps), cache, wanted, is_again=is_again))

    def job_begins(self, about: Any) -> None:
        """Do nothing: a look-up has no events."""

    def job_done(self, about: Any, outcome: Found | Fetched) -> None:
        """Go on with what a look-up has found, or with a value that is here now."""
        if isinstance(outcome, Fetched):
            if about not in self._identities:
                self._identify(about, outcome.values[0])
                self._sign_more()
            return
        for step, values in zip(about, outcome.values, strict=True):
            if self.over:
                return
            for signature, outputs in values.items():
                self._part.found(step, signature, outputs)
            if not values:
                self._part.wait_for_values(step)

    def job_failed(self, about: Any, error: BaseException) -> None:
        """Fail with a value that could not be brought here."""
        self._part.job_failed(about, error)
