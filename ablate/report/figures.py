"""Figures of the report (plotly). What a colour says, a shape, a place or a number says too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ablate.report.agreement import OBJECTIVE, PROXIES, Seen, seen, size_groups
from ablate.report.ranking import Placed
from ablate.report.wording import plural, unlike
from ablate.search.plots import BLUE, GREEN, GREY, INK, ORANGE, drawn, shortened

NUMBERED = 14  # columns up to which a heat map's cells hold their numbers
LABEL = 22  # characters of a name along an axis
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
ROW_HEIGHT = 32


def ranking(places: Sequence[Placed], axis: str = "objective") -> Any:
    """Return the leading mixtures, best on top, with their intervals; `axis` is what is shown."""
    figure = _figure(f"{axis} (nats per token); lower is better")
    lines = list(range(len(places)))
    for leads, name, colour, symbol in (
        (True, "cannot be told from the best", ORANGE, "diamond"),
        (False, "behind the best", BLUE, "circle"),
    ):
        items = [
            (line, item) for line, item in zip(lines, places, strict=True) if item.leads == leads
        ]
        if items:
            figure.add_scatter(
                x=[item.value for _, item in items],
                y=[line for line, _ in items],
                error_x=_whiskers([item for _, item in items]),
                text=[item.hover for _, item in items],
                hovertemplate="%{text}<br>%{x:.4f} nats<extra></extra>",
                mode="markers",
                name=name,
                marker={"color": colour, "size": 9, "symbol": symbol},
            )
    best = places[0].value if places else 0.0
    figure.add_vline(x=best, line={"color": GREY, "width": 1, "dash": "dot"})
    for line, item in zip(lines, places, strict=True):
        figure.add_annotation(
            text=f"<b>{item.rank}</b>  {drawn(item.label)}", x=0, xref="x domain", y=line,
            yshift=12, xanchor="left", showarrow=False, font={"size": 11, "color": INK}, bgcolor="rgba(255,255,255,0.85)", borderpad=0,
        )  # fmt: skip
    figure.update_yaxes(visible=False, range=[len(places) - 0.4, -1.0])
    figure.update_layout(height=130 + ROW_HEIGHT * len(places))
    return figure


def _whiskers(items: Sequence[Placed]) -> dict[str, Any]:
    above = [0.0 if item.upper is None else item.upper - item.value for item in items]
    below = [0.0 if item.lower is None else item.value - item.lower for item in items]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below,
            "color": INK, "thickness": 1.2, "width": 3}  # fmt: skip


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Any:
    """Return losses relative to the seed's, `values` [rows, columns] in nats, as a heat map.

    The scale (cividis) gets darker with lower loss, in grey print too. It ends where nine tenths of
    the values do: a unit's own held-out text would otherwise wash out all else. Small ones have
    their numbers in the cells; of many rows or columns every so many is named.
    """
    import plotly.graph_objects as go

    size = np.abs(values[np.isfinite(values)])
    most = (float(np.quantile(size, 0.9)) or float(size.max()) or 1.0) if size.size else 1.0
    tall, wide = len(rows), len(columns)
    numbers = wide <= NUMBERED and tall <= 40
    pitch = 26 if tall <= 40 else max(5, 1200 // tall)
    figure = _figure("")
    figure.add_trace(
        go.Heatmap(
            x=[drawn(name) for name in unlike(columns, 60)], y=[drawn(name) for name in unlike(rows, 60)], z=np.round(values, 4), zmin=-most, zmax=most,
            colorscale="Cividis", xgap=int(numbers), ygap=int(numbers), hoverongaps=False,
            texttemplate="%{z:+.2f}" if numbers else None,
            hovertemplate="%{y} on %{x}: %{z:+.4f} nats<extra></extra>",
            colorbar={"title": {"text": "nats from the seed", "side": "right"}, "thickness": 12,
                      "len": min(1.0, 320 / (tall * pitch)), "y": 1, "yanchor": "top",
                      "outlinewidth": 0, "ticklen": 3},
        )
    )  # fmt: skip
    figure.update_xaxes(**_named(columns, 15, 1000 / max(wide, 1)), side="top", tickangle=-60)
    figure.update_yaxes(**_named(rows, 13, pitch), autorange="reversed")
    figure.update_layout(height=180 + pitch * tall, margin={"l": 10, "r": 10, "t": 40, "b": 20})
    return figure


def _named(names: Sequence[str], needed: float, pitch: float) -> dict[str, Any]:
    """Return the ticks of a category axis by place; `needed` and `pitch` in pixels a label."""
    step = max(1, -(-int(needed) // max(1, int(pitch))))
    places = list(range(0, len(names), step))
    labels = unlike(names, LABEL)
    return {
        "type": "category",
        "tickmode": "array",
        "tickvals": places,
        "ticktext": [drawn(labels[place]) for place in places],
        "tickfont": {"size": 11},
        "automargin": True,
        "showgrid": False,
    }


def proxy_against_trained(
    agreement: Mapping[str, Any], target: str = OBJECTIVE, proxy: str = "merge"
) -> Any:
    """Return true loss over a proxy's for every trained mixture, one symbol for each size.

    The bars are the calibrated predictions with their intervals, where there are any; on the line
    a proxy would equal the truth. `agreement` is what `agreement.json` holds.
    """
    points = seen(agreement, target, proxy)
    figure = _figure(proxy_title(proxy), "loss of the trained model (nats per token)")
    fitted = [point for point in points if point.predicted is not None]
    figure.add_scatter(
        x=[point.proxy for point in fitted],
        y=[point.predicted for point in fitted],
        error_y=_intervals(fitted),
        mode="markers",
        name="calibrated prediction",
        hovertemplate="predicted %{y:.4f} nats<extra></extra>",
        marker={"color": GREEN, "size": 11, "symbol": "line-ew-open", "line": {"width": 2}},
    )
    ends = _ends([value for p in points for value in (p.proxy, p.trained)])
    figure.add_scatter(x=ends, y=ends, mode="lines", name="proxy = trained", hoverinfo="skip",
                       line={"color": GREY, "width": 1, "dash": "dot"})  # fmt: skip
    for place, (least, most) in enumerate(size_groups(agreement)):
        items = [point for point in points if least <= point.size <= most]
        figure.add_scatter(
            x=[point.proxy for point in items],
            y=[point.trained for point in items],
            text=[drawn(shortened(point.name, 80)) for point in items],
            hovertemplate="%{text}<br>proxy %{x:.4f}, trained %{y:.4f}<extra></extra>",
            mode="markers",
            name=f"{least} to {most} partitions" if most > least else plural(least, "partition"),
            marker={"color": BLUE if place % 2 == 0 else ORANGE, "size": 9,
                    "symbol": SYMBOLS[place % len(SYMBOLS)],
                    "line": {"color": "white", "width": 0.5}},
        )  # fmt: skip
    figure.update_layout(height=520)
    return figure


def proxy_title(proxy: str) -> str:
    """Return the title of a proxy's axis."""
    return f"loss by proxy: {drawn(PROXIES.get(proxy, proxy))} (nats per token)"


def _intervals(points: Sequence[Seen]) -> dict[str, Any]:
    def gap(one: float | None, other: float | None) -> float:
        return 0.0 if one is None or other is None else one - other

    above = [gap(point.upper, point.predicted) for point in points]
    below = [gap(point.predicted, point.lower) for point in points]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below,
            "color": GREEN, "thickness": 1.2, "width": 4}  # fmt: skip


def _ends(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)] if values else []


def _figure(x: str, y: str = "") -> Any:
    import plotly.graph_objects as go

    figure = go.Figure()
    figure.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        margin={"l": 10, "r": 10, "t": 70, "b": 10},
        xaxis={"title": x, "automargin": True},
        yaxis={"title": y, "automargin": True},
    )
    return dressed(figure)


def dressed(figure: Any) -> Any:
    """Return the figure in the page's letters."""
    figure.update_layout(
        font={"color": INK, "family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif"},
    )
    return figure
