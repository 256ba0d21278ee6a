"""From a mixture over partitions to coefficients of unit models."""

from __future__ import annotations

from collections.abc import Mapping

from ablate.errors import StudyError, did_you_mean
from ablate.mixture import Mixture

Coefficients = tuple[tuple[tuple[str, int], float], ...]


def unit_coefficients(
    mixture: Mixture, units: Mapping[str, int], scale: float | None
) -> tuple[float, Coefficients]:
    """Return (seed coefficient, ((partition, unit index), coefficient) sorted).

    A partition's weight is split evenly over its `units[partition]` units. With `scale` None the
    merge is sum_k w_k theta_k and the seed's coefficient is 0. With a scale s it is
    theta_0 + s n sum_k w_k (theta_k - theta_0), n = number of units of the mixture, so that
    s = 1/n is the average and s = 1 adds all deltas whole (task arithmetic).

    Raises StudyError for a partition without units. Source: Na et al., arXiv 2410.15661 (micro
    and macro averages); Ilharco et al., arXiv 2212.04089 (sums of deltas).
    """
    for name in mixture.partitions:
        if units.get(name, 0) < 1:
            raise StudyError(
                f"a mixture's members must have unit models, got none for '{name}'; "
                f"{did_you_mean(name, units)}"
            )
    members = [
        ((name, index), weight / units[name])
        for name, weight in mixture.weights
        for index in range(units[name])
    ]
    if scale is None:
        return 0.0, tuple(members)
    reach = scale * len(members)
    # One minus the members' sum, not one minus `reach`: all coefficients then sum to one.
    scaled = tuple((member, reach * weight) for member, weight in members)
    total = reach * sum(weight for _, weight in members)
    seed = 1.0 - total
    return (0.0 if abs(seed) < 1e-12 else seed), scaled
