"""The answer of `validate` in a few sentences, from its numbers alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ablate.validate.measures import LEAST_TO_RANK
from ablate.validate.statistics import Estimate

Summary = Mapping[str, Mapping[str, Mapping[str, Estimate]]]

NAMES = {
    "merge": "the merge",
    "ensemble": "the ensemble of token probabilities",
    "members_mean": "the mean of the members' own losses",
    "members_best": "the best member's own loss",
    "members_worst": "the worst member's own loss",
    "logit_ensemble": "the average of the members' logits",
    "seed": "the seed's loss",
    "tokens": "the number of tokens",
    "datamodel": "a linear datamodel of the other trained mixtures",
    "mixing_law": "a mixing law of the other trained mixtures",
}
MEASURE = "spearman"
CALIBRATED = "calibrated"


def first_line(summary: Summary, sizes: Sequence[int]) -> str:
    """Return whether the first proxy predicts trained models, and which others it does not beat.

    `sizes` [n] are those of the trained mixtures: one beside fewer than two of its size is not
    ranked.
    """
    proxy, *others = [name for name in summary if name != CALIBRATED]
    mine = _value(summary, proxy)
    if mine is None:
        return (
            f"{len(sizes)} trained mixture(s) cannot say how well {_name(proxy)} predicts: three of "
            "one size are needed; train more (validate.mixtures) or fewer sizes (validate.sizes)."
        )
    ranked = sum(count for count in Counter(sizes).values() if count >= LEAST_TO_RANK)
    part = "" if ranked == len(sizes) else f"{ranked} of "
    head = (
        f"Within a size, {_name(proxy)} ranks {part}{len(sizes)} trained mixtures with Spearman "
        f"{_interval(summary, proxy)} on average over all texts"
    )
    ranked_others = [name for name in others if _value(summary, name) is not None]
    behind = _ahead(summary, proxy, ranked_others, "domains")
    decisive = _ahead(summary, proxy, ranked_others, "objective")
    if behind:
        tail = f"; it does NOT beat {_named(summary, behind, 'domains')}"
    elif ranked_others:
        best = max(ranked_others, key=lambda name: _value(summary, name) or 0.0)
        tail = (
            f"; it beats all {len(ranked_others)} others, of which {_name(best)} is best "
            f"({_value(summary, best):.2f})"
        )
    else:
        tail = ""
    if decisive:
        own = _value(summary, proxy, "objective")
        join = "and" if behind else "but"
        tail += (
            f"; {join} on the objective ({own:.2f}) it does NOT beat "
            f"{_named(summary, decisive, 'objective')}"
        )
    return f"{head}{tail}."


def _ahead(summary: Summary, proxy: str, others: Sequence[str], kind: str) -> list[str]:
    """Return the others that agree at least as well as the proxy, by texts or by objective."""
    mine = _value(summary, proxy, kind)
    if mine is None:
        return []
    values = {name: _value(summary, name, kind) for name in others}
    return [name for name, value in values.items() if value is not None and value >= mine]


def _named(summary: Summary, names: Sequence[str], kind: str) -> str:
    return ", ".join(f"{_name(name)} ({_value(summary, name, kind):.2f})" for name in names)


def too_few_line(mixtures: int, least: int) -> str:
    """Return that nothing is calibrated before `least` mixtures are trained."""
    return (
        f"Nothing is calibrated: that takes {least} trained mixtures, {least - mixtures} more than "
        "there are (validate.mixtures, as far as the search scored so many)."
    )


def untold_line(r2: float | None) -> str:
    """Return that what was fitted predicts no better than the mean, by R² over left-out mixtures."""
    share = "" if r2 is None else f" (R2 {r2:.2f})".replace("-0.00", "0.00")
    return (
        "Nothing is calibrated: mixtures left out are predicted no better than by the mean of the "
        f"others{share}; train more (validate.mixtures)."
    )


def error_line(
    error: float, coverage: Estimate, spread: float, ranks: float | None, trainings: int = 1
) -> str:
    """Return how far predictions of the trained objective are off, nats per token, held out.

    `ranks` is the Spearman correlation of the predictions over mixtures of all sizes; what is
    predicted is the mean of so many `trainings`.
    """
    alike = "" if ranks is None else f" and ranked over all sizes with Spearman {ranks:.2f}"
    held = "" if coverage.value is None else f"; the 95% intervals held {coverage.value:.0%}"
    what = "the trained objective"
    if trainings > 1:
        what = f"the mean objective of {trainings} trainings"
    return (
        f"Calibrated, {what} is predicted to within {error:.3f} nats (root mean "
        f"square, of mixtures left out; the trained ones differ by {spread:.3f}){alike}{held}."
    )


def _value(summary: Summary, name: str, kind: str = "domains") -> float | None:
    return summary[name][kind][MEASURE].value


def _name(name: str) -> str:
    return NAMES.get(name, f"the merge by {name}")


def _interval(summary: Summary, name: str) -> str:
    found = summary[name]["domains"][MEASURE]
    bounds = ""
    if found.lower is not None and found.upper is not None:
        bounds = f" ({found.lower:.2f} to {found.upper:.2f})"
    return f"{found.value:.2f}{bounds}"
