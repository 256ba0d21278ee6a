"""The leading mixtures with the intervals of their distance from the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ablate.report.answer import compare, predicted_interval
from ablate.report.wording import mixture_label
from ablate.search.leaderboard import Leaderboard
from ablate.search.leaders import Leaders
from ablate.search.plots import hover
from ablate.search.table import Trial

TOP = 30
MOST_SIZES = 60
"""Sizes whose best mixture is shown although it is not among the top."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A mixture with its place. Losses in nats per token; `value` is what it is ranked by.

    [lower, upper] is its objective give or take the paired interval of its distance from the best
    one (None where the sums were not kept, and for the best itself); on a calibrated board, the
    interval of its prediction. `leading` are the first that are not almost the same.
    """

    rank: int
    key: str
    label: str
    hover: str
    size: int
    value: float
    objective: float
    lower: float | None
    upper: float | None
    probability: float | None
    leads: bool
    best_of_size: bool
    leading: bool
    members: float | None
    ensemble: float | None


def placed(
    board: Leaderboard, leaders: Leaders | None, level: float = 0.95, top: int = TOP
) -> tuple[Placed, ...]:
    """Return the first `top` mixtures that differ and the best of each size, best first.

    Those that a calibrated board has no prediction of are left out.
    """
    rows = [row for row in board.mixtures if board.worth(row) is not None]
    firsts = {row.candidate.key for row in board.best_of_size.values()}
    leading = board.apart(rows, top)
    held = {rank for rank, _ in leading}
    late = [(rank, row) for rank, row in enumerate(rows, start=1)
            if rank not in held and row.candidate.key in firsts]  # fmt: skip
    return tuple(
        _placed(board, rank, row, leaders, row.candidate.key in firsts, rank in held, level)
        for rank, row in sorted([*leading, *_spread(late, MOST_SIZES)], key=lambda item: item[0])
    )


def _spread(items: Sequence[tuple[int, Trial]], most: int) -> list[tuple[int, Trial]]:
    """Return at most `most` items, evenly taken over the sizes."""
    ordered = sorted(items, key=lambda item: item[1].size)
    step = max(1, -(-len(ordered) // most))
    return sorted(ordered[::step], key=lambda item: item[0])


def _placed(
    board: Leaderboard,
    rank: int,
    row: Trial,
    leaders: Leaders | None,
    first: bool,
    leading: bool,
    level: float,
) -> Placed:
    best = board.mixtures[0]
    value, least = board.worth(row), board.worth(best)
    assert row.objective is not None and value is not None and least is not None
    beside = None if rank == 1 else compare(board, best, row, "", level)
    around = predicted_interval(board, row)
    if around is None and beside and beside.lower is not None and beside.upper is not None:
        around = least + beside.lower, least + beside.upper
    ensemble = board.ensemble_of(row) if row.candidate.kind == "proxy" else None
    return Placed(
        rank=rank,
        key=row.candidate.key,
        label=mixture_label(row, board),
        hover=hover(row),
        size=row.size,
        value=value,
        objective=row.objective,
        lower=None if around is None else around[0],
        upper=None if around is None else around[1],
        probability=None if beside is None else beside.probability,
        leads=leaders is not None and row.candidate.key in leaders.keys,
        best_of_size=first,
        leading=leading,
        members=row.member_objective,
        ensemble=None if ensemble is None else ensemble.objective,
    )
