"""agreement.json as the page reads it: nothing in it is taken for granted."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.report.wording import listed, objective_words, plural

MERGE = "merge"
OBJECTIVE = "objective"
PROXIES = {
    "calibrated": "calibrated prediction",
    "merge": "merge",
    "ensemble": "ensemble of the units",
    "members_mean": "mean of the members",
    "members_best": "best member",
    "members_worst": "worst member",
    "logit_ensemble": "average of the logits",
    "datamodel": "linear datamodel",
    "mixing_law": "mixing law",
    "seed": "seed's own loss",
    "tokens": "number of tokens",
}
MEASURES = {
    "spearman": "Spearman",
    "pearson": "Pearson",
    "kendall": "Kendall",
    "decision_accuracy": "right of two",
    "top_overlap": "overlap of the best",
    "best_quarter": "within the best quarter",
    "regret": "regret, nats",
    "regret_share": "regret, % of spread",
}
MOST_GROUPS = 6
"""Groups of sizes that a scatter tells apart by symbol."""

LEAST_TO_RANK = 3
"""Mixtures of a size from which there is an agreement within it: that of `validate.measures`."""

Measured = tuple[float, float | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One mixture in truth and by proxy, on one target; losses in nats per token."""

    name: str
    size: int
    control: bool
    proxy: float
    trained: float
    predicted: float | None
    lower: float | None
    upper: float | None


def trained(agreement: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what is known of each training of a mixture, in the order of the file."""
    rows = agreement.get("mixtures")
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []


def mixtures(agreement: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the first training of each mixture."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in trained(agreement):
        found.setdefault(json.dumps([row.get("partitions"), row.get("weights")]), row)
    return list(found.values())


def counted(agreement: Mapping[str, Any]) -> str:
    """Return how many mixtures were trained, and how often where that is more."""
    count, trainings = len(mixtures(agreement)), len(trained(agreement))
    times = f", in {trainings:,} trainings" if trainings > count else ""
    return f"{plural(count, 'mixture')} trained for real{times}"


def measured_on(
    agreement: Mapping[str, Any], weights: Mapping[str, float], texts: Mapping[str, str]
) -> str:
    """Return what else than the present question an agreement was measured on; empty for nothing.

    `weights` are the present objective's, `texts[domain]` the fingerprints of the present texts.
    """
    said = []
    theirs = {
        name: number(weight) or 0.0 for name, weight in _mapping(agreement.get("weights")).items()
    }
    if any(abs(theirs.get(n, 0.0) - weights.get(n, 0.0)) > 1e-9 for n in {*theirs, *weights}):
        other = f", {objective_words(theirs)}" if any(theirs.values()) else ""
        said.append(f"for another objective{other}")
    known = _mapping(agreement.get("domains"))
    if changed := sorted(name for name, mark in texts.items() if known.get(name) != mark):
        said.append(f"on other text of {listed(changed, 4)}")
    if not said:
        return ""
    return (
        f"What follows was measured {' and '.join(said)}: run `ablate validate` again, which "
        "trains nothing twice."
    )


def compared(agreement: Mapping[str, Any]) -> int:
    """Return how many trained mixtures are of a size of which there are three or more."""
    sizes = Counter(_size(row) for row in mixtures(agreement))
    return sum(count for count in sizes.values() if count >= LEAST_TO_RANK)


def kinds_of(agreement: Mapping[str, Any]) -> dict[str, str]:
    """Return objective, domain or partition by target."""
    return {name: str(kind) for name, kind in _mapping(agreement.get("targets")).items()}


def targets_of(agreement: Mapping[str, Any]) -> list[str]:
    """Return the targets: the objective, evaluation domains, held-out splits, each by name."""
    kinds = kinds_of(agreement)
    order = {OBJECTIVE: 0, "domain": 1}
    return sorted(kinds, key=lambda name: (order.get(kinds[name], 2), name))


def proxies_of(agreement: Mapping[str, Any]) -> list[str]:
    """Return the proxies in the order of `PROXIES`, then others by name."""
    found: set[str] = set(_mapping(agreement.get("summary")))
    for row in trained(agreement):
        found |= set(_mapping(row.get("proxies")))
    known = list(PROXIES)
    return sorted(found, key=lambda name: (known.index(name) if name in known else 99, name))


def drawable(agreement: Mapping[str, Any]) -> list[str]:
    """Return the proxies that are losses by target, and so can stand on an axis."""
    rows = trained(agreement)
    return [
        name
        for name in proxies_of(agreement)
        if name != "tokens" and any(_mapping(_mapping(r.get("proxies")).get(name)) for r in rows)
    ]


def size_groups(agreement: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return the sizes of the trained mixtures, small first, as ranges: at most `MOST_GROUPS`."""
    sizes = sorted({_size(row) for row in trained(agreement)})
    step = max(1, -(-len(sizes) // MOST_GROUPS))
    parts = (sizes[start : start + step] for start in range(0, len(sizes), step))
    return [(part[0], part[-1]) for part in parts]


def seen(agreement: Mapping[str, Any], target: str, proxy: str) -> list[Seen]:
    """Return the trained mixtures with both losses on a target, in the order of the file."""
    found = []
    for row in trained(agreement):
        truth = number(_mapping(row.get("trained")).get(target))
        guess = number(_mapping(_mapping(row.get("proxies")).get(proxy)).get(target))
        if truth is None or guess is None:
            continue
        fit = measured(_mapping(row.get("predicted")).get(target))
        mean, lower, upper = fit or (None, None, None)
        found.append(
            Seen(
                name=str(row.get("name", "")),
                size=_size(row),
                control=bool(row.get("control")),
                proxy=guess,
                trained=truth,
                predicted=mean,
                lower=lower,
                upper=upper,
            )
        )
    return found


def views(agreement: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a scatter of any target and proxy is drawn from, as plain JSON values.

    `places[k]` are the mixtures of the k-th of `size_groups`; `trained[target][mixture]`,
    `predicted[target]` and `proxies[p].losses[target][mixture]` are in the order of `targets_of`.
    """
    rows, targets = trained(agreement), targets_of(agreement)
    sizes = [_size(row) for row in rows]
    return {
        "places": [
            [at for at, size in enumerate(sizes) if least <= size <= most]
            for least, most in size_groups(agreement)
        ],
        "trained": [[_loss(row.get("trained"), target) for row in rows] for target in targets],
        "predicted": [_predicted(rows, target) for target in targets],
        "proxies": {
            proxy: [[_loss(_mapping(row.get("proxies")).get(proxy), target) for row in rows]
                    for target in targets]
            for proxy in drawable(agreement)
        },
    }  # fmt: skip


def _predicted(rows: list[Mapping[str, Any]], target: str) -> dict[str, list[float | None]]:
    fits = [measured(_mapping(row.get("predicted")).get(target)) for row in rows]
    return {
        "mean": [None if fit is None else _short(fit[0]) for fit in fits],
        "above": [None if fit is None else _short((fit[2] or fit[0]) - fit[0]) for fit in fits],
        "below": [None if fit is None else _short(fit[0] - (fit[1] or fit[0])) for fit in fits],
    }


def _loss(losses: Any, target: str) -> float | None:
    value = number(_mapping(losses).get(target))
    return None if value is None else _short(value)


def _short(value: float) -> float:
    return round(value, 5)


def within(agreement: Mapping[str, Any], target: str, proxy: str, measure: str) -> Measured | None:
    """Return a measure within mixture size, as (value, lower, upper)."""
    table = _mapping(_mapping(agreement.get("agreement")).get(target))
    return measured(_mapping(_mapping(table.get(proxy)).get("within")).get(measure))


def summary(agreement: Mapping[str, Any], proxy: str, group: str, measure: str) -> Measured | None:
    """Return a measure of the summary; `group` is in_domain, outside or objective."""
    table = _mapping(_mapping(agreement.get("summary")).get(proxy))
    return measured(_mapping(table.get(group)).get(measure))


def noise_floor(agreement: Mapping[str, Any], kinds: set[str], measure: str) -> float | None:
    """Return the mean over targets of some kinds of what two trainings of a mixture agree."""
    floor, targets = _mapping(agreement.get("noise_floor")), kinds_of(agreement)
    values = [
        found[0]
        for name, table in floor.items()
        if targets.get(name) in kinds and (found := measured(_mapping(table).get(measure)))
    ]
    return sum(values) / len(values) if values else None


def calibration(agreement: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the calibration by target, those without one left out."""
    found = _mapping(agreement.get("calibration"))
    return {t: _mapping(found[t]) for t in targets_of(agreement) if _mapping(found.get(t))}


def measured(value: Any) -> Measured | None:
    """Return (value, lower, upper) of a list; None when there is no value."""
    items = [number(item) for item in value] if isinstance(value, list | tuple) else [number(value)]
    if not items or items[0] is None:
        return None
    lower, upper = (*items[1:], None, None)[:2]
    return items[0], lower, upper


def number(value: Any) -> float | None:
    """Return a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= sys.float_info.max else None


def _size(row: Mapping[str, Any]) -> int:
    return int(number(row.get("size")) or 0)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
