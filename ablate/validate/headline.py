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
    ahead = [
        name for name in others if (value := _value(summary, name)) is not None and value >= mine
    ]
    if ahead:
        named = ", ".join(f"{_name(name)} ({_value(summary, name):.2f})" for name in ahead)
        return f"{head}; it does NOT beat {named}."
    beaten = [name for name in others if _value(summary, name) is not None]
    if not beaten:
        return head + "."
    best = max(beaten, key=lambda name: _value(summary, name) or 0.0)
    return f"{head}; it beats all {len(beaten)} others, of which {_name(best)} is best ({_value(summary, best):.2f})."


def too_few_line(mixtures: int, least: int) -> str:
    """Return that nothing is calibrated before `least` mixtures are trained."""
    return (
        f"Nothing is calibrated: that takes {least} trained mixtures, {least - mixtures} more than "
        "there are (validate.mixtures)."
    )


def untold_line(r2: float | None) -> str:
    """Return that what was fitted predicts no better than the mean, by R² over left-out mixtures."""
    share = "" if r2 is None else f" (R2 {r2:.2f})".replace("-0.00", "0.00")
    return (
        "Nothing is calibrated: mixtures left out are predicted no better than by the mean of the "
        f"others{share}; train more (validate.mixtures)."
    )


def error_line(error: float, coverage: Estimate, spread: float, ranks: float | None) -> str:
    """Return how far predictions of the trained objective are off, nats per token, held out.

    `ranks` is the Spearman correlation of the predictions over mixtures of all sizes.
    """
    alike = "" if ranks is None else f" and ranked over all sizes with Spearman {ranks:.2f}"
    held = "" if coverage.value is None else f"; the 95% intervals held {coverage.value:.0%}"
    return (
        f"Calibrated, the trained objective is predicted to within {error:.3f} nats (root mean "
        f"square, of mixtures left out; the trained ones differ by {spread:.3f}){alike}{held}."
    )


def _value(summary: Summary, name: str) -> float | None:
    return summary[name]["domains"][MEASURE].value


def _name(name: str) -> str:
    return NAMES.get(name, f"the merge by {name}")


def _interval(summary: Summary, name: str) -> str:
    found = summary[name]["domains"][MEASURE]
    bounds = ""
    if found.lower is not None and found.upper is not None:
        bounds = f" ({found.lower:.2f} to {found.upper:.2f})"
    return f"{found.value:.2f}{bounds}"
