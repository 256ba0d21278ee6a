"""Workers killed while they work: training, scoring, reading. No number changes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.disturbing import LONGER, Run, lines, numbers

pytestmark = pytest.mark.faults
EVALUATORS = ("ray::ResourceTrainable", "ray::EvaluatorProcess")
TRAINERS = ("ray::RayTrainWorker",)


@pytest.mark.parametrize("rng_seed", [0, 1])
def test_training_workers_killed_at_random_steps(
    rng_seed: int, place: Path, calm: dict[str, Any]
) -> None:
    draw = random.Random(rng_seed)
    run = Run(place)
    logs = run.work / "logs/train-*"
    at, killed = 0, 0
    while killed < 5:
        at += draw.randint(15, 90)  # of about 560 steps in all; some are done again
        run.wait_until(lambda at=at: lines(logs) >= at or (run.work / "trials.jsonl").exists())
        if (run.work / "trials.jsonl").exists():
            break
        killed += run.kill_children(*TRAINERS)
    run.finish()
    assert killed >= 3
    assert numbers(run.work) == calm


def test_two_workers_of_a_run_killed_one_by_one(place: Path) -> None:
    """With two workers a gradient is summed in another order: compared with two workers in peace."""
    pair = "cpus: 2\ntrain: {workers_per_run: 2, checkpoint_seconds: 0.3, max_failures: 20}\n"
    overrides = (*LONGER, "search.trials=1")
    calm = Run(place, overrides=overrides, cluster=pair)
    calm.finish()
    reference = numbers(calm.work)
    calm.work.rename(place / "calm")
    run = Run(place, overrides=overrides, cluster=pair)
    for at in (30, 90, 200):
        run.wait_until(lambda at=at: lines(run.work / "logs/train-*") >= at)
        assert run.kill_children(*TRAINERS)
    run.finish()
    assert numbers(run.work) == reference


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        (
            "search.space={kind: simplex}",
            "search.algorithm=random",
            "search.trials=30",
            "search.racing={alpha: 0.2}",
        ),
    ],
    ids=["plain", "raced"],
)
def test_killed_evaluators(place: Path, overrides: tuple[str, ...]) -> None:
    first = Run(place, overrides=(*LONGER, *overrides))
    first.finish()
    reference = numbers(first.work)
    journal = first.work / "trials.jsonl"
    journal.unlink()
    again = Run(place, "search", overrides=(*LONGER, *overrides))
    killed = 0
    for rows in (1, 3, 6):
        again.wait_until(lambda rows=rows: lines(journal) >= rows)
        killed += again.kill_children(*EVALUATORS)
    again.finish()
    assert killed
    assert numbers(again.work) == reference


def test_killed_readers_and_loaders(place: Path, calm: dict[str, Any]) -> None:
    """Any Ray worker that is at a task: preparing the corpus, loading the pool."""
    run = Run(place)
    killed = 0
    while not (run.work / "corpus/corpus.json").exists() and killed < 4 and not run.ended:
        killed += run.kill_children("ray::_call")
    run.finish()
    assert killed
    assert numbers(run.work) == calm
