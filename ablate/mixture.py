"""Mixtures: non-negative weights over partitions that sum to one."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ablate.errors import StudyError, did_you_mean


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Weights over partitions. `weights` is sorted by partition, positive, and sums to one."""

    weights: tuple[tuple[str, float], ...]

    @classmethod
    def of(cls, weights: Mapping[str, float]) -> Mixture:
        """Return the mixture of `weights` (any positive scale); zeros are left out.

        Raises StudyError when a weight is negative or not finite, or when none is positive.
        """
        for name, weight in weights.items():
            if not math.isfinite(weight) or weight < 0:
                raise StudyError(
                    f"weights must be finite and >= 0 for partition '{name}', got {weight}; "
                    "give each partition a share such as 0.25"
                )
        total = math.fsum(weights.values())
        if total <= 0:
            raise StudyError(
                f"a mixture must have a positive weight, got {dict(weights)}; "
                "name at least one partition"
            )
        kept = sorted((name, weight / total) for name, weight in weights.items() if weight > 0)
        return cls(weights=tuple(kept))

    @classmethod
    def uniform(cls, partitions: Iterable[str]) -> Mixture:
        """Return equal weights on `partitions` (macro weighting)."""
        return cls.of(dict.fromkeys(partitions, 1.0))

    @classmethod
    def by_units(cls, partitions: Iterable[str], units: Mapping[str, int]) -> Mixture:
        """Return weights in proportion to numbers of base units (micro weighting)."""
        return cls.of({name: float(units[name]) for name in partitions})

    @property
    def partitions(self) -> tuple[str, ...]:
        """Return the members, sorted."""
        return tuple(name for name, _ in self.weights)

    @property
    def size(self) -> int:
        """Return the number of partitions."""
        return len(self.weights)

    def key(self) -> str:
        """Return a text that is equal for equal mixtures: names with weights to 12 digits."""
        return "|".join(f"{name}={weight:.12g}" for name, weight in self.weights)

    def require_known(self, partitions: Iterable[str]) -> Mixture:
        """Return self; raise StudyError when a member is not among `partitions`."""
        known = set(partitions)
        for name in self.partitions:
            if name not in known:
                raise StudyError(
                    f"a mixture's members must be partitions of the study, got '{name}'; "
                    f"{did_you_mean(name, known)}"
                )
        return self


def member_mixture(partitions: Iterable[str], units: Mapping[str, int], weighting: str) -> Mixture:
    """Return the mixture of a member list under `weighting` ("micro" or "macro").

    Source: Na et al. (arXiv 2410.15661), micro and macro averages of base units.
    """
    members = tuple(partitions)
    if weighting == "micro":
        return Mixture.by_units(members, units)
    return Mixture.uniform(members)
