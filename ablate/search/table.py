"""The table of trials: one row per scored model, as Parquet."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ablate.evaluate.statistics import DomainScore
from ablate.search.candidates import Candidate
from ablate.search.journal import Scored, Stopped
from ablate.search.objective import objective_value
from ablate.workspace import SCHEMA_VERSION, write_atomic

KIND_ORDER = ("seed", "unit", "proxy", "trained")


class Predicted(NamedTuple):
    """What a model trained on a mixture is predicted to lose, nats per token, with its interval."""

    loss: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One row: a scored model. Losses in nats per token; None where the trial failed.

    `stopped` is there when a race stopped it: then it has no losses, and an estimate. `predicted`
    (by domain) and `predicted_objective` are there once `validate` has calibrated the proxies.
    """

    candidate: Candidate
    scores: Mapping[str, DomainScore]
    objective: float | None
    member_objective: float | None
    merge_seconds: float
    evaluate_seconds: float
    error: str | None
    stopped: Stopped | None = None
    predicted: Mapping[str, Predicted] = field(default_factory=dict)
    predicted_objective: Predicted | None = None

    @property
    def partitions(self) -> tuple[str, ...]:
        """Return the members, sorted; empty for the seed."""
        return self.candidate.mixture.partitions if self.candidate.mixture else ()

    @property
    def size(self) -> int:
        """Return the number of partitions."""
        return len(self.partitions)

    @property
    def losses(self) -> dict[str, float]:
        """Return loss[domain] in nats per token."""
        return {name: score.loss for name, score in self.scores.items()}

    def sort_key(self) -> tuple[Any, ...]:
        """Return the order of the table: kind, size, partitions, merge, then unit and weights."""
        candidate = self.candidate
        weights = candidate.mixture.weights if candidate.mixture else ()
        return (
            KIND_ORDER.index(candidate.kind),
            self.size,
            self.partitions,
            candidate.merge or "",
            -1 if candidate.unit is None else candidate.unit,
            weights,
        )


def build_trial(
    candidate: Candidate,
    scored: Scored,
    domains: Mapping[str, str],
    weights: Mapping[str, float],
    unit_losses: Mapping[tuple[str, int], Mapping[str, float]],
) -> Trial:
    """Return the row of a candidate.

    `domains[name]` are fingerprints, `weights[name]` the objective's. `unit_losses[member][name]`
    give `member_objective`: the weighted mean of the members' own objectives, the baseline that a
    merge has to beat.
    """
    known = {n: scored.scores[mark] for n, mark in domains.items() if mark in scored.scores}
    # Where every score is there, the trial that failed asked for slopes, or for a domain of before.
    error = None if len(known) == len(domains) else scored.error
    complete = error is None and all(name in known for name in weights)
    losses = {name: score.loss for name, score in known.items()}
    members = None
    if candidate.kind == "proxy" and candidate.mixture is not None:
        units: dict[str, list[float]] = {}
        for (partition, _), losses_of in unit_losses.items():
            if all(name in losses_of for name in weights):
                units.setdefault(partition, []).append(objective_value(weights, losses_of))
        if all(name in units for name in candidate.mixture.partitions):
            members = sum(
                share * sum(units[name]) / len(units[name])
                for name, share in candidate.mixture.weights
            )
    return Trial(
        candidate=candidate,
        scores=known,
        objective=objective_value(weights, losses) if complete else None,
        member_objective=members,
        merge_seconds=scored.merge_seconds,
        evaluate_seconds=scored.evaluate_seconds,
        error=error,
        stopped=None if complete else scored.stopped,
    )


def write_table(path: Path, trials: Sequence[Trial], domains: Sequence[str]) -> None:
    """Write `trials.parquet`, atomically, rows sorted, columns as the design page names them."""
    buffer = io.BytesIO()
    pq.write_table(to_arrow(trials, domains), buffer)
    write_atomic(path, buffer.getvalue())


def to_arrow(trials: Sequence[Trial], domains: Sequence[str]) -> pa.Table:
    """Return the table; `loss/`, `stderr/` and `bits_per_byte/` have one column per domain."""
    rows = sorted(trials, key=Trial.sort_key)
    kinds = pa.string()
    columns: dict[str, pa.Array] = {
        "trial": pa.array([row.candidate.key for row in rows], kinds),
        "kind": pa.array([row.candidate.kind for row in rows], kinds),
        "merge": pa.array([row.candidate.merge for row in rows], kinds),
        "unit": pa.array([row.candidate.unit for row in rows], pa.int64()),
        "partitions": pa.array([list(row.partitions) for row in rows], pa.list_(kinds)),
        "weights": pa.array([_weights(row) for row in rows], pa.list_(pa.float64())),
        "size": pa.array([row.size for row in rows], pa.int64()),
        "tokens": pa.array([row.candidate.tokens for row in rows], pa.int64()),
        "objective": pa.array([row.objective for row in rows], pa.float64()),
        "member_objective": pa.array([row.member_objective for row in rows], pa.float64()),
        **_predicted(rows),
        "estimate": _floats(row.stopped and row.stopped.estimate for row in rows),
    }
    for name in domains:
        scores = [row.scores.get(name) for row in rows]
        columns[f"loss/{name}"] = _floats(s.loss if s else None for s in scores)
        columns[f"stderr/{name}"] = _floats(s.stderr if s else None for s in scores)
        columns[f"predicted/{name}"] = _floats(
            row.predicted[name].loss if name in row.predicted else None for row in rows
        )
        columns[f"bits_per_byte/{name}"] = _floats(s.bits_per_byte if s else None for s in scores)
    columns["evaluated_tokens"] = pa.array([_evaluated(row) for row in rows], pa.int64())
    columns["merge_seconds"] = _floats(row.merge_seconds for row in rows)
    columns["evaluate_seconds"] = _floats(row.evaluate_seconds for row in rows)
    columns["error"] = pa.array([row.error for row in rows], kinds)
    table = pa.table(columns)
    return table.replace_schema_metadata({"schema_version": str(SCHEMA_VERSION)})


def _predicted(rows: Sequence[Trial]) -> dict[str, pa.Array]:
    found = [row.predicted_objective for row in rows]
    return {
        "predicted": _floats(one and one.loss for one in found),
        "predicted_lower": _floats(one and one.lower for one in found),
        "predicted_upper": _floats(one and one.upper for one in found),
    }


def _evaluated(row: Trial) -> int:
    seen = row.stopped.tokens if row.stopped else 0
    return seen + sum(score.tokens for score in row.scores.values())


def _floats(values: Any) -> pa.Array:
    return pa.array(list(values), pa.float64())


def _weights(trial: Trial) -> list[float]:
    mixture = trial.candidate.mixture
    return [weight for _, weight in mixture.weights] if mixture else []
