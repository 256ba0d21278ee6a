"""Predictors of a mixture's loss from scored mixtures: one file, one function of arrays.

`PREDICTORS[name](weights, losses, rng_seed, covariates=None)` fits one; its `predict(weights,
covariates)` returns mean and standard error. `choose` picks the one that foretells left-out rows
best. For subsets, whose weights sum to one, pass the log of the number of members (or of their
tokens) as a covariate: the proportions alone do not say how large a subset is.
"""

from __future__ import annotations

from ablate.search.predictors.choose import AUTOMATIC, PREDICTORS, Candidate, choose
from ablate.search.predictors.predictor import Fit, Predictor

__all__ = ["AUTOMATIC", "PREDICTORS", "Candidate", "Fit", "Predictor", "choose"]
