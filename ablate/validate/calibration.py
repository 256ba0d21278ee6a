"""From proxies to predictions: the trained loss of a target, with a held-out error and intervals.

    n trained mixtures;  features name -> [n], of which merged, ensemble and members' losses are
    proxies and size (log number of partitions), tokens (log trained tokens) and text/<partition>
    (that partition's tokens) are not

Merged and trained losses are close to linear in each other, within one size more than across sizes
(`ablate.validate.regressions` holds the candidates). What a proxy misses, it misses alike wherever
a partition takes part: a small effect of each partition's text, shrunk, puts that right. The model is chosen by its left-out error,
which flatters whatever wins; so the errors reported are of the choice as a whole: for every mixture
the model and its penalty are chosen anew without it (Varma and Simon 2006; Stone 1974).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ablate.validate.held_out import (
    Errors,
    HeldOut,
    Prediction,
    predicted,
    root_mean_square,
    shortened,
)
from ablate.validate.regressions import (
    CHOICE,
    TEXT,
    Array,
    Fits,
    Model,
    Rows,
    all_but_one,
    candidates,
    fit_rows,
    stacked,
)

Features = Mapping[str, npt.ArrayLike]

LEAST_TO_CALIBRATE = 7
"""Mixtures below which nothing is fitted: no fold of one less could judge more than the mean."""
ARRAYS = ("centre", "width", "slope", "directions", "variances", "standard")


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """One model's own leave-one-out errors, nats per token; not nested."""

    mean_absolute: float
    root_mean_square: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Fitted:
    """The chosen model of one target, fitted to n mixtures.

    It uses the features `columns` (k of them): centred by `centre`, divided by `width`, times
    `slope` [k], plus `intercept`. Leverages are by r `directions` [r, k] with `variances` [r], and
    by the `prior` in all others, as in `Fits`: r is below n, however many columns there are.
    `standard` [n] are standardised left-out residuals in nats, whose root mean square is the
    noise's `scale`; `freedom` is n minus the trace of the hat matrix and the charge for the choice;
    `unseen` is the variance over the noise's that each squared token adds of a partition that no
    trained mixture has. `table` has every candidate that could be judged; `held_out` the nested
    predictions.
    """

    model: str
    columns: tuple[str, ...]
    centre: Array
    width: Array
    slope: Array
    intercept: float
    directions: Array
    variances: Array
    prior: float
    standard: Array
    freedom: float
    unseen: float
    table: dict[str, LeftOut]
    held_out: HeldOut

    @property
    def scale(self) -> float:
        """Return the standard deviation of the noise, nats per token."""
        return float(root_mean_square(self.standard))

    @property
    def tells(self) -> bool:
        """Return whether it predicts better than the mean does, of mixtures left out."""
        return bool(self.columns) and self.held_out.tells

    def errors(self, level: float = 0.95) -> Errors:
        """Return the nested held-out errors of the choice, and its intervals' coverage."""
        return self.held_out.errors(level)

    def predict(self, features: Features, level: float = 0.95) -> Prediction:
        """Return predicted trained losses of mixtures with `features` [m].

        Raises ValueError for a feature that is missing, not [m] or not finite, or a bad level.
        """
        mean, leverage = self.mean_and_leverage(features)
        return predicted(mean, self.scale, leverage, self.freedom, level)

    def belief(self, features: Features) -> tuple[Array, Array, float]:
        """Return mean [m] and covariance [m, m] of the noiseless loss, and the noise's variance."""
        mean, kernel = self.mean_and_kernel(features)
        return mean, self.scale**2 * kernel, self.scale**2

    def mean_and_leverage(self, features: Features) -> tuple[Array, Array]:
        """Return mean [m] in nats and leverage [m]; raises ValueError as `predict` does."""
        z, foreign = self._standardised(features)
        along = z @ self.directions.T
        leverage = along**2 @ (self.variances - self.prior) + self.prior * np.sum(z**2, axis=1)
        leverage = leverage + self.unseen * np.sum(foreign**2, axis=1)
        return self.intercept + z @ self.slope, 1 / len(self.standard) + leverage

    def mean_and_kernel(self, features: Features) -> tuple[Array, Array]:
        """Return mean [m] and kernel [m, m]: covariance of the mean over the noise's variance.

        Its diagonal is the leverage. Raises ValueError as `predict` does.
        """
        z, foreign = self._standardised(features)
        along = z @ self.directions.T
        kernel = along * (self.variances - self.prior) @ along.T + self.prior * z @ z.T
        kernel = kernel + self.unseen * foreign @ foreign.T
        return self.intercept + z @ self.slope, 1 / len(self.standard) + kernel

    def _standardised(self, features: Features) -> tuple[Array, Array]:
        """Return the columns [m, k], and the text [m, j] of partitions that were never trained."""
        checked = checked_features(features)
        count = len(next(iter(checked.values()))) if checked else 0
        for name in self.columns:  # a partition that none of these mixtures has
            if name.startswith(TEXT):
                checked.setdefault(name, np.zeros(count))
        missing = sorted(set(self.columns) - checked.keys())
        if missing or not checked:
            raise ValueError(
                f"features must have {', '.join(self.columns) or 'one array'} for the model "
                f"'{self.model}', got {', '.join(sorted(checked)) or 'none'}; add the missing ones"
            )
        foreign = [n for n in checked if n.startswith(TEXT) and n not in self.columns]
        z = (stacked(checked, self.columns, count) - self.centre) / self.width
        return z, stacked(checked, foreign, count)

    def to_json(self) -> dict[str, Any]:
        """Return the fit, and its held-out errors for the reader."""
        arrays = {name: getattr(self, name).tolist() for name in ARRAYS}
        return {
            "model": self.model,
            "columns": list(self.columns),
            "intercept": self.intercept,
            "prior": self.prior,
            "freedom": self.freedom,
            "unseen": self.unseen,
            **arrays,
            "table": {name: vars(each) for name, each in self.table.items()},
            "held_out": self.held_out.to_json(),
            "errors": self.errors().to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Fitted:
        """Return the fit that `to_json` wrote; raises KeyError or TypeError for other values."""
        arrays = {name: np.asarray(body[name], dtype=float) for name in ARRAYS}
        # A model without columns writes its empty matrix as an empty list.
        size = len(arrays["variances"]), len(body["columns"])
        arrays["directions"] = arrays["directions"].reshape(size)
        return cls(
            model=body["model"],
            columns=tuple(body["columns"]),
            intercept=float(body["intercept"]),
            prior=float(body["prior"]),
            freedom=float(body["freedom"]),
            unseen=float(body["unseen"]),
            table={name: LeftOut(**each) for name, each in body["table"].items()},
            held_out=HeldOut.from_json(body["held_out"]),
            **arrays,
        )


def calibrate(features: Features, trained: npt.ArrayLike) -> Fitted:
    """Return the best prediction of trained losses [n] from `features`, name -> [n].

    Any feature may be absent or constant; with none the prediction is the mean. Raises ValueError
    under `LEAST_TO_CALIBRATE`, and for arrays that do not fit together or hold values not finite.
    """
    y = np.asarray(trained, dtype=float)
    if y.ndim != 1 or len(y) < LEAST_TO_CALIBRATE or not np.isfinite(y).all():
        raise ValueError(
            f"trained must be [mixtures], {LEAST_TO_CALIBRATE} finite losses at least, "
            f"got shape {y.shape}; train more mixtures"
        )
    given = checked_features(features, len(y))
    models, fits = _fits(given, y, np.arange(len(y))[None])
    chosen = int(np.argmin([fit.error[0] for fit in fits]))
    fit, model = fits[chosen], models[chosen]
    varies = fit.variances[0] > 0
    return Fitted(
        model=model.name,
        columns=model.columns,
        centre=fit.centre[0],
        width=fit.width[0],
        slope=fit.slope[0],
        intercept=float(fit.intercept[0]),
        directions=fit.directions[0, varies],
        variances=fit.variances[0, varies],
        prior=float(fit.prior[0]),
        standard=fit.standard[0],
        freedom=float(fit.freedom[0]),
        unseen=float(fit.unseen[0]),
        table=_table(models, fits),
        held_out=_nested(given, y),
    )


def checked_features(features: Features, count: int | None = None) -> dict[str, Array]:
    """Return the features as arrays of one length; raises ValueError for others."""
    arrays = {name: np.asarray(values, dtype=float) for name, values in features.items()}
    for name, values in arrays.items():
        count = values.size if count is None else count
        if values.shape != (count,) or not np.isfinite(values).all():
            raise ValueError(
                f"features must be finite and [{count}], got shape {values.shape} for '{name}', "
                "or NaN in it; leave those mixtures or that feature out"
            )
    return arrays


def _fits(
    features: Mapping[str, Array], trained: Array, rows: Rows
) -> tuple[list[Model], list[Fits]]:
    """Return the candidates for subsets of that many rows, each fitted to every subset."""
    models = candidates(features, rows.shape[1])
    charge = CHOICE if len(models) > 1 else 0
    columns = [stacked(features, model.columns, len(trained)) for model in models]
    return models, [
        fit_rows(model, each, trained, rows, charge)
        for model, each in zip(models, columns, strict=True)
    ]


def _nested(features: Mapping[str, Array], trained: Array) -> HeldOut:
    """Return each mixture's prediction by the choice made among the others."""
    count = len(trained)
    models, fits = _fits(features, trained, all_but_one(count))
    chosen = np.argmin([fit.error for fit in fits], axis=0), np.arange(count)
    points = [
        fit.at(stacked(features, model.columns, count))
        for model, fit in zip(models, fits, strict=True)
    ]
    return HeldOut(
        trained=trained,
        mean=np.stack([mean for mean, _ in points])[chosen],
        leverage=np.stack([leverage for _, leverage in points])[chosen],
        freedom=np.stack([fit.freedom for fit in fits])[chosen],
        standard=shortened(np.stack([fit.standard for fit in fits])[chosen]),
    )


def _table(models: list[Model], fits: list[Fits]) -> dict[str, LeftOut]:
    """Return each model's errors; one that a single row decides cannot be judged without it."""
    residuals = {
        model.name: fit.left_out[0]
        for model, fit in zip(models, fits, strict=True)
        if np.isfinite(fit.left_out[0]).all()
    }
    return {
        name: LeftOut(
            mean_absolute=float(np.mean(np.abs(each))),
            root_mean_square=float(root_mean_square(each)),
        )
        for name, each in residuals.items()
    }
