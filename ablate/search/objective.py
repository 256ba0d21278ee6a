"""The objective: one number from the losses of a trial, recomputed whenever the question changes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ablate.errors import StudyError, did_you_mean
from ablate.study import ObjectiveSettings


def objective_weights(settings: ObjectiveSettings, kinds: Mapping[str, str]) -> dict[str, float]:
    """Return weight[domain], summing to one, over domains given as {name: "domain" | "heldout"}.

    Raises StudyError when a name is unknown or nothing is left to average.
    """
    raw = _raw_weights(settings, kinds)
    for name in raw:
        if name not in kinds:
            raise StudyError(
                f"search.objective must name evaluation domains or partitions with a held-out "
                f"split, got '{name}'; {did_you_mean(name, kinds)}"
            )
    total = math.fsum(raw.values())
    if not total:
        raise StudyError(
            f"search.objective must cover at least one domain, got mean: {settings.mean} of "
            f"{sorted(kinds)}; name a domain under evaluate.domains, or use mean: all"
        )
    return {name: weight / total for name, weight in sorted(raw.items()) if weight > 0}


def _raw_weights(settings: ObjectiveSettings, kinds: Mapping[str, str]) -> dict[str, float]:
    if settings.domain is not None:
        return {settings.domain: 1.0}
    if settings.weighted is not None:
        return {name: float(weight) for name, weight in settings.weighted.items()}
    if isinstance(settings.mean, tuple):
        return dict.fromkeys(settings.mean, 1.0)
    wanted = {"all": ("domain", "heldout"), "domains": ("domain",), "partitions": ("heldout",)}
    chosen = wanted[settings.mean or "all"]
    return {name: 1.0 for name, kind in kinds.items() if kind in chosen}


def objective_value(weights: Mapping[str, float], losses: Mapping[str, float]) -> float:
    """Return the weighted mean loss in nats per token; raises KeyError for a missing domain."""
    return math.fsum(weight * losses[name] for name, weight in weights.items())
