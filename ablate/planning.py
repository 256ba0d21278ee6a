"""What a study would do and cost, beside the naive way. Changes nothing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ablate.corpus import Corpus, Survey, read_corpus, survey
from ablate.errors import StudyError
from ablate.imports import check_imports
from ablate.models.build import count_parameters
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

# Sustained rates of one worker, for orders of magnitude only: a CPU thread, and a data-centre GPU
# at 40 % of 989 bf16 TFLOP/s.
CPU_THREAD_FLOPS = 2.5e10
GPU_FLOPS = 4e14
ERROR_OF_ESTIMATE = 4
"""Tokens estimated from bytes are within this factor: 1.5 to 5 bytes a token in all languages."""
TRAINING_BYTES_PER_PARAMETER = 16
"""Float32 weights, gradients and two Adam moments (ZeRO, arXiv 1910.02054, section 3.1)."""


@dataclass(frozen=True, kw_only=True)
class PartitionPlan:
    """One partition: tokens are estimates until the corpus is prepared."""

    name: str
    documents: int
    tokens: int
    units: int
    unit_tokens: tuple[int, ...]
    unused_tokens: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Counts, costs in FLOPs and device-hours, memory in bytes.

    `exact` is False while tokens are estimated from the size of the source files. What `validate`
    trains (0 runs where the study does not ask for it) is an estimate always: which mixtures it
    chooses depends on the scores.
    """

    study: str
    exact: bool
    partitions: tuple[PartitionPlan, ...]
    parameters: int
    seed_tokens: int
    unit_training_tokens: int
    runs: int
    steps_per_run: int
    mixtures: int | None
    trials: int
    algorithm: str
    why: str
    evaluated_tokens: int
    validation_runs: int
    validation_tokens: int
    training_flops: int
    search_flops: int
    validation_flops: int
    naive_flops: int
    device: str
    devices: int
    device_hours: float
    naive_device_hours: float
    pool_bytes: int
    worker_bytes: int
    evaluator_bytes: int

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def plan(study: Study, *, cluster: Cluster | None = None) -> Plan:
    """Return what `run` would do. Raises the errors that `run` would raise before training."""
    where = cluster or Cluster()
    check_search(study)
    check_imports(study)
    corpus = read_corpus(study.open_workspace())
    look = None if corpus else survey(study)
    parts = _surveyed(study, look) if look else _prepared(corpus) if corpus else ()
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
    parameters = count_parameters(study)
    seed = seed_recipe(study, look.seed_tokens if look else _seed_tokens(corpus))
    seed_tokens = seed.tokens if study.seed.sources else 0
    for recipe in [*trained.values(), *([seed] if seed_tokens else [])]:
        check_batch(recipe, where.train)
        check_tokens("a base unit", study.corpus.unit_tokens, recipe)
    unit_tokens = sum(recipe.tokens for recipe in trained.values())
    domains = len(heldout) + len(study.evaluate.domains)
    evaluated = domains * study.evaluate.tokens_per_domain
    scored = trials + sum(units.values()) + 1
    training = flops(parameters, unit_tokens + seed_tokens)
    searching = forward_flops(parameters, evaluated * scored)
    validation_runs, validation_tokens = _validation(study, space, parts)
    validating = flops(parameters, validation_tokens) + forward_flops(
        parameters, evaluated * validation_runs
    )
    everything = space.total_tokens()
    if everything is None:  # a continuum: train as many mixtures as would be scored
        everything = trials * sum(tokens.values())
    naive = flops(parameters, everything + seed_tokens)
    device, rate, devices = _device(where)
    return Plan(
        study=study.name,
        exact=corpus is not None,
        partitions=parts,
        parameters=parameters,
        seed_tokens=seed_tokens,
        unit_training_tokens=unit_tokens,
        runs=len(trained) + bool(seed_tokens),
        steps_per_run=max((recipe.steps for recipe in trained.values()), default=0),
        mixtures=mixtures,
        trials=trials,
        algorithm=algorithm,
        why=why,
        evaluated_tokens=evaluated,
        validation_runs=validation_runs,
        validation_tokens=validation_tokens,
        training_flops=training,
        search_flops=searching,
        validation_flops=validating,
        naive_flops=naive,
        device=device,
        devices=devices,
        device_hours=(training + searching + validating) / rate / 3600,
        naive_device_hours=naive / rate / 3600,
        pool_bytes=4 * parameters * (sum(units.values()) + 1),
        worker_bytes=TRAINING_BYTES_PER_PARAMETER * parameters,
        evaluator_bytes=(2 if study.evaluate.precision == "bf16" else 4) * parameters,
    )


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


def _prepared(corpus: Corpus) -> tuple[PartitionPlan, ...]:
    return tuple(
        PartitionPlan(
            name=name,
            documents=info.documents,
            tokens=info.tokens,
            units=info.units,
            unit_tokens=tuple(info.unit_tokens),
            unused_tokens=info.unused_tokens,
        )
        for name, info in sorted(corpus.partitions.items())
    )


def _surveyed(study: Study, look: Survey) -> tuple[PartitionPlan, ...]:
    size = study.corpus.unit_tokens
    found = []
    for name, estimate in sorted(look.partitions.items()):
        whole = estimate.tokens // size
        repeat = study.corpus.short_units == "repeat"
        sizes = (size,) * whole or (size if repeat else min(size, estimate.tokens),)
        if study.corpus.short_units == "error":
            _require_unit(name, estimate.tokens, size)
        found.append(
            PartitionPlan(
                name=name,
                documents=estimate.documents,
                tokens=estimate.tokens,
                units=len(sizes),
                unit_tokens=sizes,
                unused_tokens=max(estimate.tokens - sum(sizes), 0),
            )
        )
    return tuple(found)


def _require_unit(name: str, estimate: int, size: int) -> None:
    """Refuse a partition that is far too small; a small shortage is within the estimate's error."""
    if estimate * ERROR_OF_ESTIMATE < size:
        raise StudyError(
            f"partitions must have at least {size:,} training tokens, got about {estimate:,} for "
            f"'{name}'; lower corpus.unit_tokens, add text, or set corpus.short_units to allow or "
            "repeat"
        )


def _seed_tokens(corpus: Corpus | None) -> int:
    return corpus.seed.tokens if corpus and corpus.seed else 0


def _device(cluster: Cluster) -> tuple[str, float, int]:
    train = cluster.train
    runs = train.concurrent_runs or 1
    if train.gpus_per_worker:
        return "GPU", GPU_FLOPS, runs * train.workers_per_run
    return "CPU thread", CPU_THREAD_FLOPS, runs * train.workers_per_run * train.threads_per_worker
