"""How many mixtures are scored at once, how large they are, and how many are trained for real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from ablate.planning.partitions import PartitionPlan
from ablate.search.algorithms import lookahead_of
from ablate.search.choice import goes_by_groups
from ablate.search.spaces import Space
from ablate.search.spaces.groups import partition_groups
from ablate.study import Study
from ablate.train.recipe import own_tokens
from ablate.validate.runs import fixed_tokens

SAMPLED_MIXTURES = 256
"""Mixtures drawn to know how many units a merge has on average."""


def searched_names(study: Study, algorithm: str, units: Mapping[str, int]) -> int:
    """Return over how many names an algorithm searches: partitions, or groups of them first."""
    if goes_by_groups(study, algorithm):
        return len(partition_groups(study.search.space, units))
    return len(units)


def open_at_once(study: Study, algorithm: str, trials: int, names: int) -> int:
    """Return the most mixtures of a search that wait for their values at once."""
    asked = study.search.trials
    if goes_by_groups(study, algorithm):  # the groups have half of the trials
        asked = max(1, asked // 2)
    racing = study.search.racing
    most = lookahead_of(algorithm, asked, names)
    return min(most, trials, racing.at_once if racing else most)


def mean_members(space: Space, units: Mapping[str, int]) -> float:
    """Return the mean number of units in a mixture of the space.

    Where none can be drawn it is that of the mixture nearest to all partitions alike.
    """
    rng = np.random.default_rng(0)
    draws = (space.sample(rng) for _ in range(SAMPLED_MIXTURES))
    mixtures = [mixture for mixture in takewhile(lambda drawn: drawn is not None, draws) if mixture]
    if not mixtures:
        mixtures = [space.nearest(np.full(len(space.names), 1 / len(space.names)))]
    counts = [sum(units[name] for name in mixture.partitions) for mixture in mixtures]
    return float(np.mean(counts))


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What `validate` trains: runs, of which the last `rounds` x replicates go one after another.

    `passes` are the models run over the evaluated text: the trained ones, and the units whose
    logits are averaged.
    """

    runs: int
    rounds: int
    tokens: int
    passes: int


def validation_of(
    study: Study,
    space: Space,
    parts: Sequence[PartitionPlan],
    units: Mapping[str, int],
    members: float,
) -> Validation:
    """Return what `validate` would train, and on about how many tokens together.

    Its mixtures are spread evenly over sizes: the mean size times the mean partition's tokens.
    """
    settings, rules = study.validate_, study.search.space
    if settings is None:
        return Validation(runs=0, rounds=0, tokens=0, passes=0)
    wanted, count = settings.mixtures + settings.rounds, space.count()
    mixtures = wanted if count is None else min(wanted, count)
    runs = settings.replicates * mixtures
    passes = runs + min(sum(units.values()), round(mixtures * members))
    rounds = max(0, mixtures - settings.mixtures)
    if settings.tokens == "fixed":
        tokens = runs * fixed_tokens(study, settings)
    else:
        most = min(rules.max_size or len(space.names), len(space.names))
        sizes = settings.sizes or range(min(max(2, rules.min_size), most), most + 1)
        own = {
            part.name: sum(own_tokens(study, size) for size in part.unit_tokens) for part in parts
        }
        mean = sum(own.get(name, 0) for name in space.names) / len(space.names)
        tokens = round(runs * mean * sum(sizes) / len(sizes))
    return Validation(runs=runs, rounds=rounds, tokens=tokens, passes=passes)
