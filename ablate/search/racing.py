"""Racing: a mixture that cannot win is stopped before all tokens are spent on it.

Every mixture is scored on the same groups of windows, in the same seeded order, at growing shares
of each domain. After a stage, its difference to the leader (the best mixture that was scored on all
groups) is estimated for *all* groups from those seen, and the mixture is stopped when a one-sided
bound says that it loses. The groups seen are a sample without replacement within each domain, so
the bound is of the answer that full evaluation would give, and is exact once everything is seen.

    D_g = y[own, g] - y[leader, g]      N groups in a domain, n seen      x[g] tokens
    r = sum_seen D / sum_seen x         variance (1 - n/N) n/(n-1) sum_seen (D - r x)^2 / sum_seen^2 x

(ratio estimator with the finite population correction: Cochran, Sampling Techniques, sections 2.11
and 6.4). Hoeffding races (Maron and Moore 1994) compare means by range bounds; Student's t on
paired differences (as their Bayesian races do) stops far earlier for the same error in simulation.

Error rate. Only the mixture that would win needs protection, not every candidate. When mixtures
come in an order that the race does not influence, and every one that improves on all before it
survives, the leaders are those of full evaluation; so the first improvement that is stopped was
tested against a leader known beforehand. The j-th leader spends alpha / (j (j + 1)), split over
the stages before the last; all leaders together spend alpha. Hence the winner of full
evaluation is stopped with probability `alpha` at most, over the drawing of the order of groups, as
far as t bounds hold. With `trials_at_once` mixtures compared with one leader at a time, as many
improvements may stand against it, and alpha is divided by their number. A search whose
proposals follow from the race itself is outside the argument.

Where t bounds bend: pure noise that is minus a lognormal of unit sigma, in three domains, stopped
ties at 6.3% where 0.5% was allowed (19 of 300). The bound's term for skewness and the small part
that early stages spend lower this only partly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ablate.errors import StudyError
from ablate.search.paired import ByDomain

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)
# A domain's spread is not seen in fewer groups.
LEAST_GROUPS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Race:
    """The rules of a race, fixed before it starts.

    `shares` grow to one; `visits[domain]` [G_d] is the order in which groups are scored;
    `tokens[domain]` [G_d] their tokens; `weights[domain]` those of the objective; `alpha` the
    probability of stopping the mixture that would win; `stages` what each share sees.
    """

    shares: tuple[float, ...]
    visits: Mapping[str, np.ndarray]
    tokens: Mapping[str, np.ndarray]
    weights: Mapping[str, float]
    alpha: float
    trials_at_once: int
    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Stage:
    """The groups seen when a stage ends, `seen` [n] among all groups of all domains in a row.

    Per group seen: `tokens`, `domain` and `factor`, which turns nats into nats per token of the
    objective; `whole` [G] does so when all groups are seen. Per domain: `totals` of the tokens
    seen, `starts` among the groups seen, `scale`, the square root of what squared residuals are
    multiplied by, and degrees of `freedom`. `share` is that of all tokens.
    """

    seen: np.ndarray
    tokens: np.ndarray
    domain: np.ndarray
    factor: np.ndarray
    whole: np.ndarray
    totals: np.ndarray
    starts: np.ndarray
    scale: np.ndarray
    freedom: np.ndarray
    share: float

    @property
    def complete(self) -> bool:
        """Return whether nothing is left to see."""
        return not self.scale.any()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a stage says of a mixture, in nats per token over all groups, leader subtracted.

    `difference` is the estimate, [`lower`, `upper`] its one-sided bounds at the stage's error rate;
    `stop` when `lower` is above zero. `objective` is the estimate of the mixture's own: the
    leader's plus the difference, which knows how hard the groups seen are. `share` of the tokens
    was seen; at one the numbers are exact and the mixture is never stopped.
    """

    stop: bool
    difference: float
    lower: float
    upper: float
    objective: float
    share: float


def plan_race(
    tokens: ByDomain,
    weights: Mapping[str, float],
    shares: Sequence[float] = SHARES,
    alpha: float = 0.01,
    trials_at_once: int = 1,
    seed: int = 0,
) -> Race:
    """Return the rules for `tokens[domain]` [G_d] and the objective's `weights[domain]`.

    Domains without weight are left out. The same seed and domain names give the same order of
    groups, whatever other domains there are. Raises StudyError for shares that do not grow to one,
    or an alpha outside (0, 1).
    """
    steps = tuple(float(share) for share in shares)
    grow = all(a < b for a, b in zip((0.0, *steps), steps, strict=False))
    if not steps or not grow or steps[-1] != 1:
        raise StudyError(f"shares must grow from above 0 to 1, got {steps}; end them with 1")
    if not 0 < alpha < 1 or trials_at_once < 1:
        raise StudyError(
            f"alpha must lie between 0 and 1 and trials_at_once be positive, got {alpha} and "
            f"{trials_at_once}; use 0.01 and 1"
        )
    names = sorted(name for name, weight in weights.items() if weight)
    missing = [name for name in names if name not in tokens]
    if missing or not names:
        raise StudyError(f"weighted domains must have tokens, got none for {missing or 'any'}")
    counted = {name: np.asarray(tokens[name], dtype=float) for name in names}
    visits = {name: _order(name, len(counted[name]), seed) for name in names}
    kept = {name: float(weights[name]) for name in names}
    return Race(
        shares=steps,
        visits=visits,
        tokens=counted,
        weights=kept,
        alpha=alpha,
        trials_at_once=trials_at_once,
        stages=tuple(_stage(_first(visits, share), counted, kept) for share in steps),
    )


def _order(name: str, groups: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, *name.encode()])
    return rng.permutation(groups)


def _first(visits: Mapping[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    """Return the first groups of each domain, ascending: `share` of them, rounded up."""
    return {
        name: np.sort(order[: max(math.ceil(share * len(order) - 1e-9), LEAST_GROUPS)])
        for name, order in visits.items()
    }


def _stage(
    groups: Mapping[str, np.ndarray],
    tokens: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
) -> Stage:
    names = list(tokens)
    sizes = np.array([tokens[name].size for name in names])
    counts = np.array([groups[name].size for name in names])
    seen = np.concatenate(
        [groups[name] + start for name, start in zip(names, _starts(sizes), strict=True)]
    )
    every = np.concatenate([tokens[name] for name in names])
    starts = _starts(counts)
    totals = np.add.reduceat(every[seen], starts)
    freedom = np.maximum(counts - 1.0, 1.0)
    weight = np.array([weights[name] for name in names])
    return Stage(
        seen=seen,
        tokens=every[seen],
        domain=np.repeat(np.arange(len(names)), counts),
        factor=np.repeat(weight / totals, counts),
        whole=np.repeat(weight / np.add.reduceat(every, _starts(sizes)), sizes),
        totals=totals,
        starts=starts,
        scale=np.sqrt((1 - counts / sizes) * counts / freedom),
        freedom=freedom,
        share=1.0 if (counts == sizes).all() else float(totals.sum() / every.sum()),
    )


def _starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)[:-1]])


def groups_until(race: Race, stage: int) -> dict[str, np.ndarray]:
    """Return the groups [n_d] of each domain, ascending, that are scored when `stage` ends.

    Each domain gives the same share, at least three groups where it has them.
    """
    return _first(race.visits, race.shares[stage])


def groups_of(race: Race, stage: int) -> dict[str, np.ndarray]:
    """Return the groups of each domain, ascending, that `stage` adds; some may be none."""
    until = groups_until(race, stage)
    if stage == 0:
        return until
    before = groups_until(race, stage - 1)
    return {name: np.setdiff1d(until[name], before[name]) for name in until}


def stage_objective(race: Race, nats: ByDomain, stage: int) -> np.ndarray:
    """Return the objective [...] over the groups seen when `stage` ends, from `nats[domain]`
    [..., G_d]; the other groups are not read."""
    plan = race.stages[stage]
    return np.asarray((_joined(race, nats)[..., plan.seen] * plan.factor).sum(axis=-1))


def stage_alpha(race: Race, stage: int, leaders: int) -> float:
    """Return the error rate of one test at `stage` against the `leaders`-th leader (from one).

    Stages spend in proportion to their share: t bounds are worst where few groups were seen, and a
    rare group on which a mixture excels may be among the others. Zero at the last stage.
    """
    interim = race.shares[:-1]
    if stage >= len(interim):
        return 0.0
    spent = race.alpha * interim[stage] / sum(interim)
    return spent / (leaders * (leaders + 1)) / race.trials_at_once


def verdict(
    own: ByDomain,
    leader: ByDomain,
    stage: int,
    race: Race,
    leaders: int = 1,
    controls: ByDomain | None = None,
) -> Verdict:
    """Return what the groups of `stage` say of a mixture with summed nats `own[domain]` [G_d].

    Only the entries of `groups_until(race, stage)` are read, so that the others may be NaN.
    `leader[domain]` [G_d] is complete; `leaders` counts how many leaders there have been, this one
    too. `controls[domain]` [C, G_d] are complete predictions of the mixture's nats (a similar one's,
    or a cheaper proxy's), chosen without a look at its own: what is predicted over the leader is a
    control variate in the regression estimator, which needs fewer groups (Cochran, chapter 7).
    Raises StudyError when a group of the stage was not scored.
    """
    steady = None if controls is None else _joined(race, controls)
    level = stage_alpha(race, stage, leaders)
    return _judged(race.stages[stage], _joined(race, own), _joined(race, leader), level, steady)


def _judged(
    plan: Stage, own: np.ndarray, leader: np.ndarray, level: float, controls: np.ndarray | None
) -> Verdict:
    """Return the verdict from nats of all domains in a row: [G], [G] and controls [..., G]."""
    change = own[plan.seen] - leader[plan.seen]
    if not np.isfinite(change).all():
        raise StudyError("every group of a stage must be scored, got NaN nats; score them first")
    ratio, residual = _ratios(plan, change)
    mean, error = float(ratio.sum()), np.zeros(0)
    if not plan.complete:
        steady = None if controls is None else np.atleast_2d(controls - leader)
        mean, error = _regressed(plan, mean, plan.scale[plan.domain] * residual, steady)
    down, up = _reach(plan, error, level), _reach(plan, -error, level)
    return Verdict(
        stop=mean - down > 0 and not plan.complete,
        difference=mean,
        lower=mean - down,
        upper=mean + up,
        objective=float(leader @ plan.whole) + mean,
        share=plan.share,
    )


def _joined(race: Race, nats: ByDomain) -> np.ndarray:
    """Return nats [..., G], domains in the race's order."""
    return np.concatenate([np.asarray(nats[n], dtype=float) for n in race.tokens], axis=-1)


def _ratios(plan: Stage, nats: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return weighted ratios [..., D] and their residuals [..., n] from nats seen [..., n]."""
    scaled = nats * plan.factor
    ratio = np.add.reduceat(scaled, plan.starts, axis=-1)
    return ratio, scaled - (ratio / plan.totals)[..., plan.domain] * plan.tokens


def _regressed(
    plan: Stage, mean: float, error: np.ndarray, steady: np.ndarray | None
) -> tuple[float, np.ndarray]:
    """Return the estimate over all groups, and `error` [n] whose squares sum to its variance.

    The slopes on the controls `steady` [C, G] are common to all domains and minimise the variance;
    the g-weights carry the slopes' own error into it (Särndal, Swensson and Wretman 1989).
    """
    if steady is None:
        return mean, error
    spare = plan.freedom[plan.scale > 0].sum()
    if spare <= 2 * len(steady):
        return mean, error
    scale = plan.scale[plan.domain]
    ratio, basis = _ratios(plan, steady[:, plan.seen])
    gap = steady @ plan.whole - ratio.sum(axis=1)
    basis = scale * basis
    inverse = np.linalg.pinv(basis @ basis.T, hermitian=True) @ basis
    slope = inverse @ error
    rest = (error - slope @ basis) * (1 + scale * (gap @ inverse))
    return mean + float(slope @ gap), rest * math.sqrt(spare / (spare - len(steady)))


def _reach(plan: Stage, error: np.ndarray, level: float) -> float:
    """Return how far below the estimate its one-sided bound lies.

    Student's t with Welch and Satterthwaite's freedom over domains, made longer where the groups
    seen are skewed downwards (the second term of Hall's expansion, 1992, section 2.4): the ones
    that pull the mean down most are those that a small sample misses.
    """
    if not error.any():
        return 0.0
    parts = np.add.reduceat(error**2, plan.starts)
    variance = float(parts.sum())
    freedom = variance**2 / float((parts**2 / plan.freedom).sum())
    quantile = -float(special.stdtrit(freedom, level))
    skew = min(float((error**3).sum()) / variance**1.5, 0.0)
    return math.sqrt(variance) * float(quantile - skew * (2 * quantile**2 + 1) / 6)


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """What a race would have done: row of the `winner`, `share` of all tokens that was spent, and
    `stages` [m], how many each mixture was scored for (all of them = it finished)."""

    winner: int
    share: float
    stages: np.ndarray


def replay(
    nats: ByDomain, race: Race, finished: int = 1, mixture_weights: np.ndarray | None = None
) -> Replay:
    """Return the race over completely scored mixtures, one after another in the order of rows.

    `nats[domain]` [m, G_d]; the first `finished` rows are scored on everything, as the seed and the
    units are. With `mixture_weights` [m, n], the finished mixtures' nats predict each newcomer's
    (`predicted_nats`) and serve as control. Raises StudyError where no row is finished at first.
    """
    count = len(next(iter(nats.values())))
    if not 1 <= finished <= count:
        raise StudyError(f"finished must be between 1 and {count} mixtures, got {finished}")
    flat = _joined(race, nats)
    # Not a matrix product: that need not give equal rows equal bits, and ties would be broken.
    objective, last = (flat * race.stages[-1].whole).sum(axis=1), len(race.shares)
    known, leader, leaders = list(range(finished)), int(np.argmin(objective[:finished])), 1
    stages, spent = [last] * finished, float(finished)
    for row in range(finished, count):
        controls = None
        if mixture_weights is not None:
            shares = prediction_shares(mixture_weights[known], mixture_weights[row])
            controls = shares @ flat[known]
        for stage, plan in enumerate(race.stages):
            level = stage_alpha(race, stage, leaders)
            found = _judged(plan, flat[row], flat[leader], level, controls)
            if found.stop:
                break
        stages.append(stage + 1)
        spent += found.share
        if not found.stop:
            known.append(row)
            if objective[row] < objective[leader]:
                leader, leaders = row, leaders + 1
    return Replay(winner=leader, share=spent / count, stages=np.array(stages))


def prediction_shares(
    known_weights: np.ndarray, weights: np.ndarray, ridge: float = 1e-2
) -> np.ndarray:
    """Return shares [f], summing to one: shares @ nats [f, G] of finished mixtures predicts another.

    Kernel ridge regression, linear in the mixture weights: `known_weights` [f, n] of the finished,
    `weights` [n] of the one asked for. As a control, a bad prediction costs only its degree of
    freedom.
    """
    lift = np.column_stack([np.ones(len(known_weights)), known_weights])
    kernel = lift @ lift.T + ridge * np.eye(len(lift))
    share = np.linalg.solve(kernel, lift @ np.concatenate([[1.0], weights]))
    return np.asarray(share + (1 - share.sum()) / len(share))


def asha_stop(values_at_rung: Sequence[float], own: float, eta: int = 4) -> bool:
    """Return whether asynchronous successive halving stops a mixture of objective `own` at a rung.

    `values_at_rung` are the objectives, on the same groups, of the others that reached it before.
    It goes on when among the best 1/eta of all (at least one; ties go on), smaller being better
    (Li et al., arXiv 1810.05934, as a stopping rule). No error rate: it limits what is spent.
    Raises StudyError when eta is below 2.
    """
    if eta < 2:
        raise StudyError(f"eta must be at least 2, got {eta}; use 4")
    better = sum(value < own for value in values_at_rung)
    return better >= max((len(values_at_rung) + 1) // eta, 1)
