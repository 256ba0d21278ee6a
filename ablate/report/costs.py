"""What the answer cost, and what the naive way would have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablate.models.checkpoint import read_training
from ablate.models.pool import ModelPool
from ablate.search.candidates import ENSEMBLE, LOGIT_ENSEMBLE
from ablate.search.leaderboard import Leaderboard
from ablate.search.table import Trial
from ablate.train.recipe import flops, forward_flops

KINDS = {"seed": "train the seed", "unit": "train the units", "trained": "train mixtures to check"}


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One kind of work: how often, on how many tokens; FLOPs and seconds where they are known.

    `seconds` add up over runs and evaluators, also over those that went on side by side.
    """

    name: str
    runs: int
    tokens: int
    flops: float | None
    seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The stages, and the naive way: training on every mixture (`mixtures`; None = a continuum).

    `naive_seconds` are at the speed of the training that was done; None where it is not known.
    """

    stages: tuple[Stage, ...]
    parameters: int | None
    mixtures: int | None
    naive_flops: float | None
    naive_seconds: float | None

    @property
    def flops(self) -> float:
        """Return what all stages took, as far as it is known."""
        return sum(stage.flops or 0.0 for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Return what all stages took, as far as it is known."""
        return sum(stage.seconds or 0.0 for stage in self.stages)

    @property
    def times(self) -> float | None:
        """Return how many times as many FLOPs the naive way takes; None where that is not known."""
        return self.naive_flops / self.flops if self.naive_flops and self.flops else None


def costs_of(
    board: Leaderboard, plan: Mapping[str, Any] | None, trainings: Sequence[Mapping[str, Any]]
) -> Costs:
    """Return the costs: `plan` is `Plan.to_json()`, `trainings` are what `read_trainings` gives."""
    known = plan or {}
    parameters = known.get("parameters")
    training = [stage for kind in KINDS if (stage := _training(kind, trainings, parameters))]
    naive = known.get("naive_flops")
    spent, seconds = (sum(getattr(s, key) or 0.0 for s in training) for key in ("flops", "seconds"))
    return Costs(
        stages=(*training, *_scoring(board, parameters)),
        parameters=parameters,
        mixtures=known.get("mixtures"),
        naive_flops=naive,
        naive_seconds=naive * seconds / spent if naive and spent and seconds else None,
    )


def read_trainings(pool: ModelPool) -> tuple[Mapping[str, Any], ...]:
    """Return training.json of the pool's models and of mixtures trained beside them.

    What is missing or altered is left out: models trained elsewhere need not have one.
    """
    root = Path(pool.root)
    folders = [root / pool.seed.folder, *(root / unit.folder for unit in pool.units)]
    folders += sorted((root / "models").glob("trained-*"))
    return tuple(found for folder in folders if (found := read_training(folder)))


def _training(
    kind: str, trainings: Iterable[Mapping[str, Any]], parameters: int | None
) -> Stage | None:
    mine = [found for found in trainings if found.get("kind") == kind]
    if not mine:
        return None
    tokens = sum(int(found.get("tokens") or 0) for found in mine)
    seconds = sum(float(found.get("seconds") or 0.0) for found in mine)
    return Stage(
        name=KINDS[kind],
        runs=len(mine),
        tokens=tokens,
        flops=flops(parameters, tokens) if parameters else None,
        seconds=seconds or None,
    )


def _scoring(board: Leaderboard, parameters: int | None) -> list[Stage]:
    rows = [row for row in board.trials if row.candidate.method not in (ENSEMBLE, LOGIT_ENSEMBLE)]
    merges = [row for row in rows if row.candidate.kind == "proxy"]
    tokens = sum(map(_scored_tokens, rows))
    merging = Stage(
        name="merge",
        runs=len(merges),
        tokens=0,
        flops=None,
        seconds=sum(row.merge_seconds for row in merges),
    )
    scoring = Stage(
        name="score",
        runs=len(rows),
        tokens=tokens,
        flops=forward_flops(parameters, tokens) if parameters else None,
        seconds=sum(row.evaluate_seconds for row in rows),
    )
    return [merging, scoring]


def _scored_tokens(row: Trial) -> int:
    stopped = row.stopped.tokens if row.stopped else 0
    return stopped + sum(score.tokens for score in row.scores.values())
