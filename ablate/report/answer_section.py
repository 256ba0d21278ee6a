"""The first section: the answer, how sure it is, and what it cannot tell."""

from __future__ import annotations

from ablate.report import agreement as agreed
from ablate.report.answer import (
    EVERYTHING,
    RUNNER_UP,
    RUNNER_UP_OF_SIZE,
    SEED,
    SINGLE,
    Comparison,
)
from ablate.report.checks import interval
from ablate.report.content import ReportContent
from ablate.report.html import Html, details, element, joined, paragraph, section, table
from ablate.report.wording import (
    SPELLED,
    chance,
    listed,
    nats,
    objective_words,
    percent,
    plural,
    signed,
)
from ablate.search.leaderboard import APART
from ablate.search.spaces import SubsetSpace

PAIRED = (
    "Paired over the same text; each row by itself, without allowance for the best having been "
    "chosen from many. Merges of another size are not comparable as they stand: the average of many "
    "models stays nearer to the seed than a model trained on all their text."
)
NEAR = (
    f" Proportions within {APART:.0%} of the best one are none of its runners-up: a search ends in "
    "steps that small."
)
CALIBRATED = (
    "Predictions of the loss of a model truly trained on the mixture, by the calibration that "
    "‘ablate validate’ fitted; the seed is what it is."
)
BARS = 15
ERRORS = 5


def answer_section(content: ReportContent) -> Html:
    """Return the answer first: the best mixture, against what, how sure, and the limits."""
    answer = content.answer
    if answer.best is None:
        said: list[Html] = [paragraph(_nothing(content), class_="lead")]
    else:
        said = [
            paragraph(*_lead(content), class_="lead"),
            paragraph(*_sure(content)),
            element("div", *_limits(content), class_="note"),
            _shares(content),
            _comparisons(content),
        ]
    return section("answer", "The answer", *said, *_failures(content))


def _nothing(content: ReportContent) -> str:
    board = content.board
    if board.failed:
        return f"No mixture is scored: {plural(len(board.failed), 'trial')} failed."
    return "No mixture is scored yet: run `ablate search`."


def _lead(content: ReportContent) -> list[object]:
    answer, board = content.answer, content.board
    assert answer.best is not None
    mixture = answer.best.candidate.mixture
    members = [name for name, _ in mixture.weights] if mixture else []
    what = (
        "the smallest predicted loss when trained"
        if answer.calibrated
        else "the smallest objective"
    )
    parts: list[object] = [
        f"Of {plural(answer.scored, 'mixture')} scored, ",
        element("strong", " + ".join(members) if len(members) <= SPELLED else answer.label),
        f" has {what}: {nats(answer.value)}{_around(answer.interval)} nats per token, "
        f"{objective_words(board.weights)}.",
    ]
    beside = [
        f"{_lower(item)} than {what}{_named(item)}"
        for kind, what in (
            (EVERYTHING, "using everything"),
            (SINGLE, "the best single partition"),
            (SEED, "the seed model"),
        )
        if (item := answer.against(kind))
    ]
    if beside:
        parts.append(f" That is {listed(beside)}.")
    if answer.everything_missing:
        parts.append(" The mixture of all partitions is not scored.")
    elif answer.is_everything:
        parts.append(" It is the mixture of all partitions.")
    elif answer.against(EVERYTHING) is None:
        parts.append(" Of the mixture of all partitions nothing is predicted.")
    if answer.trained is not None:
        parts.append(f" A model truly trained on the best mixture has {nats(answer.trained)}.")
    return parts


def _around(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f" (95 %: {nats(interval[0])} to {nats(interval[1])})"


def _lower(item: Comparison) -> str:
    word = "lower" if item.gain >= 0 else "higher"
    return f"{abs(item.gain):.4f} {word} (perplexity {percent(item.perplexity_gain)} {word})"


def _named(item: Comparison) -> str:
    return f" ({item.label}, {nats(item.value)})" if item.kind == SINGLE else ""


def _sure(content: ReportContent) -> list[object]:
    answer = content.answer
    parts: list[object] = [element("strong", "How sure?"), " "]
    if answer.leaders is None:
        return [*parts, "The scores hold no sums over groups of text, so nothing is tested here."]
    count = answer.leaders.others
    bound = "" if answer.leaders.exact else "at most "
    if answer.calibrated:
        reach = "reaches" if count == 1 else "reach"
        others = plural(count, "other prediction") if count else "No other prediction"
        verb = reach if count else "reaches"
        parts.append(f"{others} {verb} it with the 95 % interval.")
    elif count == 0:
        parts.append("On this much text it can be told from every other mixture (95 %).")
    else:
        parts.append(
            f"On this much text {bound}{plural(count, 'other mixture')} cannot be told from it (95 %)."
        )
    for kind in (RUNNER_UP, RUNNER_UP_OF_SIZE):
        if (item := answer.against(kind)) and item.probability is not None:
            parts.append(
                f" It beats the {kind}, {item.label}, with probability {chance(item.probability)}."
            )
    return parts


def _limits(content: ReportContent) -> list[Html]:
    """Return what the numbers can and cannot tell; after `validate`, what that found."""
    if content.agreement is None:
        return [
            paragraph(
                element("strong", "What this can tell: "),
                "which mixture is better among those of the same size.",
            ),
            paragraph(
                element("strong", "What it cannot tell until "),
                element("code", "ablate validate"),
                element("strong", " has calibrated it: "),
                "whether a larger or a smaller mixture is better, and the loss of a model truly "
                "trained on it.",
            ),
        ]
    return [paragraph(element("strong", "Checked by training: "), _checked(content))]


def _checked(content: ReportContent) -> str:
    agreement = content.agreement or {}
    parts = [f"{agreed.counted(agreement)}.", *filter(None, [content.measured_on])]
    ranked = agreed.compared(agreement)
    which = "them" if ranked == len(agreed.mixtures(agreement)) else f"{ranked:,} of them"
    if headline := str(agreement.get("headline") or ""):
        parts.append(headline)
    for measure, text in (
        ("spearman", f"Within a size the merge ranks {which} with Spearman {{}}."),
        (
            "decision_accuracy",
            "Of two of the same size it names the better one with a chance of {}.",
        ),
    ):
        found = agreed.within(agreement, agreed.OBJECTIVE, agreed.MERGE, measure)
        if found:
            parts.append(text.format(interval(found, measure)))
    parts.append(
        "Above, mixtures are ranked by calibrated predictions of the trained loss, so those of "
        "different sizes can be compared."
        if content.answer.calibrated
        else "The objectives above are those of merges, not calibrated: by them, only mixtures of "
        "the same size can be compared."
    )
    return " ".join(parts)


def _shares(content: ReportContent) -> Html:
    """Return the proportions of the best mixture as bars."""
    best = content.answer.best
    mixture = best.candidate.mixture if best else None
    weights = sorted(mixture.weights, key=lambda item: (-item[1], item[0])) if mixture else []
    most = max((weight for _, weight in weights), default=1.0)
    units = content.board.units
    bars = [
        element(
            "li",
            element("span", name, class_="name"),
            element("span", class_="bar", style=f"--share:{100 * weight / most:.2f}%"),
            element("span", f"{100 * weight:.1f} %", class_="value"),
            element("span", plural(units.get(name, 0), "unit"), class_="units"),
        )
        for name, weight in weights
    ]
    shown = element("ul", *bars[:BARS], class_="bars")
    rest = [details(f"{len(bars) - BARS:,} more", element("ul", *bars[BARS:], class_="bars"))]
    return joined([element("h3", "Its proportions"), shown, *(rest if len(bars) > BARS else [])])


def _comparisons(content: ReportContent) -> Html:
    answer = content.answer
    rows = [
        (
            item.kind,
            item.label,
            "–" if item.is_trained else f"{nats(item.value)}{_around(item.interval)}",
            *([nats(item.trained) or "–"] if answer.calibrated else []),
            signed(-item.gain),
            signed_percent(-item.perplexity_gain),
            *([] if answer.calibrated else [_range(item), chance(item.probability)]),
            *([] if answer.calibrated else ["" if item.same_size else "another size"]),
        )
        for item in answer.comparisons
    ]
    value = ("predicted", "trained") if answer.calibrated else ("objective",)
    tests = () if answer.calibrated else ("95 % interval", "P(best is lower)", "")
    heads = ("against", "mixture", *value, "best minus it", "perplexity", *tests)
    note = CALIBRATED if answer.calibrated else PAIRED
    note += "" if isinstance(content.board.space, SubsetSpace) else NEAR
    beside = table(heads, rows, caption="The best mixture beside others", texts=2)
    return joined([beside, paragraph(note, class_="small")])


def signed_percent(share: float) -> str:
    """Return a share as a percentage with its sign."""
    return f"{'−' if share < 0 else '+'}{percent(share)}"


def _range(item: Comparison) -> str:
    if item.lower is None or item.upper is None:
        return ""
    return f"{signed(-item.upper)} to {signed(-item.lower)}"


def _failures(content: ReportContent) -> list[Html]:
    failed, stopped = content.board.failed, content.board.stopped
    said = []
    if stopped:
        said.append(
            paragraph(
                f"A race stopped {plural(len(stopped), 'more mixture')} early, behind the "
                "leader; they have an estimate and no score."
            )
        )
    if failed:
        errors = list(dict.fromkeys(str(row.error) for row in failed))
        items = [element("li", text[:400]) for text in errors[:ERRORS]]
        said.append(
            details(
                f"{plural(len(failed), 'trial')} failed: all are in trials.parquet",
                element("ul", *items),
            )
        )
    return said
