"""Numbers and mixtures in words, the same on the whole page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from ablate.search.leaderboard import Leaderboard
from ablate.search.plots import shortened
from ablate.search.spaces import SubsetSpace
from ablate.search.table import Trial

LABEL_LENGTH = 60
SPELLED = 8  # members that a sentence names; more are counted
LEFT_OUT = 3  # as many missing partitions are named in place of all that are there


def count(value: float, unit: str = "") -> str:
    """Return a number with a suffix: 1.2k, 3.4M, or before a unit, 5.6 TFLOP."""
    for suffix in ("", "k", "M", "G", "T", "P", "E", "Z", "Y"):
        if abs(value) < 999.5 or suffix == "Y":
            break
        value /= 1000
    digits = f"{value:.0f}" if suffix == "" else f"{value:.3g}"
    return f"{digits} {suffix}{unit}" if unit else f"{digits}{suffix}"


def nats(value: float | None) -> str:
    """Return a loss in nats per token with four decimals; empty when there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.4f}"


def signed(value: float | None) -> str:
    """Return a difference with its sign, as typeset; empty when there is none."""
    return "" if value is None or not math.isfinite(value) else f"{value:+.4f}".replace("-", "−")


def percent(share: float) -> str:
    """Return a share as a percentage, with a decimal below ten."""
    size = abs(100 * share)
    return f"{size:.1f} %" if size < 9.95 else f"{size:.0f} %"


def chance(probability: float | None) -> str:
    """Return a probability; what rounds to certainty is named as a bound."""
    if probability is None:
        return ""
    if probability > 0.9995:
        return "> 99.9 %"
    if probability < 0.0005:
        return "< 0.1 %"
    return f"{100 * probability:.1f} %"


def duration(seconds: float) -> str:
    """Return seconds, minutes, hours, days or years, whichever reads best."""
    for most, unit, name in (
        (120, 1, "s"), (7200, 60, "min"), (48 * 3600, 3600, "h"), (3e8, 86400, "days"),
    ):  # fmt: skip
        if seconds < most:
            return f"{seconds / unit:.3g} {name}"
    return f"{count(seconds / (365.25 * 86400))} years"


def plural(number: int, word: str) -> str:
    """Return a count with its noun."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def listed(names: Sequence[str], most: int = SPELLED) -> str:
    """Return "a, b and c", or the first of many with the number of the others."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def objective_kind(weights: Mapping[str, float]) -> Literal["one", "even", "weighted"]:
    """Return whether an objective is the loss on one text, or which mean over several."""
    values = [weight for weight in weights.values() if weight]
    if len(values) == 1:
        return "one"
    return "even" if max(weights.values()) - min(weights.values()) < 1e-12 else "weighted"


def objective_words(weights: Mapping[str, float]) -> str:
    """Return what the objective is: the loss on a text, or a mean of which."""
    names, which = [name for name, weight in weights.items() if weight], objective_kind(weights)
    if which == "one":
        return f"the loss on {names[0]}"
    kind = "the mean loss on" if which == "even" else "a weighted mean loss on"
    return f"{kind} {listed(names, 4)}" if len(names) <= 4 else f"{kind} {len(names):,} texts"


def mixture_label(row: Trial, board: Leaderboard, length: int = LABEL_LENGTH) -> str:
    """Return a mixture in at most about `length` characters.

    Of a large one the partitions left out are named when they are few; else the first members (the
    heaviest, where proportions were searched) with the number of the others. Where several merges
    were scored, its own follows in brackets.
    """
    weights = row.candidate.mixture.weights if row.candidate.mixture else ()
    if not weights:
        return "seed"
    if row.candidate.kind == "unit" and board.units.get(row.partitions[0], 1) > 1:
        return f"{row.partitions[0]}, unit {row.candidate.unit}"
    by = f" [{row.candidate.merge}]" if row.candidate.merge and len(board.merges) > 1 else ""
    if isinstance(board.space, SubsetSpace):
        return _subset_label([name for name, _ in weights], board.units, length) + by
    heaviest = sorted(weights, key=lambda item: (-item[1], item[0]))
    return _first([f"{name} {weight:.3g}" for name, weight in heaviest], length) + by


def _subset_label(members: list[str], units: Iterable[str], length: int) -> str:
    spelled = " + ".join(members)
    if len(spelled) <= length:
        return spelled
    everything = sorted(units)
    missing = [name for name in everything if name not in set(members)]
    if not missing:
        return f"all {len(everything):,} partitions"
    if len(missing) <= LEFT_OUT < len(members):
        return f"all but {listed([shortened(name, 24) for name in missing])}"
    return _first(members, length)


def _first(parts: list[str], length: int) -> str:
    """Return as many parts as fit, at least one, and the number of those that do not."""
    room = length - 10
    shown = [shortened(parts[0], room)]
    for part in parts[1:]:
        if len(" + ".join([*shown, part])) > room + 10 * (len(shown) + 1 == len(parts)):
            return f"{' + '.join(shown)} + {len(parts) - len(shown):,} more"
        shown.append(part)
    return " + ".join(shown)


def numbered(name: str, length: int) -> str:
    """Return a name in at most `length` characters; a unit's number at its end stays."""
    head, _, number = name.rpartition(" ")
    if len(name) <= length or not head or not number.isdecimal() or len(number) > length // 2:
        return shortened(name, length)
    return f"{shortened(head, length - len(number) - 1)} {number}"


def unlike(names: Iterable[str], length: int) -> list[str]:
    """Return names in about `length` characters, no two alike: charts put equal ones together."""
    found: dict[str, None] = {}
    for name in names:
        label = numbered(name, length)
        while label in found:
            label += "\u2009'"
        found[label] = None
    return list(found)
