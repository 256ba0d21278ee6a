"""How many evaluations an algorithm needs on recorded landscapes.

A landscape is the table of a finished search that scored every subset: `landscapes/NAME.parquet`,
made by `python -m bench.search.record STUDY.yaml NAME` (the studies lie beside them). Algorithms
are asked and told as in a search; a value is looked up instead of merged and evaluated. Several
objectives of one landscape are several problems. Random is the baseline: exact expectation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from ablate.mixture import Mixture
from ablate.search.algorithms import ALGORITHMS, Task
from ablate.search.conversation import Conversation
from ablate.search.spaces import Partitions, make_space
from ablate.study import SpaceSettings
from bench._numbers import at_most

FOLDER = Path(__file__).parent / "landscapes"
WITHIN = (0.0, 0.001, 0.01)  # of the optimum: reached when value <= optimum * (1 + share)
TRIALS = 120
AIM = 60
RUNS = {
    "surrogate": 3,
    "ensemble-first": 1,
    "greedy-forward-swaps": 1,
    "tpe": 3,
    "random": 3,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape:
    """Losses [subsets] by domain and by row of member masks bool [subsets, partitions]."""

    name: str
    partitions: tuple[str, ...]
    masks: np.ndarray
    losses: dict[str, np.ndarray]
    ensemble: dict[str, np.ndarray]
    heldout: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A landscape under one objective: value[mask] of the merge and of the ensemble."""

    name: str
    landscape: Landscape
    value: dict[bytes, float]
    ensemble: dict[bytes, float]


def run() -> list[dict[str, Any]]:
    """Return evaluations to the optimum, median over problems and seeds, by algorithm."""
    numbers = []
    for file in sorted(FOLDER.glob("*.parquet")):
        problems = problems_of(read(file))
        for algorithm, seeds in RUNS.items():
            counts = [
                evaluations(problem, algorithm, seed)
                for problem in problems
                for seed in range(seeds)
            ]
            numbers += _numbers(file.stem, algorithm, counts, len(problems[0].value))
    return numbers


def _numbers(
    name: str, algorithm: str, counts: list[tuple[int, ...]], subsets: int
) -> list[dict[str, Any]]:
    found = []
    for place, share in enumerate(WITHIN):
        values = [count[place] for count in counts]
        aimed = algorithm == "surrogate" and share == 0.001 and subsets > AIM
        worst = max(values)
        found.append(
            at_most(
                f"search/{name}/{algorithm}/{share:.1%}",
                median(values),
                "evaluations",
                float(AIM) if aimed else None,
                f"most {worst if worst <= TRIALS else f'over {TRIALS}'}; reached by "
                f"{sum(v <= TRIALS for v in values)} of {len(values)} searches of {subsets:,} "
                "subsets",
            )
        )
    return found


def evaluations(problem: Problem, algorithm: str, seed: int) -> tuple[int, ...]:
    """Return after how many evaluations a search came within each of `WITHIN`.

    One more than `TRIALS` where it did not.
    """
    land = problem.landscape
    ones = dict.fromkeys(land.partitions, 1)
    facts = Partitions(units=ones, tokens=ones, available=ones)
    space = make_space(SpaceSettings(), facts, "micro")

    def ensemble(weights: np.ndarray) -> np.ndarray:
        return np.array([problem.ensemble[row.tobytes()] for row in weights > 0])

    task = Task(space=space, rng_seed=seed, trials=TRIALS, ensemble=ensemble)
    talk = Conversation(ALGORITHMS[algorithm](task), TRIALS)
    optimum, best, reached = min(problem.value.values()), np.inf, [TRIALS + 1] * len(WITHIN)
    for count in range(1, TRIALS + 1):
        mixture = talk.next()
        if not isinstance(mixture, Mixture):
            break
        mask = np.array([name in mixture.partitions for name in land.partitions])
        value = problem.value[mask.tobytes()]
        talk.result(mixture, value)
        best = min(best, value)
        for place, share in enumerate(WITHIN):
            if best <= optimum * (1 + share) + 1e-12:
                reached[place] = min(reached[place], count)
    return tuple(reached)


def read(file: Path) -> Landscape:
    """Return a recorded landscape."""
    table = pq.read_table(file)
    names = tuple(table.schema.metadata[b"partitions"].decode().split("\n"))
    members = table["members"].to_numpy()
    masks = (members[:, None] >> np.arange(len(names)) & 1).astype(bool)
    columns = {name: table[name].to_numpy().astype(np.float64) for name in table.column_names}
    domains = [name.removeprefix("loss/") for name in columns if name.startswith("loss/")]
    return Landscape(
        name=file.stem,
        partitions=names,
        masks=masks,
        losses={name: columns[f"loss/{name}"] for name in domains},
        ensemble={name: columns[f"ensemble/{name}"] for name in domains},
        heldout=tuple(name for name in domains if name in names),
    )


def problems_of(land: Landscape) -> list[Problem]:
    """Return the landscape under several objectives: all, outside, and three held-out splits."""
    outside = tuple(name for name in land.losses if name not in land.heldout)
    third = max(1, len(land.heldout) // 3)
    objectives = {
        "all": tuple(land.losses),
        "outside": outside,
        "first": land.heldout[:third],
        "second": land.heldout[third : 2 * third],
        "third": land.heldout[2 * third :],
    }
    return [
        Problem(
            name=f"{land.name}/{name}",
            landscape=land,
            value=_values(land, land.losses, domains),
            ensemble=_values(land, land.ensemble, domains),
        )
        for name, domains in objectives.items()
        if domains
    ]


def _values(
    land: Landscape, losses: dict[str, np.ndarray], domains: tuple[str, ...]
) -> dict[bytes, float]:
    means = np.mean([losses[name] for name in domains], axis=0)
    return {mask.tobytes(): float(v) for mask, v in zip(land.masks, means, strict=True)}
