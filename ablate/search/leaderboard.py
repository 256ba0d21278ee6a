"""The leaderboard: every scored model, the best mixture, and the best of each size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ablate.errors import StudyError
from ablate.search.spaces import Space
from ablate.search.table import Trial, to_arrow

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """All rows of a study under its present question.

    `domains` are the scored names; `merge` is the label of the present merge method.
    """

    trials: tuple[Trial, ...]
    domains: tuple[str, ...]
    space: Space
    merge: str
    units: dict[str, int]

    @property
    def mixtures(self) -> tuple[Trial, ...]:
        """Return the scored mixtures of the study's space, weighting and merge, best first.

        Others (scored by hand, or under another weighting) stay in `trials`. A partition's own unit model counts as a mixture when it is that partition's only unit.
        """
        found = [row for row in self.trials if self._is_mixture(row) and row.objective is not None]
        return tuple(sorted(found, key=lambda row: (row.objective, row.partitions)))

    @property
    def best(self) -> Trial:
        """Return the mixture of smallest objective; raise StudyError when none is scored."""
        ranked = self.mixtures
        if not ranked:
            raise StudyError(
                "a best mixture must have been scored, got no finished trial; run `ablate search`"
            )
        return ranked[0]

    @property
    def best_of_size(self) -> dict[int, Trial]:
        """Return the best mixture of each number of partitions, smaller sizes first."""
        found: dict[int, Trial] = {}
        for row in self.mixtures:
            found.setdefault(row.size, row)
        return dict(sorted(found.items()))

    @property
    def failed(self) -> tuple[Trial, ...]:
        """Return the rows whose trial failed."""
        return tuple(row for row in self.trials if row.error is not None)

    def ranked(self, rank: int) -> Trial:
        """Return the mixture at `rank`, counted from one."""
        mixtures = self.mixtures
        if not 1 <= rank <= len(mixtures):
            raise StudyError(
                f"a rank must be between 1 and the {len(mixtures)} scored mixtures, got {rank}"
            )
        return mixtures[rank - 1]

    def pareto(self, domains: Sequence[str] | None = None) -> tuple[Trial, ...]:
        """Return the mixtures that no other one beats on every domain of `domains` (default all).

        Losses are compared as they are; equal rows all stay.
        """
        names = tuple(domains or self.domains)
        rows = self.mixtures
        points = [tuple(row.losses[name] for name in names) for row in rows]

        def dominated(mine: tuple[float, ...]) -> bool:
            return any(
                other != mine and all(a <= b for a, b in zip(other, mine, strict=True))
                for other in points
            )

        return tuple(row for row, mine in zip(rows, points, strict=True) if not dominated(mine))

    def to_pandas(self) -> pd.DataFrame:
        """Return the table of `trials.parquet` as a data frame."""
        frame: pd.DataFrame = to_arrow(self.trials, self.domains).to_pandas()
        return frame

    def plot(self) -> Any:
        """Return a plotly figure: objective of every mixture by size, the best of each marked."""
        import plotly.graph_objects as go

        rows = self.mixtures
        best = self.best_of_size.values()
        figure = go.Figure()
        figure.add_scatter(
            x=[row.size for row in rows],
            y=[row.objective for row in rows],
            text=[" + ".join(row.partitions) for row in rows],
            mode="markers",
            name="mixture",
        )
        figure.add_scatter(
            x=[row.size for row in best],
            y=[row.objective for row in best],
            text=[" + ".join(row.partitions) for row in best],
            mode="lines+markers",
            name="best of its size",
        )
        figure.update_layout(
            xaxis_title="partitions in the mixture",
            yaxis_title="objective (mean loss, nats per token)",
        )
        return figure

    def _is_mixture(self, row: Trial) -> bool:
        if row.candidate.mixture not in self.space:
            return False
        if row.candidate.kind == "unit":
            return self.units[row.partitions[0]] == 1
        return row.candidate.kind == "proxy" and row.candidate.merge == self.merge
