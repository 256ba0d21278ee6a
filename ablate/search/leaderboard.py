"""The leaderboard: every scored model, the best mixture, and the best of each size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.errors import StudyError
from ablate.search import plots
from ablate.search.candidates import ENSEMBLE
from ablate.search.comparisons import compared, group_nats, rank_agreement, tied, undominated
from ablate.search.effects import interactions, leave_one_out, shapley
from ablate.search.leaders import leaders_of
from ablate.search.objective import objective_value
from ablate.search.paired import Difference, paired_scores
from ablate.search.spaces import Space, SubsetSpace
from ablate.search.table import Trial, to_arrow
from ablate.search.thinning import thinned

if TYPE_CHECKING:
    import pandas as pd

APART = 0.02  # share of the weight that two rows must place elsewhere to be shown beside each other


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All rows of a study under its present question.

    `domains` are the scored names; `merges` the labels of the present merge methods; `weights`
    the objective's weight[domain]; `group_tokens[domain]` the tokens of each group of windows;
    `goals[name]` the weights of several objectives, where the study has them; `asked` the keys of
    the models that are trained as `validate` asks now (None: all that are trained); `validated`
    what `validate` found of this study as it stands, in a few sentences ("": it has not run).
    """

    trials: tuple[Trial, ...]
    domains: tuple[str, ...]
    space: Space
    merges: tuple[str, ...]
    units: dict[str, int]
    weights: Mapping[str, float]
    group_tokens: Mapping[str, np.ndarray]
    goals: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    asked: frozenset[str] | None = None
    validated: str = ""

    @property
    def mixtures(self) -> tuple[Trial, ...]:
        """Return the scored mixtures of the study's space, weighting and merge, best first.

        Best is the least predicted loss where `validate` has calibrated the proxies
        (`is_calibrated`), else the least objective. What has no prediction on a calibrated board
        comes after all that have one.

        Others (scored by hand, or under another weighting) stay in `trials`, and so does every merge
        of a mixture but its best one. A partition's own unit model counts as a mixture when it is that partition's only unit.
        """
        return self._ranked

    @cached_property
    def _ranked(self) -> tuple[Trial, ...]:
        found = [row for row in self.trials if self._is_mixture(row) and row.objective is not None]
        calibrated = _calibrated(found)
        found.sort(key=lambda row: _rank_key(row, calibrated))
        best: dict[str, Trial] = {}
        for row in found:
            if row.candidate.mixture is not None:
                best.setdefault(row.candidate.mixture.key(), row)
        return tuple(best.values())

    @cached_property
    def is_calibrated(self) -> bool:
        """Return whether mixtures are ranked by the loss that a trained model is predicted to have."""
        return _calibrated(self.mixtures)

    def worth(self, row: Trial) -> float | None:
        """Return what a row is ranked by: predicted loss on a calibrated board, else its objective.

        None where it has none. A seed or a trained model is what it is: its loss is no prediction.
        """
        if not self.is_calibrated or row.candidate.kind in ("seed", "trained"):
            return row.objective
        return None if row.predicted_objective is None else row.predicted_objective.loss

    @property
    def ranked_by(self) -> str:
        """Return what `worth` is, in words."""
        return "predicted objective when trained" if self.is_calibrated else "objective"

    @property
    def best(self) -> Trial:
        """Return the first of `mixtures`; raise StudyError when none is scored."""
        ranked = self.mixtures
        if not ranked:
            why = "; run `ablate search`"
            if failed := self.failed:
                why = f": {len(failed)} failed, one with: {failed[-1].error}"
            raise StudyError(f"a best mixture must have been scored, got no finished trial{why}")
        return ranked[0]

    @property
    def best_of_size(self) -> dict[int, Trial]:
        """Return the best mixture of each number of partitions, smaller sizes first."""
        found: dict[int, Trial] = {}
        for row in self.mixtures:
            found.setdefault(row.size, row)
        return dict(sorted(found.items()))

    def apart(self, rows: Sequence[Trial], most: int) -> list[tuple[int, Trial]]:
        """Return the first `most` of `rows` that tell something new, each with its place from one.

        Proportions within APART of a row before are left out: a search's last steps are that near.
        """
        found: list[tuple[int, Trial]] = []
        subsets = isinstance(self.space, SubsetSpace)
        for place, row in enumerate(rows, start=1):
            if len(found) == most:
                break
            if subsets or all(_distance(row, other) >= APART for _, other in found):
                found.append((place, row))
        return found

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Return the rows whose trial failed."""
        return tuple(row for row in self.trials if row.error is not None)

    @property
    def stopped(self) -> tuple[Trial, ...]:
        """Return the mixtures, among those that `mixtures` counts, that a race stopped early."""
        return tuple(r for r in self.trials if r.stopped is not None and self._is_mixture(r))

    @property
    def is_grouped(self) -> bool:
        """Return whether all mixtures keep the sums that paired comparisons are made of."""
        return all(score.groups for row in self.mixtures for score in row.scores.values())

    def ranked(self, rank: int) -> Trial:
        """Return the mixture at `rank`, counted from one."""
        mixtures = self.mixtures
        if not 1 <= rank <= len(mixtures):
            raise StudyError(
                f"a rank must be between 1 and the {len(mixtures)} scored mixtures, got {rank}"
            )
        return mixtures[rank - 1]

    def goal_values(self, row: Trial) -> tuple[float, ...]:
        """Return a mixture's value of each goal, nats per token, in the order of `goals`."""
        return tuple(objective_value(weights, row.losses) for weights in self.goals.values())

    def pareto(self, domains: Sequence[str] | None = None) -> tuple[Trial, ...]:
        """Return the mixtures that no other one beats on every goal, the best first.

        Goals are `search.objectives`, or the losses on `domains` when they are given or the study
        has no goals (None: on all). Losses are compared as they are; equal rows all stay.
        """
        rows = self.mixtures
        if not domains and self.goals:
            points = [self.goal_values(row) for row in rows]
        else:
            names = tuple(domains or self.domains)
            points = [tuple(row.losses[name] for name in names) for row in rows]
        return tuple(row for row, kept in zip(rows, undominated(points), strict=True) if kept)

    def tied_with_best(self, level: float = 0.95) -> tuple[Trial, ...]:
        """Return the mixtures that the paired test cannot tell from the best one, best first.

        The truly best mixture (on text like the evaluated) is among them with probability `level`
        at least. Mixtures of different sizes are compared as they were scored: see `validate`.
        """
        return tied(self.mixtures, self.group_tokens, self.weights, level)

    def within_reach(self) -> tuple[Trial, ...]:
        """Return the mixtures whose prediction interval reaches the best one's prediction.

        Empty before `validate` has calibrated the proxies. The intervals (95 %) hold the noise of
        one training; see agreement.json for how often they held.
        """
        best = self.best.predicted_objective if self.is_calibrated else None
        if best is None:
            return ()
        rows = [(row, row.predicted_objective) for row in self.mixtures]
        return tuple(row for row, found in rows if found and found.lower <= best.loss)

    def compare(self, one: Trial, other: Trial) -> Difference:
        """Return the objective of `one` minus `other`, paired: mean, stderr, P(one is better)."""
        return compared(one, other, self.group_tokens, self.weights)

    def effects(self, level: float = 0.95) -> pd.DataFrame:
        """Return the effect of each partition on the objective, nats per token.

        One row per partition: its Shapley value and leave-one-out effect in the game of merged
        subsets, each with the bounds of its interval (below zero, the partition helps); the empty
        set's value is the seed's. `method` says whether all subsets were scored or how the rest
        was estimated. Raises StudyError for a space of proportions, or too few scored subsets.
        """
        import pandas as pd

        names, masks, rows = self._game()
        nats = group_nats(rows, self.group_tokens)
        scores = paired_scores(nats, self.group_tokens, self.weights)
        worth = shapley(masks, scores.objective, scores, level)
        without = leave_one_out(masks, scores.objective, scores, level=level)
        return pd.DataFrame(
            {
                "shapley": worth.effect,
                "shapley_lower": worth.lower,
                "shapley_upper": worth.upper,
                "leave_one_out": without.effect,
                "leave_one_out_lower": without.lower,
                "leave_one_out_upper": without.upper,
                "method": worth.method,
            },
            index=pd.Index(names, name="partition"),
        )

    def interactions(self, level: float = 0.95) -> pd.DataFrame:
        """Return how far pairs of partitions together do more than each alone, nats per token.

        One row per pair with the bounds of its interval; below zero, the two help each other.
        Raises StudyError as `effects` does.
        """
        import pandas as pd

        names, masks, rows = self._game()
        nats = group_nats(rows, self.group_tokens)
        scores = paired_scores(nats, self.group_tokens, self.weights)
        found = interactions(masks, scores.objective, scores, level=level)
        index = pd.MultiIndex.from_tuples(list(combinations(names, 2)), names=["one", "other"])
        return pd.DataFrame(
            {"effect": found.effect, "lower": found.lower, "upper": found.upper}, index=index
        )

    def ensemble_of(self, row: Trial) -> Trial | None:
        """Return the row of the same mixture's ensemble, None when there is none."""
        mixture = row.candidate.mixture
        if row.candidate.kind == "unit":
            return row
        return None if mixture is None else self._ensembles.get(mixture.key())

    @cached_property
    def ensemble_agreement(self) -> float | None:
        """Return the Spearman correlation of merge and ensemble within a size, mean over sizes."""
        pairs = []
        for row in self.mixtures:
            other = self.ensemble_of(row) if row.candidate.kind == "proxy" else None
            if other is not None and row.objective is not None and other.objective is not None:
                pairs.append((row.size, row.objective, other.objective))
        return rank_agreement(pairs)

    @cached_property
    def _ensembles(self) -> dict[str, Trial]:
        return {
            row.candidate.mixture.key(): row
            for row in self.trials
            if row.candidate.mixture is not None and row.candidate.method == ENSEMBLE
        }

    def _game(self) -> tuple[tuple[str, ...], np.ndarray, list[Trial]]:
        """Return the partitions, member masks bool [m, n], and rows: the seed, then the mixtures."""
        if not isinstance(self.space, SubsetSpace):
            raise StudyError(
                "search.space.kind must be subsets for partition effects, got simplex; run "
                "`ablate search` with search.space.kind=subsets"
            )
        names = self.space.names
        seed = [row for row in self.trials if row.candidate.kind == "seed" and not row.error]
        rows = [*seed, *self.mixtures]
        masks = np.array([[name in row.partitions for name in names] for row in rows])
        return names, masks, rows

    def to_pandas(self) -> pd.DataFrame:
        """Return the table of `trials.parquet` as a data frame."""
        frame: pd.DataFrame = to_arrow(self.trials, self.domains).to_pandas()
        return frame

    def plot(self) -> Any:
        """Return a plotly figure: what mixtures are ranked by, by size, the best of each joined.

        On a calibrated board, predictions with their intervals; else objectives. Of many mixtures
        the best are points, over bands that hold all.
        """
        found = leaders_of(self)
        worth = ((row, self.worth(row)) for row in self.mixtures)
        predicted = [row.predicted_objective for row in self.best_of_size.values()]
        firsts = [row.candidate.key for row in self.best_of_size.values()]
        return plots.by_size(
            [(row, value) for row, value in worth if value is not None],
            found.keys if found else (),
            firsts,
            {k: (one.lower, one.upper) for k, one in zip(firsts, predicted, strict=True) if one},
            self.ranked_by,
        )

    def plot_pareto(self) -> Any:
        """Return a plotly figure: every pair of the study's goals, the Pareto set marked.

        Raises StudyError when the study has no goals (`search.objectives`).
        """
        if len(self.goals) < 2:
            raise StudyError(
                f"search.objectives must name two goals or more for a Pareto plot, got "
                f"{len(self.goals)}; add goals"
            )
        values = {row.candidate.key: self.goal_values(row) for row in self.mixtures}
        return plots.pareto_front(self.mixtures, self.pareto(), list(self.goals), values)

    def plot_effects(self, level: float = 0.95) -> Any:
        """Return a plotly figure: what each partition does to the objective, with intervals.

        Of many mixtures, from as many as a fit can hold.
        """
        return plots.partition_effects(thinned(self).effects(level))

    def plot_interactions(self, level: float = 0.95) -> Any:
        """Return a plotly figure: which pairs of partitions help or hinder each other.

        Of many mixtures, from as many as a fit can hold.
        """
        return plots.pair_interactions(thinned(self).interactions(level))

    @property
    def trained(self) -> tuple[Trial, ...]:
        """Return the rows of models truly trained on a mixture, as `validate` asks now."""
        rows = (r for r in self.trials if r.candidate.kind == "trained" and not r.error)
        return tuple(r for r in rows if self.asked is None or r.candidate.key in self.asked)

    def _is_mixture(self, row: Trial) -> bool:
        if row.candidate.mixture not in self.space:
            return False
        if row.candidate.kind == "unit":
            return self.units[row.partitions[0]] == 1
        return row.candidate.kind == "proxy" and row.candidate.merge in self.merges


def _calibrated(rows: Sequence[Trial]) -> bool:
    """Return whether a merge is predicted; of a single unit the own loss is the trained one."""
    return any(r.predicted_objective is not None and r.candidate.kind == "proxy" for r in rows)


def _rank_key(row: Trial, calibrated: bool) -> tuple[float, float, tuple[str, ...]]:
    """Return what mixtures are sorted by: the predicted loss where there is one, the objective."""
    found = row.predicted_objective if calibrated else None
    objective = math.inf if row.objective is None else row.objective
    return math.inf if found is None else found.loss, objective, row.partitions


def _distance(one: Trial, other: Trial) -> float:
    """Return the share of the weight that two mixtures place elsewhere (total variation)."""
    assert one.candidate.mixture is not None and other.candidate.mixture is not None
    left, right = dict(one.candidate.mixture.weights), dict(other.candidate.mixture.weights)
    return sum(abs(left.get(n, 0.0) - right.get(n, 0.0)) for n in left.keys() | right.keys()) / 2
