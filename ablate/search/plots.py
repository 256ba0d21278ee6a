"""Figures of a leaderboard (plotly). Colours are of the Okabe-Ito set, told apart by any eye."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.search.table import Trial

if TYPE_CHECKING:
    import pandas as pd

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
MOST_POINTS = 5_000  # the worst are thinned out beyond it; what is marked stays
# Diverging, printable in grey: helps (blue) - nothing (white) - harms (orange).
HELPS_AND_HARMS = [[0.0, BLUE], [0.5, "#FFFFFF"], [1.0, ORANGE]]


def by_size(rows: Sequence[Trial], best: Sequence[Trial], tied: Sequence[Trial]) -> Any:
    """Return the objective of every mixture by its size; the best of each size are joined.

    `tied` are those that the paired test cannot tell from the best of all.
    """
    figure = _figure("partitions in the mixture", "objective (nats per token)")
    same = {row.candidate.key for row in tied}
    others = [row for row in _thinned(rows) if row.candidate.key not in same]
    _points(figure, others, "mixture", GREY, [row.size for row in others], _objectives(others))
    _points(figure, tied, "cannot be told from the best", ORANGE, [r.size for r in tied],
            _objectives(tied))  # fmt: skip
    _points(figure, best, "best of its size", BLUE, [row.size for row in best], _objectives(best),
            mode="lines+markers")  # fmt: skip
    figure.update_xaxes(dtick=1 if len({row.size for row in rows}) < 16 else None)
    return figure


def pareto_front(
    rows: Sequence[Trial],
    front: Sequence[Trial],
    goals: Sequence[str],
    values: dict[str, tuple[float, ...]],
) -> Any:
    """Return every mixture under each pair of goals, those of the front marked.

    `values[key of a row]` are its goals. Two goals make one panel, more a grid of pairs.
    """
    from plotly.subplots import make_subplots

    count = len(goals)
    figure = make_subplots(
        rows=count - 1, cols=count - 1, shared_xaxes=True, shared_yaxes=True,
        horizontal_spacing=0.03, vertical_spacing=0.03,
    )  # fmt: skip
    marked = {row.candidate.key for row in front}
    others = [row for row in _thinned(rows) if row.candidate.key not in marked]
    for down in range(1, count):
        for along in range(down):
            place = {"row": down, "col": along + 1}
            for items, name, colour, symbol in (
                (others, "mixture", GREY, "circle"),
                (front, "no other beats it on every goal", ORANGE, "diamond"),
            ):
                points = [values[row.candidate.key] for row in items]
                shown = down == 1 and along == 0
                _points(figure, items, name, colour, [p[along] for p in points],
                        [p[down] for p in points], symbol=symbol, legend=shown, place=place)  # fmt: skip
            if down == count - 1:
                figure.update_xaxes(title_text=escape(goals[along], quote=False), **place)
            if along == 0:
                figure.update_yaxes(title_text=escape(goals[down], quote=False), **place)
    _style(figure)
    figure.update_layout(height=max(450, 260 * (count - 1)))
    return figure


def partition_effects(effects: pd.DataFrame) -> Any:
    """Return each partition's Shapley value with its interval, the most helpful first."""
    import plotly.graph_objects as go

    table = effects.sort_values("shapley", ascending=False)
    figure = _figure("change of the objective (nats per token); left of zero helps", "")
    figure.add_trace(
        go.Bar(
            x=table["shapley"],
            y=[escape(str(name), quote=False) for name in table.index],
            orientation="h",
            marker_color=[BLUE if value < 0 else ORANGE for value in table["shapley"]],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": table["shapley_upper"] - table["shapley"],
                "arrayminus": table["shapley"] - table["shapley_lower"],
                "color": "#333333",
            },
            showlegend=False,
        )
    )
    figure.update_layout(height=140 + 26 * len(table))
    figure.update_yaxes(type="category", automargin=True)
    return figure


def pair_interactions(interactions: pd.DataFrame) -> Any:
    """Return the interaction of every pair as a heat map; below zero, two help each other."""
    import plotly.graph_objects as go

    pairs: list[tuple[str, str]] = list(interactions.index)
    names = sorted({name for pair in pairs for name in pair})
    place = {name: number for number, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    for (one, other), effect in zip(pairs, interactions["effect"], strict=True):
        values[place[one], place[other]] = values[place[other], place[one]] = effect
    most = float(np.nanmax(np.abs(values))) if len(interactions) else 1.0
    labels = [escape(name, quote=False) for name in names]
    figure = _figure("", "")
    figure.add_trace(
        go.Heatmap(
            z=values, x=labels, y=labels, zmin=-most, zmax=most, colorscale=HELPS_AND_HARMS,
            colorbar={"title": "nats"}, hoverongaps=False, xgap=1, ygap=1,
            texttemplate="%{z:.3f}" if len(names) <= 12 else None,
        )
    )  # fmt: skip
    figure.update_layout(height=220 + 34 * len(names))
    figure.update_yaxes(autorange="reversed", automargin=True)
    return figure


def _points(
    figure: Any,
    rows: Sequence[Trial],
    name: str,
    colour: str,
    x: Sequence[float],
    y: Sequence[float | None],
    *,
    mode: str = "markers",
    symbol: str = "circle",
    legend: bool = True,
    place: dict[str, int] | None = None,
) -> None:
    figure.add_scatter(
        x=list(x),
        y=list(y),
        text=[_named(row) for row in rows],
        hovertemplate="%{text}<br>%{x}, %{y:.4f}<extra></extra>",
        mode=mode,
        name=name,
        legendgroup=name,
        showlegend=legend,
        marker={"color": colour, "size": 8, "symbol": symbol},
        **(place or {}),
    )


def _named(row: Trial) -> str:
    weights = row.candidate.mixture.weights if row.candidate.mixture else ()
    return "<br>".join(
        f"{escape(name, quote=False)} {weight:.3g}" for name, weight in weights[:20]
    ) + (f"<br>and {len(weights) - 20} more" if len(weights) > 20 else "")


def _objectives(rows: Sequence[Trial]) -> list[float | None]:
    return [row.objective for row in rows]


def _thinned(rows: Sequence[Trial]) -> Sequence[Trial]:
    """Return all rows, or every so many when they are beyond what a page can draw."""
    step = -(-len(rows) // MOST_POINTS)
    return rows if step <= 1 else rows[::step]


def _figure(x: str, y: str) -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    _style(figure)
    figure.update_layout(xaxis_title=x, yaxis_title=y)
    return figure


def _style(figure: Any) -> None:
    figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
    )
