"""What the report says, gathered from the parts of a study. Values only."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from ablate.corpus import Corpus
from ablate.models.pool import ModelPool
from ablate.report.agreement import measured_on
from ablate.report.answer import Answer, answer_of
from ablate.report.costs import Costs, costs_of, read_trainings
from ablate.report.effects import Estimate, effects_of, interactions_of
from ablate.report.ranking import Placed, placed
from ablate.search.leaderboard import Leaderboard
from ablate.search.table import Trial
from ablate.study import Study, to_yaml

PACKAGES = ("ablate", "ray", "torch", "deepspeed", "transformers", "tokenizers", "datasets",
            "numpy", "scipy", "plotly")  # fmt: skip
MOST_UNIT_ROWS = 300
"""Rows of the heat map; a pool of more units shows each partition's mean."""


@dataclass(frozen=True, kw_only=True, eq=False)
class UnitLosses:
    """Losses relative to the seed's: `values` [rows, columns], nats per token; below zero, better.

    Rows are units, those of the best partition first; columns the objective, evaluation domains,
    then held-out splits in the order of the rows. `averaged` says that a row is a partition's mean.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: np.ndarray
    averaged: bool


@dataclass(frozen=True, kw_only=True)
class Origin:
    """How to get the same results again."""

    study: str
    versions: dict[str, str]
    fingerprints: dict[str, str]


@dataclass(frozen=True, kw_only=True, eq=False)
class ReportContent:
    """Everything that the page shows. `agreement` is what agreement.json holds, None before it.

    `measured_on` says what else than the present objective and texts it was measured on, if any.
    """

    name: str
    board: Leaderboard
    corpus: Corpus
    answer: Answer
    places: tuple[Placed, ...]
    units: UnitLosses | None
    effects: Estimate
    interactions: Estimate
    costs: Costs
    agreement: Mapping[str, Any] | None
    measured_on: str
    origin: Origin


def gather(
    board: Leaderboard,
    *,
    study: Study,
    corpus: Corpus,
    pool: ModelPool,
    plan: Mapping[str, Any] | None = None,
    agreement: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
) -> ReportContent:
    """Return the content of a study's report.

    `plan` is `Plan.to_json()`, without which there are no costs in FLOPs; `agreement` is the object
    of agreement.json, `texts[domain]` the fingerprints of the evaluated texts. Of the workspace,
    only the models' training.json are read.
    """
    answer = answer_of(board)
    return ReportContent(
        name=study.name,
        board=board,
        corpus=corpus,
        answer=answer,
        places=placed(board, answer.leaders, answer.level),
        units=unit_losses(board, corpus),
        effects=effects_of(board, answer.level),
        interactions=interactions_of(board, answer.level),
        costs=costs_of(board, plan, read_trainings(pool)),
        agreement=agreement,
        measured_on=measured_on(agreement, board.weights, texts or {}) if agreement else "",
        origin=Origin(
            study=to_yaml(study),
            versions=_versions(),
            fingerprints={
                "corpus": corpus.fingerprint,
                "tokenizer": corpus.tokenizer.fingerprint,
                "seed": pool.seed.fingerprint,
                "pool": pool.fingerprint,
                "parameter layout": pool.layout_fingerprint,
            },
        ),
    )


def unit_losses(board: Leaderboard, corpus: Corpus) -> UnitLosses | None:
    """Return the losses of the units relative to the seed; None when seed or units have none."""
    seed = next((r for r in board.trials if r.candidate.kind == "seed" and r.scores), None)
    units = [row for row in board.trials if row.candidate.kind == "unit" and row.scores]
    if seed is None or not units:
        return None
    averaged = len(units) > MOST_UNIT_ROWS
    names = list(board.domains)
    base = _losses(seed, names)
    gains = {
        name: np.array([_losses(row, names) - base for row in units if row.partitions == (name,)])
        for name in dict.fromkeys(row.partitions[0] for row in units)
    }
    weights = np.array([board.weights.get(name, 0.0) for name in names])
    order = sorted(gains, key=lambda name: (float(gains[name].mean(axis=0) @ weights), name))
    columns = _columns(names, order, corpus)
    values, labels = [], []
    for name in order:
        rows = gains[name].mean(axis=0, keepdims=True) if averaged else gains[name]
        values += [[row @ weights, *row[columns]] for row in rows]
        labels += [name if len(rows) == 1 else f"{name} {index}" for index in range(len(rows))]
    return UnitLosses(
        rows=tuple(labels),
        columns=("objective", *(names[place] for place in columns)),
        values=np.array(values),
        averaged=averaged,
    )


def _losses(row: Trial, names: list[str]) -> np.ndarray:
    return np.array([row.scores[n].loss if n in row.scores else np.nan for n in names])


def _columns(names: list[str], order: list[str], corpus: Corpus) -> list[int]:
    """Return the places of the columns: evaluation domains, then held-out splits as the rows are."""
    held = {name for name, info in corpus.domains.items() if info.kind == "heldout"}
    rank = {name: place for place, name in enumerate(order)}
    keys = [(name in held, rank.get(name, len(rank)), name) for name in names]
    return sorted(range(len(names)), key=keys.__getitem__)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
