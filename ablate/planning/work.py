"""The work of a study, wherever it runs: models, tokens, FLOPs; and that of the naive way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ablate.corpus import Corpus
from ablate.imports import check_imports
from ablate.models.build import ModelShape, model_shape
from ablate.planning.partitions import PartitionPlan
from ablate.planning.sources import sources_of
from ablate.planning.texts import TextFile
from ablate.resources import Cluster
from ablate.search.check import check_search
from ablate.search.choice import choose_algorithm
from ablate.search.objective import objective_weights
from ablate.search.spaces import Space
from ablate.standing import space_of
from ablate.study import Study
from ablate.train.recipe import (
    check_batch,
    check_tokens,
    flops,
    forward_flops,
    own_tokens,
    seed_recipe,
    unit_recipe,
)
from ablate.validate.runs import fixed_tokens

SAMPLED_MIXTURES = 256
"""Mixtures drawn to know how many units a merge has on average."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Counts, and costs in FLOPs (6 N D to train, 2 N D to score: arXiv 2001.08361).

    `exact` is False while tokens are estimated from the size of the source files. What `validate`
    trains (0 runs where the study does not ask for it) is an estimate always: which mixtures it
    chooses depends on the scores. `texts` are the source files, none where they were not looked
    at. `unit_runs` are the tokens of each run that is trained. `members` is the mean number of
    units in a mixture of the search's space, `scored` the models that it scores: mixtures, units
    and the seed.
    """

    study: str
    exact: bool
    partitions: tuple[PartitionPlan, ...]
    texts: tuple[TextFile, ...]
    model: ModelShape
    seed_tokens: int
    unit_runs: tuple[int, ...]
    units: int
    runs: int
    steps_per_run: int
    mixtures: int | None
    trials: int
    members: float
    scored: int
    algorithm: str
    why: str
    domains: int
    evaluated_tokens: int
    validation_runs: int
    validation_tokens: int
    training_flops: int
    search_flops: int
    validation_flops: int
    naive_flops: int

    @property
    def flops(self) -> int:
        """Return the FLOPs of all stages."""
        return self.training_flops + self.search_flops + self.validation_flops

    def to_json(self) -> dict[str, Any]:
        """Return plain values, the number of parameters and of the units' tokens among them."""
        return {
            **asdict(self),
            "parameters": self.model.parameters,
            "unit_training_tokens": sum(self.unit_runs),
        }


def work_of(study: Study, *, cluster: Cluster | None = None, corpus: Corpus | None = None) -> Work:
    """Return what `run` would do. Raises the errors that `run` would raise before training.

    A `corpus` that is given is taken as the study's own, and its sources are not looked at.
    """
    where = cluster or Cluster()
    check_search(study)
    check_imports(study)
    sources = sources_of(study, corpus)
    parts = sources.partitions
    units = {part.name: part.units for part in parts}
    recipes = {
        (part.name, index): unit_recipe(study, tokens)
        for part in parts
        for index, tokens in enumerate(part.unit_tokens)
    }
    for name, folders in study.units.items():
        units[name] = len(folders)
    trained = {name: recipe for name, recipe in recipes.items() if name[0] not in study.units}
    tokens = {
        name: sum(r.tokens for (owner, _), r in recipes.items() if owner == name) for name in units
    }
    text = {part.name: part.tokens for part in parts}
    space = space_of(study, units, tokens, {**tokens, **text})
    heldout = dict.fromkeys(units, "heldout") if study.corpus.heldout.documents else {}
    objective_weights(
        study.search.objective, {**heldout, **dict.fromkeys(study.evaluate.domains, "domain")}
    )
    mixtures = space.count()
    trials = study.search.trials if mixtures is None else min(mixtures, study.search.trials)
    algorithm, why = choose_algorithm(study, mixtures)
    shape = model_shape(study)
    seed = seed_recipe(study, sources.seed_tokens)
    seed_tokens = seed.tokens if study.seed.sources else 0
    for recipe in [*trained.values(), *([seed] if seed_tokens else [])]:
        check_batch(recipe, where.train)
        check_tokens("a base unit", study.corpus.unit_tokens, recipe)
    unit_runs = tuple(recipe.tokens for recipe in trained.values())
    domains = len(heldout) + len(study.evaluate.domains)
    evaluated = domains * study.evaluate.tokens_per_domain
    scored = trials + sum(units.values()) + 1
    parameters = shape.parameters
    validation_runs, validation_tokens = _validation(study, space, parts)
    everything = space.total_tokens()
    if everything is None:  # a continuum: train as many mixtures as would be scored
        everything = trials * sum(tokens.values())
    return Work(
        study=study.name,
        exact=sources.exact,
        partitions=parts,
        texts=sources.texts,
        model=shape,
        seed_tokens=seed_tokens,
        unit_runs=unit_runs,
        units=sum(units.values()),
        runs=len(trained) + bool(seed_tokens),
        steps_per_run=max((recipe.steps for recipe in trained.values()), default=0),
        mixtures=mixtures,
        trials=trials,
        members=_members(space, units),
        scored=scored,
        algorithm=algorithm,
        why=why,
        domains=domains,
        evaluated_tokens=evaluated,
        validation_runs=validation_runs,
        validation_tokens=validation_tokens,
        training_flops=flops(parameters, sum(unit_runs) + seed_tokens),
        search_flops=forward_flops(parameters, evaluated * scored),
        validation_flops=flops(parameters, validation_tokens)
        + forward_flops(parameters, evaluated * validation_runs),
        naive_flops=flops(parameters, everything + seed_tokens),
    )


def _members(space: Space, units: Mapping[str, int]) -> float:
    """Return the mean number of units in a mixture of the space."""
    rng = np.random.default_rng(0)
    drawn = [space.sample(rng) for _ in range(SAMPLED_MIXTURES)]
    counts = [sum(units[name] for name in mixture.partitions) for mixture in drawn if mixture]
    return float(np.mean(counts)) if counts else float(sum(units.values()))


def _validation(study: Study, space: Space, parts: tuple[PartitionPlan, ...]) -> tuple[int, int]:
    """Return how many models `validate` would train, and on about how many tokens together.

    Its mixtures are spread evenly over sizes: the mean size times the mean partition's tokens.
    """
    settings, rules = study.validate_, study.search.space
    if settings is None:
        return 0, 0
    wanted, count = settings.mixtures + settings.rounds, space.count()
    runs = settings.replicates * (wanted if count is None else min(wanted, count))
    if settings.tokens == "fixed":
        return runs, runs * fixed_tokens(study, settings)
    most = min(rules.max_size or len(space.names), len(space.names))
    sizes = settings.sizes or range(min(max(2, rules.min_size), most), most + 1)
    own = {part.name: sum(own_tokens(study, size) for size in part.unit_tokens) for part in parts}
    mean = sum(own.get(name, 0) for name in space.names) / len(space.names)
    return runs, round(runs * mean * sum(sizes) / len(sizes))
