"""The recipe: everything about a training run that changes its result, as plain numbers.

It comes from the study alone, so a laptop and a cluster train the same thing (to rounding).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, replace
from typing import Any

from ablate.errors import StudyError
from ablate.resources import TrainResources
from ablate.study import Study

MICRO_BATCH_LIMIT = 8
FLOPS_PER_PARAMETER_AND_TOKEN = 6
FORWARD_FLOPS_PER_PARAMETER_AND_TOKEN = 2


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How one model is trained: `steps` optimizer steps of `batch_tokens` tokens each.

    The model is the mean of the weights after its last `average_steps` steps; 0 = the last weights.
    """

    steps: int
    batch_tokens: int
    sequence_length: int
    peak: float
    schedule: str
    warmup_steps: int
    decay_steps: int
    final_share: float
    weight_decay: float
    betas: tuple[float, float]
    epsilon: float
    clip: float | None
    precision: str
    carry_moments: bool
    rng_seed: int
    average_steps: int = 0

    @property
    def tokens(self) -> int:
        """Return the tokens that are trained on in all steps."""
        return self.steps * self.batch_tokens

    @property
    def batch_sequences(self) -> int:
        """Return the sequences in one optimizer step."""
        return self.batch_tokens // self.sequence_length

    def learning_rate(self, step: int) -> float:
        """Return the rate of optimizer step `step`, counted from 0.

        The rate rises linearly to the peak, which step `warmup_steps - 1` has; the last step of
        cosine and wsd has `final_share` of the peak. (wsd: arXiv 2404.06395.)
        """
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        low = self.final_share
        if self.schedule == "cosine":
            done = (step + 1 - self.warmup_steps) / max(1, self.steps - self.warmup_steps)
            return self.peak * (low + (1 - low) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)
        decaying = step + 1 - (self.steps - self.decay_steps)
        if self.schedule == "wsd" and decaying > 0:
            return self.peak * (1 - (1 - low) * decaying / self.decay_steps)
        return self.peak

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for fingerprints and `training.json`."""
        values = {**dataclasses.asdict(self), "betas": list(self.betas)}
        if not self.average_steps:  # recipes without it keep the fingerprints they had before it
            del values["average_steps"]
        return values


def own_tokens(study: Study, unit_tokens: int) -> int:
    """Return how many of its own tokens a unit of `unit_tokens` tokens is trained on.

    In whole steps of the recipe: one pass unless the study says more.
    """
    return _recipe(study, study.train.tokens_per_unit or unit_tokens).tokens


def replayed_tokens(study: Study, tokens: int) -> int:
    """Return the replayed tokens that go with `tokens` of a unit's own."""
    replay = study.train.replay
    return 0 if replay is None else round(tokens * replay.fraction / (1 - replay.fraction))


def unit_recipe(study: Study, unit_tokens: int) -> Recipe:
    """Return the recipe of a unit of `unit_tokens` tokens, what is replayed beside them included."""
    tokens = study.train.tokens_per_unit or unit_tokens
    recipe = _recipe(study, tokens + replayed_tokens(study, tokens))
    share = study.train.average
    if share is None:
        return recipe
    return replace(recipe, average_steps=max(1, round(share * recipe.steps)))


def trained_recipe(study: Study, tokens: int) -> Recipe:
    """Return the units' recipe over `tokens` tokens, for a model trained on a whole mixture."""
    return _recipe(study, tokens)


def seed_recipe(study: Study, tokens: int) -> Recipe:
    """Return the recipe of the seed model's own pre-training on `tokens` tokens (one pass)."""
    seed = study.seed
    return _recipe(
        study,
        seed.tokens or tokens,
        peak=seed.learning_rate,
        schedule=seed.schedule,
        warmup=seed.warmup,
        carry_moments=False,
    )


def _recipe(
    study: Study,
    tokens: int,
    *,
    peak: float | None = None,
    schedule: str | None = None,
    warmup: float | None = None,
    carry_moments: bool | None = None,
) -> Recipe:
    train, length = study.train, study.train.sequence_length
    # What is less than a batch is one step over all of it, not over several passes.
    batch = min(train.batch_tokens, max(length, tokens - tokens % length))
    steps = max(1, tokens // batch)
    warmup = train.warmup if warmup is None else warmup
    warmup_steps = math.ceil(warmup * steps - 1e-9) if warmup < 1 else int(warmup)
    return Recipe(
        steps=steps,
        batch_tokens=batch,
        sequence_length=length,
        peak=train.learning_rate if peak is None else peak,
        schedule=schedule or train.schedule,
        warmup_steps=warmup_steps,
        decay_steps=min(round(train.decay * steps), max(0, steps - warmup_steps)),
        final_share=train.final_learning_rate,
        weight_decay=train.weight_decay,
        betas=train.betas,
        epsilon=train.epsilon,
        clip=train.clip,
        precision=train.precision,
        carry_moments=train.carry_moments if carry_moments is None else carry_moments,
        rng_seed=train.rng_seed,
    )


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One optimizer step as the workers share it: `workers x passes x sequences` sequences."""

    workers: int
    passes: int
    sequences: int


def check_batch(recipe: Recipe, resources: TrainResources) -> Batch:
    """Return how the workers share a batch of `recipe`.

    A pass has the largest number of sequences that divides a worker's share and is within
    `train.micro_batch_sequences` (8 when that is null). Raises StudyError when the batch does
    not divide by the workers.
    """
    return share_batch(recipe, resources.workers_per_run, resources.micro_batch_sequences)


def share_batch(recipe: Recipe, workers: int, micro_batch_sequences: int | None) -> Batch:
    """Return how `workers` share a batch; see `check_batch`."""
    share, rest = divmod(recipe.batch_sequences, workers)
    if rest or share == 0:
        raise StudyError(
            "train.batch_tokens must be a multiple of train.sequence_length x workers_per_run = "
            f"{recipe.sequence_length} x {workers} = {recipe.sequence_length * workers}, got "
            f"{recipe.batch_tokens}; change it, or train.workers_per_run in the cluster file"
        )
    limit = min(micro_batch_sequences or MICRO_BATCH_LIMIT, share)
    sequences = next(size for size in range(limit, 0, -1) if share % size == 0)
    return Batch(workers=workers, passes=share // sequences, sequences=sequences)


def check_tokens(name: str, tokens: int, recipe: Recipe) -> None:
    """Raise StudyError when `tokens` of text do not fill one sequence of `recipe`."""
    if tokens < recipe.sequence_length:
        raise StudyError(
            f"{name} must have at least one sequence of {recipe.sequence_length} tokens, got "
            f"{tokens} tokens; lower train.sequence_length, or give it more text"
        )


def flops(parameters: int, tokens: int) -> int:
    """Return the training FLOPs of `parameters` on `tokens`: 6 N D (arXiv 2001.08361)."""
    return FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens


def forward_flops(parameters: int, tokens: int) -> int:
    """Return the FLOPs of scoring `tokens` with `parameters`: 2 N D (arXiv 2001.08361)."""
    return FORWARD_FLOPS_PER_PARAMETER_AND_TOKEN * parameters * tokens
