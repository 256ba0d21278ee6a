"""Talk with an algorithm so that timing cannot change what it proposes.

Values are told in the order of the proposals. Before proposal k, every value up to k - lookahead
has been told and none after it, however many evaluators work and whichever finishes first.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from ablate.mixture import Mixture
from ablate.search.algorithms import Algorithm


class Pause(Enum):
    """What `next` returns when there is no proposal."""

    WAIT = "a value is needed first"
    DONE = "nothing is left to propose"


class Conversation:
    """At most `trials` distinct mixtures of one algorithm, asked and told in a fixed order.

    `on_told`, where it is set, is called with every mixture whose value was told, in that order.
    """

    def __init__(self, algorithm: Algorithm, trials: int, at_once: int | None = None) -> None:
        """Talk with `algorithm`; at most `at_once` proposals wait for their values."""
        self._algorithm = algorithm
        self._most_open = min(algorithm.lookahead, at_once or algorithm.lookahead)
        self.on_told: Callable[[Mixture], None] | None = None
        self._trials = trials
        self._asked: list[Mixture] = []
        self._told = 0
        self._values: dict[str, float | None] = {}

    @property
    def wants_gradient(self) -> bool:
        """Return whether the algorithm learns from gradients."""
        return bool(getattr(self._algorithm, "wants_gradient", False))

    @property
    def trials(self) -> int:
        """Return the most proposals there will be."""
        return self._trials

    @property
    def asked(self) -> tuple[Mixture, ...]:
        """Return the proposals so far, in order."""
        return tuple(self._asked)

    def next(self) -> Mixture | Pause:
        """Return the next proposal, or why there is none now."""
        if len(self._asked) >= self._trials:
            return Pause.DONE
        while len(self._asked) - self._told >= self._most_open:
            if not self._tell_one():
                return Pause.WAIT
        while (mixture := self._algorithm.ask()) is None:
            if self._told == len(self._asked):
                return Pause.DONE
            if not self._tell_one():
                return Pause.WAIT
        self._asked.append(mixture)
        return mixture

    def result(self, mixture: Mixture, value: float | None) -> None:
        """Take the value of a proposal (None = failed), in any order."""
        self._values[mixture.key()] = value

    def _tell_one(self) -> bool:
        """Tell the oldest untold value; return False when it is not known yet."""
        mixture = self._asked[self._told]
        if mixture.key() not in self._values:
            return False
        self._told += 1
        self._algorithm.tell(mixture, self._values[mixture.key()])
        if self.on_told is not None:
            self.on_told(mixture)
        return True
