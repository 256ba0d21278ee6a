"""The answer: the best mixture, how much better it is than what else one might do, how sure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scipy import stats

from ablate.errors import StudyError
from ablate.mixture import member_mixture
from ablate.report.wording import mixture_label
from ablate.search.leaderboard import Leaderboard
from ablate.search.leaders import Leaders, leaders_of
from ablate.search.spaces import SubsetSpace
from ablate.search.table import Trial

EVERYTHING = "everything"
SINGLE = "best single partition"
RUNNER_UP = "runner-up"
RUNNER_UP_OF_SIZE = "runner-up of its size"
SEED = "seed, untouched"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The best mixture beside another model, scored on the same text.

    `value` is what mixtures are ranked by (see `worth`), `gain` how much lower that of the best one
    is, in nats per token. [lower, upper] is the paired interval of a gain in objective, `probability`
    that it is above zero: None where the sums were not kept, or where predictions are compared.
    `interval` is that of the other's own prediction; `trained` the loss of a model truly trained,
    and `is_trained` says that the other is that model, so that nothing of it is predicted.
    """

    kind: str
    row: Trial
    label: str
    value: float
    interval: tuple[float, float] | None
    trained: float | None
    is_trained: bool
    gain: float
    lower: float | None
    upper: float | None
    probability: float | None
    same_size: bool

    @property
    def perplexity_gain(self) -> float:
        """Return the share by which the best one's perplexity is lower: 1 - exp(-gain)."""
        return -math.expm1(-self.gain)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the first section says; `best` is None when no mixture is scored.

    `value` is what the best is best by, `interval` that of its prediction; `trained` the loss of a
    model truly trained on it. `everything_missing` says whether the mixture of all partitions still
    has to be scored, `is_everything` whether the best one is that.
    """

    best: Trial | None
    label: str
    value: float | None
    interval: tuple[float, float] | None
    trained: float | None
    calibrated: bool
    scored: int
    comparisons: tuple[Comparison, ...]
    leaders: Leaders | None
    everything_missing: bool
    is_everything: bool
    level: float

    def against(self, kind: str) -> Comparison | None:
        """Return the comparison of a kind, None where there is none."""
        return next((item for item in self.comparisons if item.kind == kind), None)


def answer_of(board: Leaderboard, level: float = 0.95) -> Answer:
    """Return the answer of a board: its best mixture, and what that is held against."""
    rows = board.mixtures
    best = rows[0] if rows else None
    everything = _everything(board)
    rivals = [] if best is None else _rivals(board, best, everything)
    return Answer(
        best=best,
        label="" if best is None else mixture_label(best, board),
        value=None if best is None else board.worth(best),
        interval=None if best is None else predicted_interval(board, best),
        trained=None if best is None else trained_loss(board, best),
        calibrated=board.is_calibrated,
        scored=len(rows),
        comparisons=tuple(
            compare(board, best, row, kind, level)
            for kind, row in rivals
            if best and row and not _same(best, row) and board.worth(row) is not None
        ),
        leaders=leaders_of(board, level),
        everything_missing=everything is None,
        is_everything=best is not None and everything is not None and _same(best, everything),
        level=level,
    )


def predicted_interval(board: Leaderboard, row: Trial) -> tuple[float, float] | None:
    """Return the interval of a row's predicted loss on a calibrated board, else None.

    A model that is its own training has none: its loss is known.
    """
    found = row.predicted_objective if board.is_calibrated else None
    return None if found is None or _is_training(board, row) else (found.lower, found.upper)


def _is_training(board: Leaderboard, row: Trial) -> bool:
    """Return whether a row is the model trained on its mixture: its prediction is certain."""
    found = row.predicted_objective if board.is_calibrated else None
    return found is not None and found.lower == found.upper


def trained_loss(board: Leaderboard, row: Trial) -> float | None:
    """Return the mean objective of the models truly trained on a row's mixture, None without any."""
    mixture = row.candidate.mixture
    found = [
        other.objective
        for other in board.trained
        if mixture is not None
        and other.objective is not None
        and other.candidate.mixture is not None
        and other.candidate.mixture.key() == mixture.key()
    ]
    return sum(found) / len(found) if found else None


def compare(board: Leaderboard, best: Trial, row: Trial, kind: str, level: float) -> Comparison:
    """Return how far `best` lies below `row`, both ranked by something."""
    value, least = board.worth(row), board.worth(best)
    assert value is not None and least is not None
    lower, upper, probability = _paired(board, best, row, level)
    is_trained = _is_training(board, row)
    return Comparison(
        kind=kind,
        row=row,
        label=mixture_label(row, board),
        value=value,
        interval=predicted_interval(board, row),
        trained=value if is_trained else trained_loss(board, row),
        is_trained=is_trained,
        gain=value - least,
        lower=lower,
        upper=upper,
        probability=probability,
        same_size=row.size == best.size,
    )


def _paired(
    board: Leaderboard, best: Trial, row: Trial, level: float
) -> tuple[float | None, float | None, float | None]:
    """Return the interval of the gain in objective and the probability that it is above zero."""
    if board.is_calibrated or best.objective is None or row.objective is None:
        return None, None, None
    try:
        found = board.compare(best, row)
    except StudyError:  # scored by an earlier version, which kept no sums: no test, no interval
        return None, None, None
    half = float(stats.t.isf((1 - level) / 2, found.freedom)) * found.stderr
    gain = row.objective - best.objective
    return gain - half, gain + half, found.probability


def _same(one: Trial, other: Trial) -> bool:
    """Return whether two rows are of one mixture, though by different merges of it."""
    mixture, beside = one.candidate.mixture, other.candidate.mixture
    return mixture is not None and beside is not None and mixture.key() == beside.key()


def _rivals(
    board: Leaderboard, best: Trial, everything: Trial | None
) -> list[tuple[str, Trial | None]]:
    runner_up = _second(board, board.mixtures)
    of_size = _second(board, [row for row in board.mixtures if row.size == best.size])
    return [
        (EVERYTHING, everything),
        (SINGLE, _single(board)),
        (RUNNER_UP, runner_up),
        (RUNNER_UP_OF_SIZE, None if of_size is runner_up else of_size),
        (SEED, _lowest(board, (row for row in board.trials if row.candidate.kind == "seed"))),
    ]


def _second(board: Leaderboard, rows: Sequence[Trial]) -> Trial | None:
    """Return the first of ranked rows that is not almost the same as the best one."""
    return next((row for _, row in board.apart(rows, 2)[1:]), None)


def _everything(board: Leaderboard) -> Trial | None:
    """Return the mixture of all of the pool's partitions, as the text is; None when not scored."""
    weighting = board.space.weighting if isinstance(board.space, SubsetSpace) else "micro"
    wanted = member_mixture(sorted(board.units), board.units, weighting).key()
    rows = (row for row in board.trials if _is_whole(row, board))
    return _lowest(
        board, (r for r in rows if r.candidate.mixture and r.candidate.mixture.key() == wanted)
    )


def _single(board: Leaderboard) -> Trial | None:
    """Return the best single partition; one whose units were not merged counts by its best unit."""
    alone = [row for row in board.trials if row.size == 1 and row.objective is not None]
    whole = [row for row in alone if _is_whole(row, board)]
    merged = {row.partitions for row in whole}
    units = [r for r in alone if r.candidate.kind == "unit" and r.partitions not in merged]
    return _lowest(board, [*whole, *units])


def _is_whole(row: Trial, board: Leaderboard) -> bool:
    """Return whether a row stands for all units of its partitions under the present merge."""
    if row.candidate.kind == "unit":
        return board.units.get(row.partitions[0]) == 1
    return row.candidate.kind == "proxy" and row.candidate.merge in board.merges


def _lowest(board: Leaderboard, rows: Iterable[Trial]) -> Trial | None:
    """Return the row that is ranked first; those that are ranked by nothing come last."""

    def key(row: Trial) -> tuple[float, float, tuple[str, ...]]:
        value = board.worth(row)
        return math.inf if value is None else value, row.objective or 0.0, row.partitions

    return min((row for row in rows if row.objective is not None), key=key, default=None)
