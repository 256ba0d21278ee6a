"""What was predicted of trained mixtures without them, and how well.

n mixtures;  mean[i], scale[i], leverage[i], freedom[i] of the fit without mixture i
interval  mean ± t(freedom) scale sqrt(1 + leverage)         (a new observation's, Student 1908)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from ablate.validate.statistics import Estimate

Array = npt.NDArray[np.float64]

ROUNDING = 1e-9
"""R² up to which folds are taken to predict the mean of the others, which gives zero."""
DIGITS = 6
"""Significant digits kept of residuals within folds: n² numbers of which only the scale counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Predictions of n mixtures, each by what was chosen and fitted without it.

    `trained` and `mean` [n] in nats; `leverage` and `freedom` [n]; `standard` [n, n - 1] the
    standardised left-out residuals, within each of the n fits, of the mixtures it was fitted to.
    """

    trained: Array
    mean: Array
    leverage: Array
    freedom: Array
    standard: Array

    @property
    def residual(self) -> Array:
        """Return trained minus predicted losses [n], nats per token."""
        return self.trained - self.mean

    @property
    def scale(self) -> Array:
        """Return each fit's standard deviation of the noise [n], nats."""
        return root_mean_square(self.standard)

    @property
    def r2(self) -> float | None:
        """Return R² against the mean of the other mixtures, so that predicting it gives zero.

        None where the trained losses do not vary.
        """
        if np.ptp(self.trained) == 0:
            return None
        count = len(self.trained)
        around = (self.trained - self.trained.mean()) * count / (count - 1)
        return float(1 - np.sum(self.residual**2) / np.sum(around**2))

    @property
    def tells(self) -> bool:
        """Return whether mixtures left out are predicted better than by the mean of the others.

        Where they are not, nothing is to be ranked by the predictions: the mean of the others falls
        as the loss left out rises, so it ranks the mixtures backwards by construction.
        """
        return self.r2 is not None and self.r2 > ROUNDING

    def half_width(self, level: float) -> Array:
        """Return half the width [n] of the intervals of `level`, nats."""
        return half_width(self.scale, self.leverage, self.freedom, level)

    def errors(self, level: float = 0.95) -> Errors:
        """Return how well the mixtures were predicted, and how often the intervals held them.

        R² is that of `r2`.
        """
        within = np.abs(self.residual) <= self.half_width(level)
        return Errors(
            mean_absolute=float(np.mean(np.abs(self.residual))),
            root_mean_square=float(root_mean_square(self.residual)),
            r2=self.r2,
            coverage=wilson(int(within.sum()), len(self.trained)),
            level=level,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the value as lists of numbers."""
        return {name: values.tolist() for name, values in vars(self).items()}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> HeldOut:
        """Return the value that `to_json` wrote; raises TypeError for other fields."""
        return cls(**{name: np.asarray(values, dtype=float) for name, values in body.items()})


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Held-out errors in nats per token, and the share of mixtures inside intervals of `level`.

    The coverage's own 0.95 interval is Wilson's.
    """

    mean_absolute: float
    root_mean_square: float
    r2: float | None
    coverage: Estimate
    level: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields, the coverage as [share, lower, upper]."""
        return {**vars(self), "coverage": self.coverage.to_json()}


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Predicted trained losses `mean` [m] with intervals [`lower`, `upper`], nats per token.

    The interval is of what a new mixture would give, its noise included: one training, or the mean
    of so many as were fitted.
    """

    mean: Array
    lower: Array
    upper: Array


def predicted(
    mean: Array, scale: float, leverage: Array, freedom: float, level: float
) -> Prediction:
    """Return the prediction of means [m] with leverages [m]; raises ValueError for a bad level."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}; use 0.95")
    half = half_width(scale, leverage, freedom, level)
    return Prediction(mean=mean, lower=mean - half, upper=mean + half)


def half_width(
    scale: Array | float, leverage: Array, freedom: Array | float, level: float
) -> Array:
    """Return t(freedom) scale sqrt(1 + leverage), half an interval of one new training."""
    quantile = special.stdtrit(freedom, (1 + level) / 2)
    return np.asarray(quantile * scale * np.sqrt(1 + leverage), dtype=float)


def wilson(hits: int, count: int, level: float = 0.95) -> Estimate:
    """Return the share of hits with Wilson's score interval (Wilson 1927)."""
    z = float(special.ndtri((1 + level) / 2))
    share = hits / count
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return Estimate(
        value=share, lower=max(0.0, float(centre - half)), upper=min(1.0, float(centre + half))
    )


def root_mean_square(values: Array) -> Array:
    """Return the root of the mean square over the last axis."""
    return np.asarray(np.sqrt(np.mean(values**2, axis=-1)))


def shortened(values: Array) -> Array:
    """Return the values at `DIGITS` significant digits."""
    exponent = np.floor(np.log10(np.abs(values), where=values != 0, out=np.zeros(values.shape)))
    factor = 10.0 ** (DIGITS - 1 - exponent)
    return np.asarray(np.round(values * factor) / factor)
