"""What is known of a mixture before anything is trained on it: proxies and baselines, by target.

A target is a scored domain or `objective`. Every proxy is smaller for a better mixture.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ablate.mixture import Mixture
from ablate.search.candidates import ENSEMBLE, LOGIT_ENSEMBLE
from ablate.search.objective import objective_value
from ablate.search.table import Trial
from ablate.validate.regressions import TEXT

OBJECTIVE = "objective"
MERGE, MEAN, LOWEST = "merge", "members_mean", "members_best"
BASELINES = (MEAN, "members_best", "members_worst", "seed", "tokens")

ByTarget = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One mixture: the tokens that its units were trained on, and `proxies[name][target]`."""

    mixture: Mixture
    tokens: int
    proxies: Mapping[str, ByTarget]

    @property
    def name(self) -> str:
        """Return its members with their weights where these are not equal."""
        weights = self.mixture.weights
        if len({round(weight, 9) for _, weight in weights}) == 1:
            return " + ".join(self.mixture.partitions)
        return " + ".join(f"{name} {weight:.3g}" for name, weight in weights)

    @property
    def size(self) -> int:
        """Return the number of partitions."""
        return self.mixture.size


class _Members:
    """The losses by target of seed and units, from which the baselines are made."""

    def __init__(self, trials: Sequence[Trial], weights: Mapping[str, float]) -> None:
        self.seed: ByTarget | None = None
        self._units: dict[str, list[ByTarget]] = {}
        self._failed: set[str] = set()
        for row in trials:
            losses = None if row.objective is None else with_objective(row.losses, weights)
            if row.candidate.kind == "seed":
                self.seed = losses
            elif row.candidate.kind == "unit" and losses is not None:
                self._units.setdefault(row.partitions[0], []).append(losses)
            elif row.candidate.kind == "unit":
                self._failed.add(row.partitions[0])

    def baselines(self, mixture: Mixture, tokens: int) -> dict[str, ByTarget] | None:
        """Return loss[baseline][target] of a mixture; `tokens` counts against the loss.

        None where the seed or one of the mixture's units has no score.
        """
        members = set(mixture.partitions)
        if self.seed is None or members & self._failed or not members <= self._units.keys():
            return None
        own = [losses for name in mixture.partitions for losses in self._units[name]]
        means = {name: _mean(self._units[name]) for name in mixture.partitions}
        targets = self.seed.keys()
        return {
            MEAN: {t: sum(w * means[name][t] for name, w in mixture.weights) for t in targets},
            LOWEST: {t: min(losses[t] for losses in own) for t in targets},
            "members_worst": {t: max(losses[t] for losses in own) for t in targets},
            "seed": self.seed,
            "tokens": dict.fromkeys(targets, -float(tokens)),
        }


def subjects(
    trials: Sequence[Trial],
    merges: Sequence[str],
    weights: Mapping[str, float],
    alone: Collection[str] = (),
) -> dict[str, Subject]:
    """Return every mixture of a table whose loss is a proxy, by its key.

    Those of which the seed or a unit has no score, because its trial failed, are left out.

    `merges` are the labels of the study's merges: the first one is the proxy `merge`, others have
    their label. The objective of a proxy is the weighted mean over domains, as for any model.
    `alone` are partitions whose only unit's model is a proxy too, not the trained model itself.
    """
    known = _Members(trials, weights)
    rows: dict[str, list[Trial]] = {}
    for row in trials:
        mixture = row.candidate.mixture
        if mixture is None or row.objective is None:
            continue
        unit = row.candidate.kind == "unit" and row.partitions[0] in alone
        if unit or row.candidate.kind == "proxy":
            rows.setdefault(mixture.key(), []).append(row)
    found = {}
    for key, same in rows.items():
        proxies = _proxies(same, merges)
        first = same[0].candidate
        if not proxies or first.mixture is None:
            continue
        baselines = known.baselines(first.mixture, first.tokens)
        if baselines is None:
            continue
        proxies |= _averaged_logits(same)
        merged = {name: with_objective(losses, weights) for name, losses in proxies.items()}
        found[key] = Subject(
            mixture=first.mixture, tokens=first.tokens, proxies={**merged, **baselines}
        )
    return found


def with_objective(losses: ByTarget, weights: Mapping[str, float]) -> dict[str, float]:
    """Return losses by domain with the objective beside them."""
    return {**losses, OBJECTIVE: objective_value(weights, losses)}


def features(of: Sequence[Subject], target: str) -> dict[str, np.ndarray]:
    """Return what a trained loss is predicted from, name -> [n].

    A proxy that any of the mixtures lacks is left out, so that all have the same features.
    `text/<partition>` are the tokens of each partition that any of them has.
    """
    parts = [dict(one.mixture.weights) for one in of]
    partitions = sorted({name for weights in parts for name in weights})
    names = [MERGE, ENSEMBLE, MEAN, LOWEST, *sorted(_others(of))]
    shared = [name for name in names if all(name in one.proxies for one in of)]
    return {
        **{name: np.array([one.proxies[name][target] for one in of]) for name in shared},
        "size": np.log([one.size for one in of]),
        "tokens": np.log([max(1, one.tokens) for one in of]),
        **{
            f"{TEXT}{name}": np.array(
                [
                    weights.get(name, 0.0) * one.tokens
                    for weights, one in zip(parts, of, strict=True)
                ]
            )
            for name in partitions
        },
    }


def _others(of: Sequence[Subject]) -> set[str]:
    known = {MERGE, ENSEMBLE, LOGIT_ENSEMBLE, *BASELINES}
    return {name for one in of for name in one.proxies} - known


def fitted_features(of: Sequence[Subject], target: str) -> dict[str, np.ndarray]:
    """Return the features that a calibration is fitted to.

    Other merges are scored of some mixtures only, and the rest would have no prediction.
    """
    others = _others(of)
    return {name: each for name, each in features(of, target).items() if name not in others}


def _proxies(rows: Sequence[Trial], merges: Sequence[str]) -> dict[str, ByTarget]:
    found: dict[str, ByTarget] = {}
    for row in rows:
        label = row.candidate.merge
        if row.candidate.kind == "unit":  # a merge of one model by any method
            return dict.fromkeys([MERGE, ENSEMBLE, *merges[1:]], row.losses)
        if label == ENSEMBLE:
            found[ENSEMBLE] = row.losses
            continue
        for one in (label, *row.candidate.also):
            if one in merges:
                found[MERGE if one == merges[0] else str(one)] = row.losses
    return found


def _averaged_logits(rows: Sequence[Trial]) -> dict[str, ByTarget]:
    """Return the baseline that is scored for trained mixtures only; a unit alone is its own."""
    for row in rows:
        if row.candidate.kind == "unit" or row.candidate.merge == LOGIT_ENSEMBLE:
            return {LOGIT_ENSEMBLE: row.losses}
    return {}


def _mean(losses: Sequence[ByTarget]) -> dict[str, float]:
    return {name: sum(one[name] for one in losses) / len(losses) for name in losses[0]}
