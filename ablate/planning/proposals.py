"""What a search takes in the driver, which is one process: proposals, and ensembles of units.

Seconds of one CPU, measured over spaces of 20 to 500 partitions and up to 2,500 scores.
"""

from __future__ import annotations

from ablate.planning.work import Work
from ablate.search.algorithms.ensemble_first import RANKED
from ablate.search.algorithms.surrogate import KEPT

SURROGATE_SECONDS, SURROGATE_SECONDS_PER_PAIR = 0.1, 4e-6
"""Of each proposal: the fit's hyperparameters; drawing mixtures, per pair of partitions."""
FACTOR_SECONDS = 8e-11
"""Of a product and a sum in the surrogate's factor of all scores."""
GAUSSIAN_PROCESS_SECONDS = 0.03
"""Of a proposal of Optuna's Gaussian process, per score."""
RANKED_SECONDS = 1.5e-10
"""Of a token, a unit and one of the mixtures that `ensemble-first` ranks before it begins."""
ENSEMBLE_SECONDS, ENSEMBLE_SECONDS_PER_UNIT = 3.5e-8, 1e-9
"""Of a token in the ensemble of one mixture, and more for each unit."""


def proposal_seconds(work: Work) -> float:
    """Return the mean seconds that an algorithm takes for a proposal, over a whole search."""
    scores = work.trials
    if work.algorithm == "surrogate":
        # A fit to n scores costs n^3 / 3, a prediction n^2; the means over the search are of n^2
        # a third, and of n^3 a quarter, of those at its end.
        factor = KEPT * scores**2 / 3 + scores**3 / 12
        drawing = SURROGATE_SECONDS_PER_PAIR * work.searched_names**2
        return SURROGATE_SECONDS + drawing + FACTOR_SECONDS * factor
    if work.algorithm == "gaussian-process":
        return GAUSSIAN_PROCESS_SECONDS * scores / 2
    return 0.0


def ranking_seconds(work: Work) -> float:
    """Return the seconds that an algorithm takes before its first proposal."""
    if work.algorithm != "ensemble-first":
        return 0.0
    ranked = min(RANKED, work.mixtures or RANKED)
    return RANKED_SECONDS * ranked * work.units * work.evaluated_tokens


def ensemble_seconds(work: Work) -> float:
    """Return the seconds of one mixture's ensemble of the units' token probabilities."""
    each = ENSEMBLE_SECONDS + ENSEMBLE_SECONDS_PER_UNIT * work.units
    return each * work.evaluated_tokens
