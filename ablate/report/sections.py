"""The sections about mixtures and partitions: ranking, units, effects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ablate.report.content import ReportContent
from ablate.report.effects import Estimate
from ablate.report.html import Html, details, element, paragraph, section, table
from ablate.report.ranking import Placed
from ablate.report.wording import chance, nats, signed

LONG_METHOD = 80
MOST_SIZES = 16  # rows beyond which the table is folded away


def ranking_section(content: ReportContent, charts: Mapping[str, Html]) -> Html:
    """Return the ranking: leading mixtures with error bars, all by size, the best of each size."""
    board = content.board
    if not content.places:
        return section("ranking", "Ranking", paragraph("No mixture is scored."))
    columns = _columns(content)
    heads = ("mixture", "rank", "size", *columns)
    rows = {
        item.rank: [
            item.label,
            f"{item.rank:,}",
            item.size,
            *(show(item) for show in columns.values()),
        ]
        for item in content.places
    }
    firsts = sorted((item for item in content.places if item.best_of_size), key=lambda i: i.size)
    sizes = table(heads, [rows[item.rank] for item in firsts], caption="The best of each size")
    explained = (
        "‘Objective’ is the loss of the merged model, ‘mean of members’ the mean loss of the models "
        "in it, ‘ensemble’ that of their averaged token probabilities."
    )
    return section(
        "ranking",
        "Ranking",
        charts["ranking"],
        charts["by_size"],
        details("The best of each size as a table", sizes) if len(firsts) > MOST_SIZES else sizes,
        paragraph(explained, class_="small"),
        details(
            f"The leading {len(rows):,} of {len(board.mixtures):,} mixtures as a table",
            table(heads, rows.values(), caption="Leading mixtures"),
        ),
        *([charts["pareto"]] if "pareto" in charts else []),
    )


def _columns(content: ReportContent) -> dict[str, Callable[[Placed], str]]:
    """Return the columns of numbers by heading, those without any number left out."""
    columns: dict[str, Callable[[Placed], str]] = {"objective": lambda item: nats(item.objective)}
    if content.answer.calibrated:
        columns = {"predicted": lambda item: nats(item.value), **columns}
    columns |= {
        "mean of members": lambda item: nats(item.members),
        "ensemble": lambda item: nats(item.ensemble),
        "P(best is lower)": lambda item: chance(item.probability),
    }
    return {name: show for name, show in columns.items() if any(map(show, content.places))}


def units_section(content: ReportContent, charts: Mapping[str, Html]) -> Html:
    """Return the heat map of units and texts."""
    if content.units is None:
        text = "The seed and the units are not scored."
        return section("units", "What each unit learnt", paragraph(text))
    row = "partition (mean of its units)" if content.units.averaged else "unit"
    said = (
        f"Loss of the model trained on each {row} minus the seed's, on each text: below zero (dark), "
        "that training helped. The best partition for the objective is on top; evaluation domains "
        "come first, then the partitions’ held-out splits in the order of the rows."
    )
    return section("units", "What each unit learnt", paragraph(said), charts["units"])


def effects_section(content: ReportContent, charts: Mapping[str, Html]) -> Html:
    """Return what each partition does to the objective, and which pairs help each other."""
    said: list[Html] = []
    for key, title, found in (
        ("effects", "Each partition", content.effects),
        ("interactions", "Pairs", content.interactions),
    ):
        said.append(element("h3", title))
        if found.table is None:
            said.append(paragraph("Not shown: ", found.reason))
            continue
        said += [paragraph(_how(found, key)), charts[key]]
        if key == "effects":
            said.append(details("All effects as a table", _effects_table(found.table)))
    return section("effects", "What partitions contribute", *said)


def _how(found: Estimate, key: str) -> str:
    part = (
        "" if found.used == found.scored else f" from {found.used:,} of {found.scored:,} mixtures"
    )
    if key == "interactions":
        return (
            f"How far two partitions together do more than each alone{part}: below zero, the two "
            "help each other."
        )
    assert found.table is not None
    method = str(found.table["method"].iloc[0])
    if len(method) > LONG_METHOD:
        method = f"{method.split(';')[0]}; many sizes were never scored and are extrapolated"
    return (
        "Shapley value of each partition in the game of merged subsets: its share of the change of "
        f"the objective from the seed to the mixture of all ({method}{part}). "
        "Bars are 95 % intervals."
    )


def _effects_table(effects: Any) -> Html:
    rows = [
        (
            str(name),
            signed(row["shapley"]),
            f"{signed(row['shapley_lower'])} to {signed(row['shapley_upper'])}",
            signed(row["leave_one_out"]),
        )
        for name, row in effects.sort_values("shapley").iterrows()
    ]
    heads = ("partition", "Shapley value", "95 % interval", "leaving it out")
    return table(heads, rows, caption="Effects on the objective, nats per token")
