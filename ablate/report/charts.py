"""The figures of one report, by name, and how each stands on the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ablate.report import agreement as agreed
from ablate.report import figures
from ablate.report.content import ReportContent
from ablate.report.html import Html, element, joined
from ablate.report.wording import unlike
from ablate.search import plots
from ablate.search.table import Trial

if TYPE_CHECKING:
    import pandas as pd

MOST_EFFECTS = 40
MOST_IN_PAIRS = 30
PARETO_POINTS = 400

CAPTIONS = {
    "ranking": "The leading mixtures. Bars: 95 % interval of the distance from the best (dotted "
    "line), paired over the same text.",
    "by_size": "The scored mixtures by number of partitions; bars as above. Averages of different "
    "sizes are not comparable as they stand.",
    "pareto": "Every mixture under each pair of goals; diamonds: no other beats it on every goal.",
    "units": "Below zero and dark: better than the seed. Colours end where nine tenths of the values "
    "do.",
    "effects": "Left of zero helps, right of it harms.",
    "interactions": "Below zero: together they do more than each alone.",
    "agreement": "Each mark is one training: the loss of the mixture's proxy against that of the "
    "model truly trained on it. Bars: calibrated predictions with their intervals (of the mean "
    "where a mixture was trained several times).",
}

CALIBRATED = {
    "ranking": "The leading mixtures, by the loss that a model trained on them is predicted to have, "
    "with its 95 % interval.",
    "by_size": "Predicted loss of the scored mixtures by number of partitions.",
}


def figures_of(content: ReportContent) -> dict[str, Any]:
    """Return the report's figures (plotly) by name; those that the data do not allow are absent."""
    board, answer = content.board, content.answer
    leaders = answer.leaders.keys if answer.leaders else frozenset()
    found: dict[str, Any] = {}
    if content.places:
        top = [item for item in content.places if item.leading]
        firsts = [item for item in content.places if item.best_of_size]
        worth = ((row, board.worth(row)) for row in board.mixtures)
        found["ranking"] = figures.ranking(top, board.ranked_by)
        found["by_size"] = plots.by_size(
            [(row, value) for row, value in worth if value is not None],
            leaders,
            [item.key for item in firsts],
            {
                i.key: (i.lower, i.upper)
                for i in firsts
                if i.lower is not None and i.upper is not None
            },
            board.ranked_by,
        )
        if len(board.goals) > 1:
            found["pareto"] = _pareto(content)
    if content.units is not None:
        shown = content.units
        found["units"] = figures.heat_map(shown.values, shown.rows, shown.columns)
    effects, pairs = content.effects.table, content.interactions.table
    if effects is not None:
        found["effects"] = plots.partition_effects(_strongest(effects))
        found["effects"].update_xaxes(title_text="change of the objective, nats")
        if pairs is not None:
            found["interactions"] = plots.pair_interactions(_among(pairs, effects))
    if content.agreement is not None:
        first = next(iter(agreed.targets_of(content.agreement)), agreed.OBJECTIVE)
        proxy = next(iter(agreed.drawable(content.agreement)), agreed.MERGE)
        found["agreement"] = figures.proxy_against_trained(content.agreement, first, proxy)
    return {name: figures.dressed(figure) for name, figure in found.items()}


def _pareto(content: ReportContent) -> Any:
    board = content.board
    front: tuple[Trial, ...] = board.pareto()
    rows = [*board.mixtures[:: max(1, len(board.mixtures) // PARETO_POINTS)], *front]
    values = {row.candidate.key: board.goal_values(row) for row in rows}
    return plots.pareto_front(rows, front, list(board.goals), values)


def _strongest(effects: pd.DataFrame) -> pd.DataFrame:
    """Return all partitions, or the most helpful and the most harmful of many, under short names."""
    ordered = effects.sort_values("shapley")
    half = MOST_EFFECTS // 2
    if len(ordered) > MOST_EFFECTS:
        ordered = ordered.iloc[[*range(half), *range(len(ordered) - half, len(ordered))]]
    return ordered.set_axis(unlike(map(str, ordered.index), figures.LABEL))


def _among(pairs: pd.DataFrame, effects: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs among the partitions that do most, under short names."""
    most = sorted(effects["shapley"].abs().sort_values().index[-MOST_IN_PAIRS:])
    short = dict(zip(most, unlike(most, figures.LABEL), strict=True))
    kept = pairs[[one in short and other in short for one, other in pairs.index]]
    return kept.set_axis([(short[one], short[other]) for one, other in kept.index])


def charts_of(content: ReportContent) -> dict[str, Html]:
    """Return the report's charts as markup, by name: a box, its data, a caption."""
    found = figures_of(content)
    effects = content.effects.table
    captions = {**CAPTIONS, **(CALIBRATED if content.answer.calibrated else {})}
    if effects is not None and len(effects) > MOST_EFFECTS:
        captions["effects"] += f" Of {len(effects):,} partitions, the {MOST_EFFECTS} that do most."
    if effects is not None and len(effects) > MOST_IN_PAIRS:
        captions["interactions"] += f" The {MOST_IN_PAIRS} partitions that do most."
    if len(content.board.mixtures) > plots.POINTS:
        captions["by_size"] += f" Points: the best {plots.POINTS}; bands: all."
    charts = {name: _chart(name, figure, captions[name]) for name, figure in found.items()}
    if content.agreement is not None:
        charts["agreement"] = joined([_choices(content.agreement), charts["agreement"]])
    return charts


def _chart(name: str, figure: Any, caption: str) -> Html:
    height = int(figure.layout.height or 450)
    narrowest = _narrowest(name, figure)
    box = element(
        "div",
        id=f"chart-{name}",
        class_="plot",
        style=f"min-width:{narrowest}px;height:{height}px",
        data_chart=f"data-{name}",
        role="img",
        aria_label=caption,
    )
    return joined(
        [
            element("figure", element("div", box, class_="chart"), element("figcaption", caption)),
            embedded(f"data-{name}", figure.to_json()),
        ]
    )


def _narrowest(name: str, figure: Any) -> int:
    """Return the pixels that a chart needs; in a narrower window it scrolls in its box."""
    if name not in ("units", "interactions"):
        return 280
    columns = len(set(figure.data[0].x))
    cell = 42 if columns <= figures.NUMBERED else 20 if name == "interactions" else 5
    return 220 + cell * columns


def _choices(agreement: Mapping[str, Any]) -> Html:
    """Return the selectors of text and proxy with the data that they choose from."""
    targets, proxies = agreed.targets_of(agreement), agreed.drawable(agreement)
    values = agreed.views(agreement)
    values["proxies"] = [
        {"title": figures.proxy_title(name), "losses": losses}
        for name, losses in values["proxies"].items()
    ]
    form = element(
        "div",
        _select("target", "Text", targets),
        _select("proxy", "Proxy", [agreed.PROXIES.get(name, name) for name in proxies]),
        class_="choices",
        data_views="views-agreement",
        data_box="chart-agreement",
    )
    return joined([form, embedded("views-agreement", json.dumps(values, separators=(",", ":")))])


def _select(name: str, label: str, options: list[str]) -> Html:
    items = (element("option", option, value=place) for place, option in enumerate(options))
    return element("label", f"{label} ", element("select", *items, name=name, autocomplete="off"))


def embedded(mark: str, text: str) -> Html:
    """Return JSON as a block of data that no name in it can close."""
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return Html(f'<script type="application/json" id="{mark}">{safe}</script>')
