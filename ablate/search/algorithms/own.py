"""Algorithms of the user's own: each proposal is a mixture of the space, or an error by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.plugins import named_errors
from ablate.search.algorithms.task import Algorithm, Task


class Own:
    """An algorithm that a study names as package.module:function, its proposals looked at.

    Raises StudyError where it raises, where `ask` returns no mixture, and for a mixture that is not
    in the space.
    """

    def __init__(self, name: str, build: Callable[[Task], Algorithm], task: Task) -> None:
        self._name, self._space = name, task.space
        self._algorithm = self._answer("be built from a Task", build, task)
        self.lookahead = getattr(self._algorithm, "lookahead", None)
        if type(self.lookahead) is not int or self.lookahead < 1:
            raise StudyError(
                f"search.algorithm '{name}' must have a whole number `lookahead` of 1 or more, got "
                f"{self.lookahead!r}; say how many proposals may be open at once"
            )
        self.wants_gradient = bool(getattr(self._algorithm, "wants_gradient", False))

    def ask(self) -> Mixture | None:
        """Return the next mixture of the algorithm."""
        found = self._answer("propose a mixture", self._algorithm.ask)
        if found is None:
            return None
        if not isinstance(found, Mixture):
            raise StudyError(
                f"search.algorithm '{self._name}' must return a Mixture or None from ask, got a "
                f"{type(found).__name__}; mend it"
            )
        if found not in self._space:
            shown = ", ".join(f"{name} {weight:.3g}" for name, weight in found.weights)
            raise StudyError(
                f"search.algorithm '{self._name}' must propose mixtures of the study's space, got "
                f"{shown}; draw from task.space"
            )
        return found

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Tell the algorithm."""
        self._answer("take a value", self._algorithm.tell, mixture, value)

    def _answer(self, what: str, call: Callable[..., Any], *given: Any) -> Any:
        with named_errors(f"search.algorithm '{self._name}' must {what}", StudyError):
            return call(*given)
