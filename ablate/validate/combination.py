"""A weighted sum of calibrated targets: the objective, predicted with its own error.

    w_d        weight of target d           u_d[i]  its standardised left-out residual of mixture i
    scale      root mean square over i of sum_d w_d u_d[i]
    kernel     sum_d a_d kernel_d,  a_d in proportion to |w_d| scale_d,  sum_d a_d = 1

Targets share their mixtures, so a training that turned out badly is bad on many of them: errors
are summed before they are squared, never taken as independent. Where all targets use the same
columns this is the regression of the summed losses; else the kernel is a mean of the targets' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ablate.validate.calibration import Features, Fitted
from ablate.validate.held_out import Array, Errors, HeldOut, Prediction, predicted, root_mean_square


@dataclass(frozen=True, kw_only=True, eq=False)
class Combination:
    """The weighted sum of targets, `weights` without zeros.

    `shares` are each target's part in the leverage; `scale` is the standard deviation of the
    sum's noise in nats, `freedom` its degrees of freedom; `held_out` the nested predictions.
    """

    fits: dict[str, Fitted]
    weights: dict[str, float]
    shares: dict[str, float]
    scale: float
    freedom: float
    held_out: HeldOut

    @property
    def tells(self) -> bool:
        """Return whether it predicts better than the mean does, of mixtures left out."""
        return any(fit.columns for fit in self.fits.values()) and self.held_out.tells

    def errors(self, level: float = 0.95) -> Errors:
        """Return the nested held-out errors of the sum, and its intervals' coverage."""
        return self.held_out.errors(level)

    def predict(self, features: Mapping[str, Features], level: float = 0.95) -> Prediction:
        """Return predicted objectives of m mixtures from features[target][name] [m].

        Raises ValueError for a target or feature that is missing or does not fit.
        """
        self._check(features)
        found = {name: fit.mean_and_leverage(features[name]) for name, fit in self.fits.items()}
        mean, leverage = self._summed(found)
        return predicted(mean, self.scale, leverage, self.freedom, level)

    def belief(self, features: Mapping[str, Features]) -> tuple[Array, Array, float]:
        """Return mean [m], covariance [m, m] of the noiseless objective, the noise's variance."""
        self._check(features)
        found = {name: fit.mean_and_kernel(features[name]) for name, fit in self.fits.items()}
        mean, kernel = self._summed(found)
        return mean, self.scale**2 * kernel, self.scale**2

    def _check(self, features: Mapping[str, Features]) -> None:
        missing = sorted(self.fits.keys() - features.keys())
        if missing:
            raise ValueError(
                f"features must be given for every target, got none for {', '.join(missing)}; "
                "add them"
            )

    def _summed(self, found: Mapping[str, tuple[Array, Array]]) -> tuple[Array, Array]:
        """Return the weighted sum of the means and the shared mean of leverages or kernels."""
        means = sum(self.weights[name] * mean for name, (mean, _) in found.items())
        spreads = sum(self.shares[name] * spread for name, (_, spread) in found.items())
        return np.asarray(means), np.asarray(spreads)


def combine(fits: Mapping[str, Fitted], weights: Mapping[str, float]) -> Combination:
    """Return the predictor of sum_d weights[d] loss[d], nats per token.

    All fits must be of the same mixtures in the same order; targets without weight are left out.
    Raises ValueError for a weighted target that was not fitted, no weight at all, or fits of
    unlike numbers of mixtures.
    """
    kept = {name: float(weight) for name, weight in sorted(weights.items()) if weight}
    _check(fits, kept)
    used = {name: fits[name] for name in kept}
    factors = np.array(list(kept.values()))
    standard = np.stack([fit.standard for fit in used.values()])
    shares = _shares(factors, root_mean_square(standard)[:, None])[:, 0]
    return Combination(
        fits=used,
        weights=kept,
        shares=dict(zip(kept, shares.tolist(), strict=True)),
        scale=float(root_mean_square(factors @ standard)),
        freedom=float(shares @ [fit.freedom for fit in used.values()]),
        held_out=_summed([fit.held_out for fit in used.values()], factors),
    )


def _check(fits: Mapping[str, Fitted], weights: Mapping[str, float]) -> None:
    missing = sorted(weights.keys() - fits.keys())
    if missing or not weights:
        raise ValueError(
            f"every weighted target must be calibrated, got no fit of {', '.join(missing) or 'any'};"
            " calibrate it or leave out its weight"
        )
    counts = {name: len(fits[name].standard) for name in weights}
    if len(set(counts.values())) > 1:
        raise ValueError(f"fits must share their mixtures, got {counts}; calibrate them together")


def _shares(factors: Array, scales: Array) -> Array:
    """Return each target's share [targets, b] from its scale [targets, b]; even if all are zero."""
    parts = np.abs(factors)[:, None] * scales
    total = parts.sum(axis=0)
    even = np.full(parts.shape, 1 / len(factors))
    return np.asarray(np.divide(parts, total, out=even, where=total > 0))


def _summed(parts: list[HeldOut], factors: Array) -> HeldOut:
    """Return the held-out predictions of the sum, each fold's scale from its own residuals."""
    shares = _shares(factors, np.stack([part.scale for part in parts]))
    return HeldOut(
        trained=factors @ np.stack([part.trained for part in parts]),
        mean=factors @ np.stack([part.mean for part in parts]),
        leverage=(shares * np.stack([part.leverage for part in parts])).sum(axis=0),
        freedom=(shares * np.stack([part.freedom for part in parts])).sum(axis=0),
        standard=np.einsum("d,dij->ij", factors, np.stack([part.standard for part in parts])),
    )
