"""Predictions of trained losses for every scored mixture, from what `validate` calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablate.search.table import Predicted
from ablate.validate.calibration import Fitted
from ablate.validate.combination import Combination, combine
from ablate.validate.held_out import Prediction
from ablate.validate.regressions import COVARIATES, TEXT
from ablate.validate.subjects import OBJECTIVE, Subject, features


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """The calibrated model of each domain; `domains[name]` is the fingerprint of its text."""

    domains: Mapping[str, str]
    fits: Mapping[str, Fitted]

    @property
    def used(self) -> frozenset[str]:
        """Return the proxies that a mixture must have for its predictions."""
        names = {name for fit in self.fits.values() for name in fit.columns}
        return frozenset(n for n in names - set(COVARIATES) if not n.startswith(TEXT))

    def objective(self, weights: Mapping[str, float]) -> Combination | None:
        """Return what predicts the objective of these weights.

        None where a domain has no fit, and where its predictions of mixtures left out are no better
        than their mean.
        """
        if not set(weights) <= set(self.fits):
            return None
        whole = combine({name: self.fits[name] for name in weights}, weights)
        return whole if whole.tells else None

    def predict(
        self, of: Sequence[Subject], weights: Mapping[str, float]
    ) -> dict[str, dict[str, Predicted]]:
        """Return predictions by mixture key and target: every calibrated domain, `objective`.

        Mixtures that lack a proxy which the models use have none; the objective is there when
        `objective` has a model of it.
        """
        known = [one for one in of if self.used <= one.proxies.keys()]
        if not known:
            return {}
        columns = {name: features(known, name) for name in self.fits}
        found = {name: fit.predict(columns[name]) for name, fit in self.fits.items()}
        whole = self.objective(weights)
        if whole is not None:
            found[OBJECTIVE] = whole.predict({name: columns[name] for name in weights})
        return {
            one.mixture.key(): {name: _at(values, place) for name, values in found.items()}
            for place, one in enumerate(known)
        }

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        fits = {name: fit.to_json() for name, fit in self.fits.items()}
        return {"domains": dict(self.domains), "fits": fits}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Predictor:
        """Return the predictor that `to_json` wrote; raises KeyError or ValueError for others."""
        return cls(
            domains=body["domains"],
            fits={name: Fitted.from_json(fit) for name, fit in body["fits"].items()},
        )


def _at(values: Prediction, place: int) -> Predicted:
    return Predicted(
        float(values.mean[place]), float(values.lower[place]), float(values.upper[place])
    )
