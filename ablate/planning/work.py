"""The work of a study, wherever it runs: models, tokens, FLOPs; and that of the naive way."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ablate.corpus import Corpus
from ablate.imports import check_imports
from ablate.merge import Statistics, statistics_kinds
from ablate.models.build import ModelShape, model_shape
from ablate.planning.mixtures import (
    mean_members,
    open_at_once,
    searched_names,
    validation_of,
)
from ablate.planning.partitions import PartitionPlan
from ablate.planning.sources import sources_of
from ablate.planning.texts import TextFile
from ablate.resources import Cluster
from ablate.search.algorithms import ALGORITHMS
from ablate.search.candidates import ENSEMBLE
from ablate.search.check import check_search
from ablate.search.choice import choose_algorithm
from ablate.search.objective import objective_weights
from ablate.standing import space_of
from ablate.study import Study
from ablate.train.recipe import (
    check_batch,
    check_tokens,
    flops,
    forward_flops,
    seed_recipe,
    unit_recipe,
)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Counts, and costs in FLOPs (6 N D to train, 2 N D to score: arXiv 2001.08361).

    `exact` is False while tokens are estimated from the size of the source files. What `validate`
    trains (0 runs where the study does not ask for it) is an estimate always: which mixtures it
    chooses depends on the scores. `texts` are the source files, none where they were not looked at.
    `unit_runs` are the tokens of each run that is trained. `members` is the mean number of units in
    a mixture of the search's space, `scored` the models that it scores: merges, units and the seed;
    of `sloped` merges the gradient is taken too, on `sloped_domains`. At most `open_at_once`
    mixtures wait for their values, proposed over `searched_names` partitions or groups; their
    merges ask for `statistics` of every unit.
    `validation_passes` are the models that `validate` runs over the evaluated text,
    `validation_rounds` the trainings that wait for each other.
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
    sloped: int
    sloped_domains: int
    open_at_once: int
    searched_names: int
    statistics: tuple[Statistics, ...]
    algorithm: str
    why: str
    domains: int
    evaluated_tokens: int
    validation_runs: int
    validation_rounds: int
    validation_tokens: int
    validation_passes: int
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
    weights = objective_weights(
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
    members, parameters = mean_members(space, units), shape.parameters
    merged = 0 if study.search.merge.method == ENSEMBLE else trials
    methods = [each.method for each in study.search.merge.methods]
    scored = merged * len(methods) + sum(units.values()) + 1
    sloped = merged if getattr(ALGORITHMS.get(algorithm), "wants_gradient", False) else 0
    searched = searched_names(study, algorithm, units)
    validation = validation_of(study, space, parts, units, members)
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
        members=members,
        scored=scored,
        sloped=sloped,
        sloped_domains=len(weights),
        open_at_once=open_at_once(study, algorithm, trials, searched),
        searched_names=searched,
        statistics=tuple(statistics_kinds(name for name in methods if name != ENSEMBLE)),
        algorithm=algorithm,
        why=why,
        domains=domains,
        evaluated_tokens=evaluated,
        validation_runs=validation.runs,
        validation_rounds=validation.rounds,
        validation_tokens=validation.tokens,
        validation_passes=validation.passes,
        training_flops=flops(parameters, sum(unit_runs) + seed_tokens),
        search_flops=forward_flops(parameters, evaluated * scored)
        + flops(parameters, len(weights) * study.evaluate.tokens_per_domain * sloped),
        validation_flops=flops(parameters, validation.tokens)
        + forward_flops(parameters, evaluated * validation.passes),
        naive_flops=flops(parameters, everything + seed_tokens),
    )
