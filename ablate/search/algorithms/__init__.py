"""Search algorithms: one file, one algorithm; `ALGORITHMS` names them.

An algorithm is built from a `Task` and spoken to by `ask` and `tell`.
"""

from __future__ import annotations

from collections.abc import Callable

from ablate.search.algorithms.by_optuna import (
    TPE_OPEN,
    cma_es,
    cma_population,
    gaussian_process,
    nsga2,
    nsga2_population,
    tpe,
)
from ablate.search.algorithms.ensemble_first import EnsembleFirst
from ablate.search.algorithms.exhaustive import Exhaustive
from ablate.search.algorithms.gradient import Gradient, descents_at_once
from ablate.search.algorithms.greedy import (
    GreedyBackward,
    GreedyBackwardSwaps,
    GreedyForward,
    GreedyForwardSwaps,
)
from ablate.search.algorithms.random import Random
from ablate.search.algorithms.sobol import Sobol
from ablate.search.algorithms.surrogate import Surrogate, open_at_once
from ablate.search.algorithms.task import Algorithm, Task, Value

__all__ = [
    "ALGORITHMS",
    "SEVERAL_GOALS",
    "SIMPLEX_ONLY",
    "SUBSETS_ONLY",
    "Algorithm",
    "Task",
    "Value",
    "lookahead_of",
]


ALGORITHMS: dict[str, Callable[[Task], Algorithm]] = {
    "exhaustive": Exhaustive,
    "random": Random,
    "sobol": Sobol,
    "greedy-forward": GreedyForward,
    "greedy-backward": GreedyBackward,
    "greedy-forward-swaps": GreedyForwardSwaps,
    "greedy-backward-swaps": GreedyBackwardSwaps,
    "tpe": tpe,
    "cma-es": cma_es,
    "gaussian-process": gaussian_process,
    "nsga2": nsga2,
    "surrogate": Surrogate,
    "gradient": Gradient,
    "ensemble-first": EnsembleFirst,
}

SUBSETS_ONLY = frozenset(name for name in ALGORITHMS if name == "exhaustive" or "greedy" in name)
SIMPLEX_ONLY = frozenset({"gradient"})
SEVERAL_GOALS = frozenset({"nsga2"})
"""The algorithms that go after several objectives at once; the others after the one that ranks."""


def lookahead_of(name: str, trials: int, partitions: int) -> int:
    """Return the most proposals that a search by this algorithm has open at once.

    More evaluators than that times the merge methods wait. An algorithm of the user's own counts as
    one that never waits.
    """
    most = {
        "surrogate": open_at_once(trials),
        "gradient": descents_at_once(trials),
        "gaussian-process": 1,
        "tpe": TPE_OPEN,
        "cma-es": cma_population(partitions),
        "nsga2": nsga2_population(trials),
    }
    return min(trials, most.get(name, trials))
