"""Laws of the recipe: schedules, steps, and how a batch is shared."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from ablate.errors import StudyError
from ablate.resources import TrainResources
from ablate.study import Study
from ablate.train.recipe import check_batch, flops, seed_recipe, trained_recipe, unit_recipe
from tests.train.runs import RECIPE


def study(**train: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "workspace": "w",
            "corpus": {"sources": [{"path": "a", "partition": "a"}]},
            "model": {"path": "m"},
            "seed": {"sources": [{"path": "a"}], "learning_rate": 1e-2, "schedule": "cosine"},
            "train": {"sequence_length": 64, "batch_tokens": 640, **train},
        }
    )


def test_constant_rate_rises_then_stays() -> None:
    recipe = replace(RECIPE, schedule="constant", steps=10, warmup_steps=4, peak=8.0)
    assert [recipe.learning_rate(step) for step in range(6)] == [2, 4, 6, 8, 8, 8]


def test_cosine_ends_at_its_share_and_never_rises() -> None:
    recipe = replace(RECIPE, steps=100, warmup_steps=10, peak=1.0, final_share=0.1)
    rates = [recipe.learning_rate(step) for step in range(100)]
    assert max(rates) == rates[9] == 1.0
    assert rates[-1] == pytest.approx(0.1)
    assert rates[54] == pytest.approx(0.55)
    assert all(late <= early for early, late in pairwise(rates[9:]))


def test_wsd_is_flat_then_linear() -> None:
    recipe = replace(
        RECIPE, schedule="wsd", steps=10, warmup_steps=2, decay_steps=4, peak=1.0, final_share=0.2
    )
    rates = [recipe.learning_rate(step) for step in range(10)]
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])


def test_steps_are_whole_batches_and_at_least_one() -> None:
    assert unit_recipe(study(), 6_500).steps == 10
    small = unit_recipe(study(), 100)
    assert (small.steps, small.tokens) == (1, 64)  # what is less than a batch is one step over it
    assert unit_recipe(study(tokens_per_unit=1_280), 6_400).steps == 2


def test_warmup_is_a_share_below_one_else_steps() -> None:
    assert unit_recipe(study(warmup=0.25), 6_400).warmup_steps == 3
    assert unit_recipe(study(warmup=7), 6_400).warmup_steps == 7
    assert unit_recipe(study(warmup=0), 6_400).warmup_steps == 0


def test_the_seed_has_its_own_rate_and_never_starts_from_moments() -> None:
    recipe = seed_recipe(study(carry_moments=True), 6_400)
    assert (recipe.peak, recipe.schedule, recipe.carry_moments) == (1e-2, "cosine", False)
    assert unit_recipe(study(carry_moments=True), 6_400).carry_moments


@pytest.mark.parametrize(
    ("workers", "limit", "passes", "sequences"),
    [(1, None, 2, 5), (2, None, 1, 5), (5, 1, 2, 1), (1, 4, 5, 2), (10, 8, 1, 1)],
)
def test_a_batch_is_shared_whole(workers: int, limit: int, passes: int, sequences: int) -> None:
    resources = TrainResources(workers_per_run=workers, micro_batch_sequences=limit)
    batch = check_batch(unit_recipe(study(), 6_400), resources)
    assert (batch.passes, batch.sequences) == (passes, sequences)
    assert batch.workers * batch.passes * batch.sequences == 10


@pytest.mark.parametrize("workers", [3, 20])
def test_a_batch_that_does_not_divide_is_refused(workers: int) -> None:
    with pytest.raises(StudyError, match=r"train\.batch_tokens must be a multiple .* got 640"):
        check_batch(unit_recipe(study(), 6_400), TrainResources(workers_per_run=workers))


def test_flops_is_six_n_d() -> None:
    assert flops(10, 7) == 420


def test_only_units_are_averaged_and_recipes_without_keep_their_fingerprints() -> None:
    averaged = study(average=0.25)
    assert unit_recipe(averaged, 640 * 100).average_steps == 25
    assert unit_recipe(study(average=1e-9), 640 * 100).average_steps == 1
    for whole in (trained_recipe(averaged, 6400), seed_recipe(averaged, 6400)):
        assert "average_steps" not in whole.to_json()
