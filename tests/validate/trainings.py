"""Made-up trained mixtures for the laws of validation: a known truth, proxies that see part of it."""

from __future__ import annotations

import numpy as np

from ablate.search.predictors.predictor import Array


def made_up(
    count: int, seed: int, *, noise: float = 0.1, slope: float = 0.8, by_size: float = -0.3
) -> tuple[dict[str, Array], Array]:
    """Return features and trained losses [count]; the merge is as exact as the noise allows."""
    rng = np.random.default_rng([seed, count])
    sizes = rng.integers(2, 6, count)
    merge = rng.standard_normal(count)
    features = {
        "merge": merge,
        "ensemble": merge + 0.3 * rng.standard_normal(count),
        "members": merge + 0.6 * rng.standard_normal(count),
        "size": np.log(sizes),
        "tokens": np.log(sizes) + 13 + 0.05 * rng.standard_normal(count),
    }
    truth = 3 + slope * merge + by_size * features["size"]
    return features, truth + noise * rng.standard_normal(count)


def rows(features: dict[str, Array], picked: object) -> dict[str, Array]:
    return {name: values[picked] for name, values in features.items()}  # type: ignore[index]
