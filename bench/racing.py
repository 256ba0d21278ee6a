"""Racing over simulated searches: the same winner as full evaluation, and the tokens it takes.

The simulated nats have what evaluations have: groups of very different difficulty that all
mixtures share (sd 0.5 nats per token), effects of mixtures that are smooth in their weights, what a
partition does to one group (structured, so that similar mixtures share it), and noise of each
mixture on each group, normal or heavy-tailed.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from ablate.search.racing import (
    Race,
    Verdict,
    asha_stop,
    plan_race,
    replay,
    stage_objective,
    verdict,
)
from bench._numbers import measured

PARTITIONS = 8
SEARCHES = 300
SEARCHES_BESIDE = 100
TIES = 1000
ALPHA = 0.01
WINNERS = 0.99
TOKENS = 0.25


@dataclass(frozen=True, kw_only=True)
class World:
    """How simulated evaluations behave; standard deviations in nats per token.

    `tail` are the degrees of freedom of the noise's Student law (None: normal); a `skewed` one is
    minus a lognormal of skewness 6: a mixture excels on a few groups that a prefix may miss.
    """

    domains: int = 12
    groups: int = 64
    noise: float = 0.06
    structure: float = 0.06
    tail: float | None = None
    skewed: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape:
    """All subsets: `weights` [m, n], `nats[domain]` [m, G] float32, `tokens[domain]` [G]."""

    weights: np.ndarray
    nats: dict[str, np.ndarray]
    tokens: dict[str, np.ndarray]
    objective: dict[str, float]

    def ordered(self, rows: np.ndarray) -> Landscape:
        """Return the same mixtures in another order."""
        nats = {name: values[rows] for name, values in self.nats.items()}
        return Landscape(
            weights=self.weights[rows], nats=nats, tokens=self.tokens, objective=self.objective
        )

    @property
    def winner(self) -> int:
        """Return the row of smallest objective over all tokens."""
        return int(np.argmin(self.losses))

    @property
    def losses(self) -> np.ndarray:
        """Return the objective [m] over all tokens."""
        parts = [
            weight * self.nats[name].sum(axis=1, dtype=float) / self.tokens[name].sum()
            for name, weight in self.objective.items()
        ]
        return np.sum(parts, axis=0)


def subset_weights(partitions: int) -> np.ndarray:
    """Return the weights [2^n - 1, n] of all non-empty subsets, smaller ones first."""
    rows = []
    for size in range(1, partitions + 1):
        for members in combinations(range(partitions), size):
            row = np.zeros(partitions)
            row[list(members)] = 1 / size
            rows.append(row)
    return np.array(rows)


def landscape(world: World, seed: int) -> Landscape:
    """Return the evaluations of all subsets of eight partitions in one simulated world."""
    rng = np.random.default_rng(seed)
    weights = subset_weights(PARTITIONS)
    names = [f"d{number:02}" for number in range(world.domains)]
    gain = rng.gamma(1.5, 0.4, (world.domains, PARTITIONS))
    nats, tokens = {}, {}
    for number, name in enumerate(names):
        counted = np.full(world.groups, 1280.0)
        counted[-1] = rng.integers(200, 1280)
        # A mixing law (arXiv 2403.16952): each partition's help saturates with its weight.
        effect = np.exp(-2.5 * weights @ gain[number])
        rate = rng.uniform(2.5, 5) + 0.5 * rng.standard_normal(world.groups) + effect[:, None]
        rate = rate + weights @ (world.structure * rng.standard_normal((PARTITIONS, world.groups)))
        rate = rate + world.noise * _noise(world, rng, (len(weights), world.groups))
        nats[name] = (rate * counted).astype(np.float32)
        tokens[name] = counted
    return Landscape(
        weights=weights,
        nats=nats,
        tokens=tokens,
        objective=dict.fromkeys(names, 1 / world.domains),
    )


def _noise(world: World, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return noise of mean 0 and standard deviation 1."""
    if world.skewed:
        lognormal = np.exp(rng.standard_normal(shape))
        return np.asarray((np.exp(0.5) - lognormal) / np.sqrt((np.e - 1) * np.e))
    if world.tail is None:
        return rng.standard_normal(shape)
    return np.asarray(rng.standard_t(world.tail, shape) * ((world.tail - 2) / world.tail) ** 0.5)


WORLDS = {
    "": World(),
    "-heavy-tails": World(tail=3.0),
    "-noisy": World(noise=0.1, structure=0.1),
    "-one-domain": World(domains=1),
    "-skewed": World(domains=3, skewed=True),
}


def run() -> list[dict[str, Any]]:
    """Return winners kept and tokens spent, of orders and worlds, then ties stopped and ASHA's."""
    numbers = []
    for order in ("random", "exhaustive"):
        numbers += _searches(f"racing/{order}", World(), order, controls=True)
    numbers += _searches("racing/random-no-controls", World(), "random", controls=False)
    for name, world in WORLDS.items():
        if name:
            numbers += _searches(f"racing/random{name}", world, "random", controls=True)
    return [*numbers, *_adaptive(), *_ties(), *_asha()]


def _searches(name: str, world: World, order: str, controls: bool) -> list[dict[str, Any]]:
    """Return how often racing found full evaluation's winner, and its share of the tokens."""
    strict = name in ("racing/random", "racing/exhaustive")
    kept, shares = [], []
    for seed in range(SEARCHES if strict else SEARCHES_BESIDE):
        made = _in_order(landscape(world, seed), order, seed)
        race = plan_race(made.tokens, made.objective, alpha=ALPHA, seed=seed)
        weights = made.weights if controls else None
        found = replay(made.nats, race, finished=PARTITIONS, mixture_weights=weights)
        kept.append(found.winner == made.winner)
        shares.append(found.share)
    return [
        _winners(f"{name}/same-winner", kept, WINNERS if strict else None),
        measured(
            f"{name}/tokens",
            float(np.mean(shares)),
            "of full",
            TOKENS if strict else None,
            not strict or float(np.mean(shares)) <= TOKENS,
            f"{_spread(shares)}; most {max(shares):.2f}",
        ),
    ]


def _in_order(made: Landscape, order: str, seed: int) -> Landscape:
    """Return the landscape with single partitions first, the rest as the search visits them."""
    if order == "exhaustive":
        return made
    rng = np.random.default_rng([seed, 1])
    rest = PARTITIONS + rng.permutation(len(made.weights) - PARTITIONS)
    return made.ordered(np.concatenate([np.arange(PARTITIONS), rest]))


def _adaptive() -> list[dict[str, Any]]:
    """Return the same of a search that follows what it is told: steepest descent over neighbours.

    Outside the stated guarantee, since the race itself decides what is proposed next.
    """
    kept, shares = [], []
    for seed in range(SEARCHES_BESIDE):
        made = landscape(World(), seed)
        race = plan_race(made.tokens, made.objective, alpha=ALPHA, seed=seed)
        (winner, spent), (expected, full) = (_descend(made, race, raced) for raced in (True, False))
        kept.append(winner == expected)
        shares.append(spent / full)
    share = float(np.mean(shares))
    return [
        _winners("racing/descent/same-winner", kept, None),
        measured("racing/descent/tokens", share, "of full", None, True, _spread(shares)),
    ]


def _descend(made: Landscape, race: Race, raced: bool) -> tuple[int, float]:
    """Return the best finished row and the mixtures' worth of tokens spent, units not counted."""
    members = made.weights > 0
    losses = made.losses
    told = {row: float(losses[row]) for row in range(PARTITIONS)}
    finished, leaders, spent = set(told), 1, 0.0
    here = leader = min(told, key=told.__getitem__)
    while True:
        near = np.flatnonzero((members != members[here]).sum(axis=1) == 1)
        for row in (int(one) for one in near if int(one) not in told):
            found = _raced(made, race, row, leader, leaders) if raced else None
            told[row] = found.objective if found else float(losses[row])
            spent += found.share if found else 1.0
            if not (found and found.stop):
                finished.add(row)
                if losses[row] < losses[leader]:
                    leader, leaders = row, leaders + 1
        best = min((int(one) for one in near), key=told.__getitem__)
        if told[best] >= told[here]:
            return min(finished, key=lambda row: float(losses[row])), spent
        here = best


def _raced(made: Landscape, race: Race, row: int, leader: int, leaders: int) -> Verdict:
    """Return the last verdict on a row: where it was stopped, or the complete one."""
    own, best = ({name: made.nats[name][one] for name in made.nats} for one in (row, leader))
    for stage in range(len(race.shares) - 1):
        found = verdict(own, best, stage, race, leaders)
        if found.stop:
            return found
    return verdict(own, best, len(race.shares) - 1, race, leaders)


def _ties() -> list[dict[str, Any]]:
    """Return how often a mixture that ties exactly with the first leader is stopped."""
    numbers = []
    for name, world in WORLDS.items():
        stopped = [_tie_stopped(world, seed) for seed in range(TIES)]
        rate, (low, high) = float(np.mean(stopped)), _interval(sum(stopped), TIES)
        limit = None if name == "-skewed" else ALPHA / 2
        detail = f"95% interval {low:.4f} to {high:.4f}, {TIES} races, alpha / 2 for this leader"
        # The bound is broken only when the whole interval is above it.
        holds = limit is None or low <= limit
        numbers.append(measured(f"racing/ties-stopped{name}", rate, "", limit, holds, detail))
    return numbers


def _tie_stopped(world: World, seed: int) -> bool:
    rng = np.random.default_rng([seed, 2])
    leader, own, tokens = {}, {}, {}
    for number in range(world.domains):
        name = f"d{number:02}"
        counted = np.full(world.groups, 1280.0)
        rate = 4 + 0.5 * rng.standard_normal(world.groups)
        change = world.noise * _noise(world, rng, (world.groups,))
        leader[name], tokens[name] = rate * counted, counted
        own[name] = (rate + change - change.mean()) * counted
    objective = dict.fromkeys(tokens, 1 / world.domains)
    race = plan_race(tokens, objective, alpha=ALPHA, seed=seed)
    return any(verdict(own, leader, stage, race).stop for stage in range(len(race.shares)))


def _asha() -> list[dict[str, Any]]:
    """Return the same of asynchronous successive halving on the same schedule (no error rate)."""
    kept, shares = [], []
    for seed in range(SEARCHES_BESIDE):
        made = _in_order(landscape(World(), seed), "random", seed)
        race = plan_race(made.tokens, made.objective, alpha=ALPHA, seed=seed)
        winner, share = _asha_search(made, race)
        kept.append(winner == made.winner)
        shares.append(share)
    share = float(np.mean(shares))
    return [
        _winners("racing/asha/same-winner", kept, None),
        measured("racing/asha/tokens", share, "of full", None, True, _spread(shares)),
    ]


def _asha_search(made: Landscape, race: Race) -> tuple[int, float]:
    """Return the best finished row and the share of tokens; mixtures come one after another."""
    rungs: list[list[float]] = [[] for _ in race.shares]
    values = [stage_objective(race, made.nats, stage) for stage in range(len(race.shares))]
    spent = float(PARTITIONS)
    best = int(np.argmin(made.losses[:PARTITIONS]))
    for row in range(PARTITIONS, len(made.weights)):
        for stage in range(len(rungs)):
            own = float(values[stage][row])
            stop = stage < len(rungs) - 1 and asha_stop(rungs[stage], own)
            rungs[stage].append(own)
            if stop:
                break
        spent += race.stages[stage].share
        if not stop and values[-1][row] < values[-1][best]:
            best = row
    return best, spent / len(made.weights)


def _winners(name: str, kept: list[bool], limit: float | None) -> dict[str, Any]:
    rate, (low, high) = float(np.mean(kept)), _interval(sum(kept), len(kept))
    detail = f"95% interval {low:.4f} to {high:.4f}, {len(kept)} searches of {2**PARTITIONS - 1}"
    return measured(name, rate, "of searches", limit, limit is None or rate >= limit, detail)


def _interval(hits: int, count: int) -> tuple[float, float]:
    """Return the exact binomial interval (Clopper and Pearson 1934)."""
    found = stats.binomtest(int(hits), count).proportion_ci(0.95)
    return float(found.low), float(found.high)


def _spread(shares: list[float]) -> str:
    half = 1.96 * float(np.std(shares)) / len(shares) ** 0.5
    return f"95% interval of the mean +- {half:.4f}"
