"""The plans that an engine has made, each for as long as its pipeline lives."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypernodes.execution.plan.build import PreparedPlan
    from hypernodes.execution.plan.settings import Plannable


class PlanCache:
    """Plans by what they were made for."""

    def __init__(self) -> None:
        self._plans: dict[tuple[Any, ...], PreparedPlan] = {}
        self._keys: dict[object, list[tuple[Any, ...]]] = {}

    def get(self, key: tuple[Any, ...]) -> PreparedPlan | None:
        """Return the plan that was made for a key."""
        return self._plans.get(key)

    def put(self, pipeline: Plannable, key: tuple[Any, ...], prepared: PreparedPlan) -> None:
        """Keep a plan until its pipeline is gone, to which the key refers by its token only."""
        token = pipeline.token
        if token not in self._keys:
            self._keys[token] = []
            weakref.finalize(pipeline, _forget, weakref.ref(self), token).atexit = False
        self._keys[token].append(key)
        self._plans[key] = prepared

    def forget(self, token: object) -> None:
        """Forget the plans of a pipeline."""
        for key in self._keys.pop(token, ()):
            self._plans.pop(key, None)

    def __len__(self) -> int:
        return len(self._plans)


def _forget(cache: weakref.ref[PlanCache], token: object) -> None:
    if (found := cache()) is not None:
        found.forget(token)
