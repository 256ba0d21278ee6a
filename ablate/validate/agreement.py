"""Agreement: do proxies predict truly trained models, on this corpus, and how well?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ablate.progress import bar
from ablate.report.figures import proxy_against_trained
from ablate.search.candidates import ENSEMBLE, LOGIT_ENSEMBLE
from ablate.validate.calibration import LEAST_TO_CALIBRATE, Fitted, calibrate
from ablate.validate.combination import Combination, combine
from ablate.validate.datamodels import left_out_losses
from ablate.validate.headline import (
    CALIBRATED,
    error_line,
    first_line,
    too_few_line,
    untold_line,
)
from ablate.validate.predictor import Predictor
from ablate.validate.statistics import AgreementWithin, Estimate, agree, agree_over, agree_within
from ablate.validate.subjects import BASELINES, MERGE, OBJECTIVE, Subject, fitted_features

Estimates = Mapping[str, Estimate]
LEVEL = 0.95


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One mixture with the losses of its trainings, `losses[replicate][target]`.

    Each was trained on `tokens` tokens.
    """

    subject: Subject
    tokens: int
    losses: tuple[Mapping[str, float], ...]
    control: bool = False

    def mean(self, target: str) -> float:
        """Return the mean trained loss over the replicates, nats per token."""
        return float(np.mean([one[target] for one in self.losses]))


@dataclass(frozen=True, kw_only=True)
class TargetAgreement:
    """One proxy against trained losses of one target: over all mixtures, and within sizes."""

    overall: Estimates
    within: AgreementWithin


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Proxies against trained models over `trained` mixtures.

    `targets[name]` is objective, domain (text that no partition is made of) or partition (held-out
    split of one). `tables[target][proxy]`; `summary[proxy]` has means over in_domain and outside
    targets within sizes, and the objective; the proxy `calibrated`, there where the objective's
    `tells`, is the prediction of each mixture by what was fitted without it. `noise_floor[target]`
    compares two trainings of the same mixtures; empty without replicates. `mark` is the fingerprint
    of what trained losses depend on beside mixture and text, `domains[name]` that of a text.
    """

    targets: Mapping[str, str]
    weights: Mapping[str, float]
    trained: tuple[Trained, ...]
    tables: Mapping[str, Mapping[str, TargetAgreement]]
    summary: Mapping[str, Mapping[str, Estimates]]
    noise_floor: Mapping[str, Estimates]
    fits: Mapping[str, Fitted]
    objective_fit: Combination | None
    mark: str = ""
    domains: Mapping[str, str] = field(default_factory=dict)

    @property
    def proxies(self) -> tuple[str, ...]:
        """Return the compared proxies, the study's merge first, then baselines, then `calibrated`."""
        return tuple(self.summary)

    @property
    def calibrated(self) -> dict[str, Fitted | Combination]:
        """Return what was fitted of each target, the objective first; empty with too few mixtures.

        Only what `tells` is used to predict.
        """
        whole = self.objective_fit
        return {**({} if whole is None else {OBJECTIVE: whole}), **self.fits}

    def spread(self, target: str) -> float:
        """Return how far the trained losses of a target lie apart, nats per token."""
        losses = [one.mean(target) for one in self.trained]
        return max(losses) - min(losses)

    @property
    def headline(self) -> str:
        """Return the answer in a few sentences: does the merge predict, and beat the baselines?"""
        first = first_line(self.summary, [one.subject.size for one in self.trained])
        if self.objective_fit is None:
            return f"{first} {too_few_line(len(self.trained), LEAST_TO_CALIBRATE)}"
        if not self.objective_fit.tells:
            return f"{first} {untold_line(self.objective_fit.held_out.r2)}"
        errors = self.objective_fit.errors(LEVEL)
        ranks = self.tables[OBJECTIVE][CALIBRATED].overall["spearman"].value
        said = error_line(
            errors.root_mean_square,
            errors.coverage,
            self.spread(OBJECTIVE),
            ranks,
            max(len(one.losses) for one in self.trained),
        )
        return f"{first} {said}"

    @property
    def predictor(self) -> Predictor | None:
        """Return the calibrated predictor; None where it tells nothing of the objective."""
        if self.objective_fit is None or not self.objective_fit.tells:
            return None
        return Predictor(domains=self.domains, fits=self.fits)

    def plot(self, target: str = OBJECTIVE, proxy: str = MERGE) -> Any:
        """Return a plotly figure: a proxy against the trained losses of a target, by size.

        Raises KeyError for a target that was not scored, or a proxy that not all mixtures have.
        """
        shared = set.intersection(*(set(one.subject.proxies) for one in self.trained))
        for name, known in ((target, set(self.targets)), (proxy, shared)):
            if name not in known:
                raise KeyError(f"'{name}' must be one of {', '.join(sorted(known))}")
        return proxy_against_trained(self.to_json(), target, proxy)

    def to_json(self) -> dict[str, Any]:
        """Return plain values: what `agreement.json` holds."""
        return {
            "mark": self.mark,
            "headline": self.headline,
            "targets": dict(self.targets),
            "weights": dict(self.weights),
            "domains": dict(self.domains),
            "mixtures": self._rows(),
            "agreement": {
                target: {name: _table(found) for name, found in by_proxy.items()}
                for target, by_proxy in self.tables.items()
            },
            "summary": {
                name: {kind: _plain(found) for kind, found in kinds.items()}
                for name, kinds in self.summary.items()
            },
            "noise_floor": {t: _plain(f) for t, f in self.noise_floor.items()} or None,
            "calibration": self._calibration(),
            "predictor": None if self.predictor is None else self.predictor.to_json(),
        }

    def _rows(self) -> list[dict[str, Any]]:
        """Return one row for each training, with the prediction of it that was made without it.

        Targets of which nothing better than the mean is predicted have none.
        """
        told = {target: fit for target, fit in self.calibrated.items() if fit.tells}
        held_out = {target: _held_out(fit) for target, fit in told.items()}
        return [
            {
                "name": one.subject.name,
                "partitions": list(one.subject.mixture.partitions),
                "weights": [weight for _, weight in one.subject.mixture.weights],
                "size": one.subject.size,
                "tokens": one.tokens,
                "replicate": number,
                "control": one.control,
                "trained": dict(losses),
                "proxies": {name: dict(values) for name, values in one.subject.proxies.items()},
                "predicted": {target: rows[place] for target, rows in held_out.items()},
            }
            for place, one in enumerate(self.trained)
            for number, losses in enumerate(one.losses)
        ]

    def _calibration(self) -> dict[str, Any]:
        found = {}
        for target, fit in self.fits.items():
            models = {name: vars(left) for name, left in fit.table.items()}
            found[target] = {"model": fit.model, **_errors(fit), "models": models}
        if self.objective_fit is not None:
            used = sorted({self.fits[name].model for name in self.weights})
            found[OBJECTIVE] = {"model": ", ".join(used), **_errors(self.objective_fit)}
        return found


def assess(
    trained: Sequence[Trained],
    kinds: Mapping[str, str],
    weights: Mapping[str, float],
    rng_seed: int,
) -> Agreement:
    """Return the agreement of every proxy that all `trained` mixtures have.

    `kinds[domain]` is domain or heldout; `weights` are the objective's. With fewer than
    `LEAST_TO_CALIBRATE` nothing is calibrated.
    """
    targets = {OBJECTIVE: OBJECTIVE} | {
        name: "domain" if kind == "domain" else "partition" for name, kind in kinds.items()
    }
    sizes = [one.subject.size for one in trained]
    truth = _truth(trained, targets)
    guess = {
        name: {t: np.array([one.subject.proxies[name][t] for one in trained]) for t in targets}
        for name in [*_proxy_names(trained), *BASELINES]
    } | _datamodels(trained, truth, rng_seed)
    guess["tokens"] = dict.fromkeys(
        targets, -np.array([one.tokens for one in trained], dtype=float)
    )
    fits, whole = fit_trained(trained, kinds, weights)
    if whole is not None and whole.tells:
        guess[CALIBRATED] = {OBJECTIVE: _ranking(whole)} | {n: _ranking(f) for n, f in fits.items()}
    tables = {
        t: {
            name: TargetAgreement(
                overall=agree(values[t], truth[t], rng_seed=rng_seed),
                within=agree_within(values[t], truth[t], sizes, rng_seed=rng_seed),
            )
            for name, values in guess.items()
        }
        for t in targets
    }
    return Agreement(
        targets=targets,
        weights=weights,
        trained=tuple(trained),
        tables=tables,
        summary={
            name: _summary({t: tables[t][name].within for t in targets}, targets) for name in guess
        },
        noise_floor=_noise_floor(trained, targets, rng_seed),
        fits=fits,
        objective_fit=whole,
    )


def _ranking(fit: Fitted | Combination) -> np.ndarray:
    """Return what mixtures left out are ranked by [n]: nothing where the mean predicts as well."""
    held_out = fit.held_out
    return held_out.mean if fit.tells else np.full(len(held_out.trained), held_out.trained.mean())


def _datamodels(
    trained: Sequence[Trained], truth: Mapping[str, np.ndarray], rng_seed: int
) -> dict[str, dict[str, np.ndarray]]:
    with bar("baselines", len(truth)) as advance:
        return left_out_losses(
            [one.subject.mixture for one in trained],
            [one.tokens for one in trained],
            truth,
            rng_seed=rng_seed,
            on_progress=lambda done: advance(done, ""),
        )


def _proxy_names(trained: Sequence[Trained]) -> list[str]:
    shared = set.intersection(*(set(one.subject.proxies) for one in trained)) - set(BASELINES)
    first = [name for name in (MERGE, ENSEMBLE) if name in shared]
    last = [LOGIT_ENSEMBLE] if LOGIT_ENSEMBLE in shared else []
    return [*first, *sorted(shared - {*first, *last}), *last]


def fit_trained(
    trained: Sequence[Trained], domains: Iterable[str], weights: Mapping[str, float]
) -> tuple[dict[str, Fitted], Combination | None]:
    """Return the calibrated model of each domain and of the objective, whose weights these are.

    Nothing and None with fewer than `LEAST_TO_CALIBRATE`.
    """
    if len(trained) < LEAST_TO_CALIBRATE:
        return {}, None
    subjects = [one.subject for one in trained]
    truth = _truth(trained, domains)
    fits = {
        name: calibrate(fitted_features(subjects, name), losses) for name, losses in truth.items()
    }
    return fits, combine({name: fits[name] for name in weights}, weights)


def _truth(trained: Sequence[Trained], targets: Iterable[str]) -> dict[str, np.ndarray]:
    return {t: np.array([one.mean(t) for one in trained]) for t in targets}


def _summary(
    within: Mapping[str, AgreementWithin], targets: Mapping[str, str]
) -> dict[str, Estimates]:
    """Return the mean within-size agreement over the targets of each kind."""
    groups = {"in_domain": "partition", "outside": "domain", "objective": "objective"}
    found: dict[str, Estimates] = {}
    for label, kind in groups.items():
        of = [within[target] for target, its in targets.items() if its == kind]
        if of:
            found[label] = agree_over(of)
    every = [within[target] for target, its in targets.items() if its != "objective"]
    return {**found, "domains": agree_over(every)}


def _noise_floor(
    trained: Sequence[Trained], targets: Mapping[str, str], rng_seed: int
) -> dict[str, Estimates]:
    twice = [one for one in trained if len(one.losses) > 1]
    if not twice:
        return {}
    sizes = [one.subject.size for one in twice]
    return {
        target: agree_within(
            [one.losses[0][target] for one in twice],
            [one.losses[1][target] for one in twice],
            sizes,
            rng_seed=rng_seed,
        ).mean
        for target in targets
    }


def _plain(found: Estimates) -> dict[str, list[float | None]]:
    return {name: estimate.to_json() for name, estimate in found.items()}


def _table(found: TargetAgreement) -> dict[str, Any]:
    sizes = {str(size): _plain(values) for size, values in found.within.by_size.items()}
    return {"all": _plain(found.overall), "within": _plain(found.within.mean), "by_size": sizes}


def _held_out(fit: Fitted | Combination) -> list[list[float]]:
    """Return the prediction of each mixture made without it, [mean, lower, upper]."""
    mean, half = fit.held_out.mean, fit.held_out.half_width(LEVEL)
    rows: list[list[float]] = np.stack([mean, mean - half, mean + half], axis=1).tolist()
    return rows


def _errors(fit: Fitted | Combination) -> dict[str, Any]:
    errors = fit.errors(LEVEL)
    return {
        "held_out": {
            "mae": errors.mean_absolute,
            "rmse": errors.root_mean_square,
            "r2": errors.r2,
        },
        "coverage": errors.coverage.to_json(),
        "level": errors.level,
    }
