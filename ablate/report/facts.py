"""The sections of plain facts: what it cost, what the data are, how to do it again."""

from __future__ import annotations

from ablate.corpus import Corpus
from ablate.report.content import ReportContent
from ablate.report.costs import Costs
from ablate.report.html import Html, details, element, joined, paragraph, section, table
from ablate.report.wording import count, duration, plural

LONG = 40  # rows beyond which a table is folded away


def cost_section(content: ReportContent) -> Html:
    """Return what was spent by stage, and the naive way beside it."""
    costs = content.costs
    rows = [
        (
            stage.name,
            f"{stage.runs:,}",
            count(stage.tokens) if stage.tokens else "",
            "" if stage.flops is None else count(stage.flops, "FLOP"),
            "" if stage.seconds is None else duration(stage.seconds),
        )
        for stage in costs.stages
    ]
    rows.append(("together", "", "", count(costs.flops, "FLOP") if costs.flops else "",
                 duration(costs.seconds)))  # fmt: skip
    heads = ("stage", "times", "tokens", "compute", "time")
    size = f" A model has {count(costs.parameters)} parameters." if costs.parameters else ""
    return section(
        "cost",
        "What it cost",
        paragraph(_naive(costs), size),
        table(heads, rows, caption="Spent on what the workspace holds"),
        paragraph(
            "Compute is counted as 6 FLOPs per parameter and trained token, 2 per scored one. Time "
            "is added up over runs and evaluators, also over those that ran side by side; of merges "
            "and scores it is that of the present models.",
            class_="small",
        ),
    )


def _naive(costs: Costs) -> str:
    if costs.naive_flops is None:
        return "What the naive way would cost is not known here."
    what = (
        "as many mixtures as were to be scored"
        if costs.mixtures is None
        else f"each of the {plural(costs.mixtures, 'mixture')}"
        if costs.mixtures < 1_000_000
        else f"each of the {costs.mixtures:.3g} mixtures"
    )
    time = f", {duration(costs.naive_seconds)} at the same speed" if costs.naive_seconds else ""
    times = f", {count(costs.times)} times as much as all of this" if costs.times else ""
    return (
        f"The naive way, a training run for {what}, would take "
        f"{count(costs.naive_flops, 'FLOP')}{time}{times}."
    )


def data_section(content: ReportContent) -> Html:
    """Return what text there was, what was dropped and why, and what is evaluated."""
    corpus = content.corpus
    total = sum(info.tokens for info in corpus.partitions.values())
    said = (
        f"{plural(len(corpus.partitions), 'partition')}, {count(total)} training tokens; "
        f"{plural(len(corpus.domains), 'text')} to evaluate on, "
        f"{count(sum(info.tokens for info in corpus.domains.values()))} tokens."
    )
    tables = [_partitions(corpus), _domains(corpus)]
    long = max(len(corpus.partitions), len(corpus.domains)) > LONG
    return section(
        "data", "The data", paragraph(said), details("Counts", *tables) if long else joined(tables)
    )


def _partitions(corpus: Corpus) -> Html:
    rows = []
    for name, info in sorted(corpus.partitions.items()):
        dropped = info.dropped
        rows.append(
            (
                name,
                f"{info.documents:,}",
                count(info.tokens),
                info.units,
                count(info.unused_tokens),
                f"{dropped.get('empty', 0) + dropped.get('not_text', 0):,}",
                f"{dropped.get('duplicate', 0):,}",
                f"{dropped.get('contaminated', 0):,}",
                f"{info.heldout_documents:,}",
                f"{info.heldout_dropped:,}",
            )
        )
    heads = ("partition", "documents", "tokens", "units", "unused tokens", "dropped: empty",
             "dropped: duplicate", "dropped: contaminated", "held out", "held out, dropped")  # fmt: skip
    return table(
        heads, rows, caption="Partitions: documents kept for training, and those that were not"
    )


def _domains(corpus: Corpus) -> Html:
    order = sorted(corpus.domains.items(), key=lambda item: (item[1].kind, item[0]))
    rows = [
        (name, "held-out split" if info.kind == "heldout" else "evaluation domain",
         f"{info.documents:,}", count(info.tokens), count(info.bytes, "B"))
        for name, info in order
    ]  # fmt: skip
    heads = ("text", "kind", "documents", "tokens", "size")
    return table(heads, rows, caption="Evaluated text", texts=2)


def origin_section(content: ReportContent) -> Html:
    """Return how to get the same again: commands, fingerprints, versions, the resolved study."""
    origin = content.origin
    commands = "\n".join(
        (
            "ablate run study.yaml                  # what is done is not done again",
            "ablate report study.yaml               # this page",
            "ablate export study.yaml --mixture best --as weights --to best.json",
        )
    )
    return section(
        "reproduce",
        "How to get the same again",
        paragraph("Save the resolved study below as study.yaml, then:"),
        element("pre", element("code", commands)),
        _pairs("Fingerprints", origin.fingerprints),
        _pairs("Versions that wrote this page", origin.versions),
        details("The resolved study", element("pre", element("code", origin.study))),
    )


def _pairs(title: str, values: dict[str, str]) -> Html:
    items = (
        element("div", element("dt", name), element("dd", value)) for name, value in values.items()
    )
    return joined([element("h3", title), element("dl", *items)])
