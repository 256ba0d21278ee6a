"""Comparison of mixtures that were scored on the same text, pair by pair.

    m mixtures, D domains, G_d groups of windows in domain d, G = sum of G_d
    y[i, g]   summed nats of mixture i on group g        x[g]   tokens of group g
    R[i, d] = sum_g y / sum_g x                          L[i] = sum_d weight_d R[i, d]
    z[i, g] = weight_d sqrt(G_d / (G_d - 1)) (y - R x) / sum_g x      the influence of group g

Domains are fixed and groups are the sample, so the error of any linear combination of objectives
is the length of the same combination of the rows of z (the ratio estimator's variance: Cochran,
Sampling Techniques, sections 2.11 and 6.4). What a hard group adds to every mixture alike cancels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from ablate.errors import StudyError

ByDomain = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedScores:
    """Mixtures scored on the same groups, domains in alphabetical order.

    `objective` [m] in nats per token; `influence` [m, G] in the same unit; `starts` [D] is where
    each domain's groups begin; `freedom` [D] the degrees of freedom of its variance.
    """

    objective: np.ndarray
    influence: np.ndarray
    starts: np.ndarray
    freedom: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Contrasts:
    """Linear combinations of objectives: `mean` [k] nats, `stderr` [k], `freedom` [k]."""

    mean: np.ndarray
    stderr: np.ndarray
    freedom: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much more mixture a loses than b, nats per token: below zero, a is the better.

    `probability` that a beats b is one minus the one-sided p-value of the paired t test, which is
    also a's posterior probability under a flat prior; one half for an exact tie.
    """

    mean: float
    stderr: float
    freedom: float
    probability: float


def paired_scores(nats: ByDomain, tokens: ByDomain, weights: Mapping[str, float]) -> PairedScores:
    """Return the scores of m mixtures from `nats[domain]` [m, G_d] and `tokens[domain]` [G_d].

    Domains without weight are left out. A domain of one group shows no spread: its whole weighted
    loss is taken as the error, so that a comparison counts the difference itself as noise, which
    overstates it. Raises StudyError for a missing domain or arrays that do not fit together.
    """
    names = sorted(name for name, weight in weights.items() if weight)
    if not names:
        raise StudyError("a domain must have a weight, got none; name one in search.objective")
    columns, losses = [], []
    for name in names:
        scored, counted = _checked(name, nats, tokens)
        size, total = counted.size, counted.sum()
        loss = scored.sum(axis=1) / total
        if size > 1:
            residual = (scored - loss[:, None] * counted) * np.sqrt(size / (size - 1))
        else:
            residual = scored
        columns.append(residual * (weights[name] / total))
        losses.append(loss * weights[name])
    sizes = np.array([column.shape[1] for column in columns])
    return PairedScores(
        objective=np.sum(losses, axis=0),
        influence=np.concatenate(columns, axis=1),
        starts=np.concatenate([[0], np.cumsum(sizes)[:-1]]),
        freedom=np.maximum(sizes - 1, 1).astype(float),
    )


def _checked(name: str, nats: ByDomain, tokens: ByDomain) -> tuple[np.ndarray, np.ndarray]:
    if name not in nats or name not in tokens:
        raise StudyError(f"a weighted domain must be scored, got no groups of '{name}'; score it")
    scored = np.atleast_2d(np.asarray(nats[name], dtype=float))
    counted = np.asarray(tokens[name], dtype=float)
    if scored.ndim != 2 or counted.shape != scored.shape[1:] or not counted.sum() > 0:
        raise StudyError(
            f"nats must be [mixtures, groups] and tokens [groups], some of them, for '{name}', got "
            f"{scored.shape} and {counted.shape}; score the domain again"
        )
    return scored, counted


def contrasts(scores: PairedScores, coefficients: np.ndarray) -> Contrasts:
    """Return the combinations `coefficients` [k, m] of the m objectives.

    Degrees of freedom are Welch and Satterthwaite's over domains; infinite where nothing varies.
    """
    coefficients = np.atleast_2d(np.asarray(coefficients, dtype=float))
    stderr, freedom = _errors(scores, coefficients @ scores.influence)
    return Contrasts(mean=coefficients @ scores.objective, stderr=stderr, freedom=freedom)


def _errors(scores: PairedScores, influence: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return stderr [k] and degrees of freedom [k] of combined influences [k, G]."""
    parts = np.add.reduceat(influence**2, scores.starts, axis=1)
    variance = parts.sum(axis=1)
    shares = parts / np.where(variance > 0, variance, 1.0)[:, None]
    spread = (shares**2 / scores.freedom).sum(axis=1)
    freedom = np.divide(1.0, spread, out=np.full(len(spread), np.inf), where=spread > 0)
    return np.sqrt(variance), freedom


def _against(scores: PairedScores, one: int) -> Contrasts:
    """Return mixture `one` minus each mixture [m]; identical mixtures give exact zeros."""
    stderr, freedom = _errors(scores, scores.influence[one] - scores.influence)
    return Contrasts(mean=scores.objective[one] - scores.objective, stderr=stderr, freedom=freedom)


def difference(
    a: ByDomain, b: ByDomain, tokens: ByDomain, weights: Mapping[str, float]
) -> Difference:
    """Return objective of a minus that of b from summed nats `a[domain]`, `b[domain]` [G_d].

    Raises StudyError as `paired_scores` does.
    """
    shared = {name: np.stack([a[name], b[name]]) for name in a.keys() & b.keys()}
    found = _against(paired_scores(shared, tokens, weights), 0)
    return Difference(
        mean=float(found.mean[1]),
        stderr=float(found.stderr[1]),
        freedom=float(found.freedom[1]),
        probability=float(_probability_below_zero(found)[1]),
    )


def _probability_below_zero(found: Contrasts) -> np.ndarray:
    return _student(found.freedom, -_ratio(found))


def _student(freedom: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Return Student's distribution function; the normal one where the freedom is infinite."""
    return np.asarray(special.stdtr(np.minimum(freedom, 1e9), ratio))


def _ratio(found: Contrasts) -> np.ndarray:
    """Return mean / stderr; 0 for an exact tie, infinite for a difference without error."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(found.mean == 0, 0.0, found.mean / found.stderr)


def tied_with_best(
    nats: ByDomain,
    tokens: ByDomain,
    weights: Mapping[str, float],
    level: float = 0.95,
    seed: int = 0,
    draws: int = 2000,
) -> np.ndarray:
    """Return mask [m]: the mixtures that the paired test cannot tell from the best.

    Guarantee: the truly best mixture is in the set with probability `level` at least (each of
    several truly best ones, too), whichever looks best, over the drawing of the groups.

    Mixture i stays unless it loses to some rival j: (L_i - L_j) / stderr_ij above c_i. For the
    truly best one every true difference is at most zero, so it leaves with the probability that the
    largest centred ratio over all rivals passes c_i, whose quantile c_i is: one test per mixture is
    held at `level`, with no correction over i (Gupta 1965; Hsu 1981, Annals of Statistics 9,
    multiple comparisons with the best). The joint law of the ratios is a Gaussian multiplier
    bootstrap over groups (Chernozhukov, Chetverikov and Kato 2013) of `draws` seeded draws; ratios
    are first carried from Student's t to the normal scale, which matters with few groups.
    """
    if not 0 < level < 1:
        raise StudyError(f"level must lie between 0 and 1, got {level}; use 0.95")
    scores = paired_scores(nats, tokens, weights)
    count = len(scores.objective)
    # By Bonferroni no quantile c_i exceeds this one: who loses to the leader by more is out.
    most = -special.ndtri((1 - level) / max(count - 1, 1))
    leader = int(np.argmin(scores.objective))
    near = np.flatnonzero(-_normal_ratio(_against(scores, leader)) <= most)
    noise = _multiplied(scores, seed, draws)
    mask = np.zeros(count, dtype=bool)
    for one in near:
        mask[one] = _survives(scores, noise, int(one), level)
    return mask


def _multiplied(scores: PairedScores, seed: int, draws: int) -> np.ndarray:
    """Return bootstrap errors [m, draws] of the objectives."""
    rng = np.random.default_rng(seed)
    return scores.influence @ rng.standard_normal((scores.influence.shape[1], draws))


def _survives(scores: PairedScores, noise: np.ndarray, one: int, level: float) -> bool:
    found = _against(scores, one)
    observed = _normal_ratio(found).max()
    # Most candidates need no bootstrap: the quantile is never below that of a single test.
    if observed <= special.ndtri(level):
        return True
    rivals = found.stderr > 0
    if not rivals.any() or np.isinf(observed):
        return False
    largest = ((noise[one] - noise[rivals]) / found.stderr[rivals, None]).max(axis=0)
    return bool(observed <= np.quantile(largest, level, method="higher"))


def _normal_ratio(found: Contrasts) -> np.ndarray:
    """Return the ratios carried from Student's t to the standard normal of equal tail."""
    ratio = _ratio(found)
    size = -special.ndtri(_student(found.freedom, -np.abs(ratio)))
    return np.where(ratio == 0, 0.0, np.sign(ratio) * size)
