"""Search algorithms: one file, one algorithm; `ALGORITHMS` names them.

An algorithm is built by `f(space, rng_seed, trials)` and spoken to by `ask` and `tell`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ablate.mixture import Mixture
from ablate.search.algorithms.exhaustive import Exhaustive
from ablate.search.algorithms.greedy import GreedyBackward, GreedyForward
from ablate.search.algorithms.random import Random
from ablate.search.algorithms.tpe import TPE
from ablate.search.space import SubsetSpace


class Algorithm(Protocol):
    """What proposes mixtures and learns from their values."""

    lookahead: int
    """How many proposals may be open at once: fixed, so that no timing changes a search."""

    def ask(self) -> Mixture | None:
        """Return the next mixture; None = waiting for values, or done when none is open."""
        ...

    def tell(self, mixture: Mixture, value: float | None) -> None:
        """Take a value (smaller is better), or None for a trial that failed."""
        ...


ALGORITHMS: dict[str, Callable[[SubsetSpace, int, int], Algorithm]] = {
    "exhaustive": Exhaustive,
    "random": Random,
    "greedy-forward": GreedyForward,
    "greedy-backward": GreedyBackward,
    "tpe": TPE,
}
