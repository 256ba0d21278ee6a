"""Figures of a leaderboard (plotly). Colours are of the Okabe-Ito set, told apart by any eye."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ablate.search.table import Trial

if TYPE_CHECKING:
    import pandas as pd

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
INK = "#222222"
Point = tuple[Trial, float]
POINTS = 400
"""Mixtures that are drawn one by one by size; of more, the best so many beside a band for all."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NAME_LENGTH = 60
HOVER_MEMBERS = 20
MOST_POINTS = 5_000  # the worst are thinned out beyond it; what is marked stays
# Diverging, printable in grey: helps (blue) - nothing (white) - harms (orange).
HELPS_AND_HARMS = [[0.0, BLUE], [0.5, "#FFFFFF"], [1.0, ORANGE]]


def by_size(
    points: Sequence[Point],
    leaders: Collection[str],
    firsts: Collection[str],
    bounds: Mapping[str, tuple[float, float]],
    axis: str,
) -> Any:
    """Return the value of mixtures, best first, by size; the best of each size are joined.

    Up to `POINTS` mixtures are points. Of more, the best `POINTS` are, over bands that hold half
    and nine tenths of all mixtures of each size. `leaders` are the keys of those that cannot be
    told from the best, `firsts` those of the best of each size, `bounds[key]` their intervals,
    where they have any. `axis` is what the values are, nats per token.
    """
    figure = _figure("partitions in the mixture", f"{axis} (nats per token)")
    if len(points) > POINTS:
        _bands(figure, points)
    shown = points[:POINTS]
    tied = [point for point in shown if point[0].candidate.key in leaders]
    others = [point for point in shown if point[0].candidate.key not in leaders]
    best = sorted((p for p in points if p[0].candidate.key in firsts), key=lambda p: p[0].size)
    _placed(figure, others, "mixture", GREY, symbol="circle-open")
    _placed(figure, tied, "cannot be told from the best", ORANGE, symbol="diamond")
    _placed(figure, best, "best of its size", BLUE, symbol="square", mode="lines+markers",
            error_y=_whiskers(best, bounds))  # fmt: skip
    figure.update_xaxes(dtick=1 if len({row.size for row, _ in points}) < 16 else None)
    figure.update_layout(height=460)
    return figure


def _placed(figure: Any, points: Sequence[Point], name: str, colour: str, **look: Any) -> None:
    if points:
        sizes, values = [row.size for row, _ in points], [value for _, value in points]
        _points(figure, [row for row, _ in points], name, colour, sizes, values, **look)


def _bands(figure: Any, points: Sequence[Point]) -> None:
    by: dict[int, list[float]] = defaultdict(list)
    for row, value in points:
        by[row.size].append(value)
    sizes = sorted(by)
    lines = np.array([np.quantile(by[size], QUANTILES) for size in sizes]).T
    for low, high, name, fill in (
        (0, 4, "90 % of all", "rgba(90,90,90,0.16)"),
        (1, 3, "half of all", "rgba(90,90,90,0.30)"),
    ):
        edge = {"x": sizes, "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip",
                "legendgroup": name}  # fmt: skip
        figure.add_scatter(y=lines[low], showlegend=False, **edge)
        figure.add_scatter(y=lines[high], fill="tonexty", fillcolor=fill, name=name, **edge)
    figure.add_scatter(x=sizes, y=lines[2], mode="lines", name="median",
                       line={"color": INK, "width": 1, "dash": "dash"},
                       hovertemplate="median of size %{x}: %{y:.4f}<extra></extra>")  # fmt: skip


def _whiskers(points: Sequence[Point], bounds: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    around = [bounds.get(row.candidate.key, (value, value)) for row, value in points]
    return {
        "type": "data", "symmetric": False, "color": INK, "thickness": 1.2, "width": 3,
        "array": [upper - value for (_, value), (_, upper) in zip(points, around, strict=True)],
        "arrayminus": [value - low for (_, value), (low, _) in zip(points, around, strict=True)],
    }  # fmt: skip


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
                figure.update_xaxes(title_text=drawn(goals[along]), **place)
            if along == 0:
                figure.update_yaxes(title_text=drawn(goals[down]), **place)
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
            y=[drawn(str(name)) for name in table.index],
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
    labels = [drawn(name) for name in names]
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
    error_y: dict[str, Any] | None = None,
) -> None:
    figure.add_scatter(
        x=list(x),
        y=list(y),
        text=[hover(row) for row in rows],
        hovertemplate="%{text}<br>%{x}, %{y:.4f}<extra></extra>",
        mode=mode,
        name=name,
        legendgroup=name,
        showlegend=legend,
        marker={"color": colour, "size": 7, "symbol": symbol},
        line={"width": 1.5},
        error_y=error_y,
        **(place or {}),
    )


def hover(row: Trial) -> str:
    """Return a mixture for the box beside the pointer: a member a line, most of many left out."""
    weights = row.candidate.mixture.weights if row.candidate.mixture else ()
    lines = [f"{drawn(shortened(n, NAME_LENGTH))} {w:.3g}" for n, w in weights[:HOVER_MEMBERS]]
    more = len(weights) - HOVER_MEMBERS
    return "<br>".join([*lines, f"and {more:,} more"] if more > 0 else lines) or "seed"


def shortened(name: str, length: int) -> str:
    """Return a name in at most `length` characters."""
    return name if len(name) <= length else name[: length - 1] + "…"


def drawn(text: str) -> str:
    """Return a text for plotly, which reads some HTML in labels: as text, quotes as they are."""
    return escape(text, quote=False)


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
