"""Which training run stands for a mixture, and the candidate that its model is scored as."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ablate.corpus import Corpus
from ablate.mixture import Mixture
from ablate.models.checkpoint import published_digest
from ablate.models.pool import ModelPool, UnitModel
from ablate.search.candidates import Candidate, trained_candidate
from ablate.study import Study, ValidateSettings
from ablate.train.job import TrainingJob
from ablate.train.recipe import own_tokens
from ablate.train.stages import TrainedRun


def trained_run(
    study: Study, corpus: Corpus, settings: ValidateSettings, mixture: Mixture, replicate: int
) -> TrainedRun:
    """Return the run of a mixture, as the study's `validate` asks.

    proportional: as many tokens as the units of its partitions were trained on together; where the
    weights are those of micro weighting, on exactly the units' text (arXiv 2410.15661, their trained
    mixtures). fixed: `validate.total_tokens` whatever the mixture, by default those of one unit.
    """
    infos = [corpus.partitions[name] for name in mixture.partitions if name in corpus.partitions]
    seed = study.train.rng_seed + replicate
    if settings.tokens == "fixed":
        total = fixed_tokens(study, settings)
        return TrainedRun(mixture=mixture, tokens=total, text_tokens=total, rng_seed=seed)
    sizes = [size for info in infos for size in info.unit_tokens]
    tokens = sum(own_tokens(study, size) for size in sizes)
    units = {info.name: info.units for info in infos}
    whole = all(
        abs(weight - units.get(name, 0) / len(sizes)) < 1e-9 for name, weight in mixture.weights
    )
    return TrainedRun(
        mixture=mixture,
        tokens=tokens,
        text_tokens=None if whole else sum(sizes),
        rng_seed=seed,
    )


def is_asked(study: Study, corpus: Corpus, settings: ValidateSettings, run: TrainedRun) -> bool:
    """Return whether a run is one that the study's `validate` asks for, of whatever mixture."""
    replicate = run.rng_seed - study.train.rng_seed
    if not 0 <= replicate < settings.replicates:
        return False
    return run == trained_run(study, corpus, settings, run.mixture, replicate)


def fixed_tokens(study: Study, settings: ValidateSettings) -> int:
    """Return how many tokens every mixture is trained on where that is the same for all."""
    return settings.total_tokens or own_tokens(study, study.corpus.unit_tokens)


def candidate_of(job: TrainingJob, run: TrainedRun) -> Candidate:
    """Return a run's model as a candidate; its record holds all that names the run."""
    return trained_candidate(
        job.name,
        job.fingerprint,
        run.mixture,
        job.recipe.tokens,
        {"tokens": run.tokens, "text_tokens": run.text_tokens or 0, "rng_seed": run.rng_seed},
    )


def recalled_run(record: Mapping[str, Any]) -> TrainedRun | None:
    """Return the run of a journal record, None when it is not of a trained mixture."""
    how = record.get("run")
    if record["kind"] != "trained" or not how:
        return None
    weights = tuple((str(name), float(weight)) for name, weight in record["weights"])
    return TrainedRun(
        mixture=Mixture(weights=weights),
        tokens=int(how["tokens"]),
        text_tokens=int(how["text_tokens"]) or None,
        rng_seed=int(how["rng_seed"]),
    )


def trained_pool(pool: ModelPool, jobs: Iterable[TrainingJob], root: Path) -> ModelPool:
    """Return the models of finished jobs as a pool from which they can be scored."""
    models = [
        UnitModel(
            partition=job.name,
            index=0,
            fingerprint=job.fingerprint,
            folder=str(job.path.relative_to(root)),
            digest=published_digest(job.path),
            tokens=job.recipe.tokens,
        )
        for job in jobs
    ]
    return ModelPool(
        seed=pool.seed,
        units=tuple(models),
        layout_fingerprint=pool.layout_fingerprint,
        tokenizer=pool.tokenizer,
        root=pool.root,
    )
