"""Baselines that look at no proxy: regressions of trained losses on the mixtures themselves.

Each mixture's loss is predicted from the other trained mixtures, so nothing sees its own answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ablate.mixture import Mixture
from ablate.search.predictors import PREDICTORS
from ablate.search.predictors.mixing_law import left_out

DATAMODELS = {"datamodel": "linear", "mixing_law": "mixing-law"}
LEAST_ROWS = 7
"""Of fewer the rest tell nothing: a shrunken fit foretells their mean, and ranks the wrong way."""


def left_out_losses(
    mixtures: Sequence[Mixture],
    tokens: Sequence[int],
    trained: Mapping[str, np.ndarray],
    *,
    rng_seed: int,
    on_progress: Callable[[int], None],
) -> dict[str, dict[str, np.ndarray]]:
    """Return loss[datamodel][target] [n] of n mixtures, each foretold by the others.

    The linear datamodel (Ilyas et al., arXiv 2202.00622) and the mixing law (arXiv 2403.16952) on
    proportions and the log of trained tokens. Empty with fewer than `LEAST_ROWS` mixtures.
    `on_progress` hears the number of targets done.
    """
    if len(mixtures) < LEAST_ROWS:
        return {}
    names = sorted({name for mixture in mixtures for name in mixture.partitions})
    weights = np.array([[dict(one.weights).get(name, 0.0) for name in names] for one in mixtures])
    size = np.log(np.asarray(tokens, dtype=float))[:, None]
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in DATAMODELS}
    for done, (target, losses) in enumerate(trained.items(), start=1):
        for name, kind in DATAMODELS.items():
            found[name][target] = _left_out(kind, weights, size, losses, rng_seed)
        on_progress(done)
    return found


def _left_out(
    kind: str, weights: np.ndarray, covariates: np.ndarray, losses: np.ndarray, rng_seed: int
) -> np.ndarray:
    if kind == "mixing-law":  # the same as below, all fits at once
        return left_out(weights, losses, rng_seed, covariates=covariates)
    found = np.empty(len(losses))
    for place in range(len(losses)):
        others = np.arange(len(losses)) != place
        fitted = PREDICTORS[kind](
            weights[others], losses[others], rng_seed, covariates=covariates[others]
        )
        mean, _ = fitted.predict(weights[place, None], covariates[place, None])
        found[place] = mean[0]
    return found
