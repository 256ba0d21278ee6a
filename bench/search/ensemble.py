"""The output-space proxy: time of a mixture, of the convex optimum, of all subsets."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ablate.evaluate.ensemble import (
    Ensemble,
    build_ensemble,
    every_subset,
    losses,
    optimum,
    subset_losses,
)
from bench._numbers import at_most

DOMAINS = 12
TOLERANCE = 1e-6  # nats
BATCH = 256
REPEATS = 5


def run() -> list[dict[str, Any]]:
    """Return microseconds per mixture, passes to the optimum, seconds for 2^12 subsets.

    CPU time of one thread, best of repeats: set OMP_NUM_THREADS=1 for the matrix products.
    """
    small, members = _ensemble(tokens=8192, units=10), _ensemble(tokens=8192, units=12)
    numbers = [*_scoring("", small), *_optimum("", members), _subsets(members)]
    large = _ensemble(tokens=100_000, units=32)
    return [*numbers, *_scoring("-large", large), *_optimum("-large", large), _error(small)]


def _ensemble(tokens: int, units: int) -> Ensemble:
    """Return models that share most of what they know and each know some domains better."""
    rng = np.random.default_rng(0)
    nats = {
        f"d{domain}": np.maximum(
            0,
            rng.gamma(1.5, 2, (tokens, 1))
            + rng.normal(0, 0.6, units)
            + rng.normal(0, 1, (tokens, units)),
        ).astype(np.float32)
        for domain in range(DOMAINS)
    }
    return build_ensemble(nats, [f"u{unit}" for unit in range(units)])


def _scoring(size: str, ensemble: Ensemble) -> list[dict[str, Any]]:
    weights = np.random.default_rng(1).dirichlet(np.ones(len(ensemble.units)), BATCH)
    single = _seconds(lambda: losses(ensemble, weights[:1]), 20 * REPEATS) * 1e6
    batch = _seconds(lambda: losses(ensemble, weights), REPEATS) / BATCH * 1e6
    about = _about(ensemble)
    limit = None if size else 1000.0
    return [
        at_most(f"search/ensemble/single{size}", single, "us", limit, f"a mixture alone, {about}"),
        at_most(f"search/ensemble/batched{size}", batch, "us", limit, f"a mixture among {BATCH}"),
    ]


def _optimum(size: str, ensemble: Ensemble) -> list[dict[str, Any]]:
    objective = np.full(DOMAINS, 1 / DOMAINS)
    found = optimum(ensemble, objective, tolerance=TOLERANCE)
    seconds = _seconds(lambda: optimum(ensemble, objective, tolerance=TOLERANCE), 2)
    gap = f"gap {found.gap:.1e} nats, {np.count_nonzero(found.weights)} positive weights"
    return [
        at_most(f"search/ensemble/passes{size}", found.passes, "passes", 50.0, gap),
        at_most(f"search/ensemble/gap{size}", found.gap, "nats", TOLERANCE, "duality gap"),
        at_most(f"search/ensemble/optimum{size}", seconds * 1e3, "ms", None, _about(ensemble)),
    ]


def _subsets(ensemble: Ensemble) -> dict[str, Any]:
    masks = every_subset(len(ensemble.units))
    seconds = _seconds(lambda: subset_losses(ensemble, masks), 2)
    detail = f"all {len(masks)} subsets, {_about(ensemble)}"
    return at_most("search/ensemble/subsets", seconds, "s", None, detail)


def _error(ensemble: Ensemble) -> dict[str, Any]:
    """Return the largest relative error of a loss against float64 log-sum-exp."""
    weights = np.random.default_rng(2).dirichlet(np.ones(len(ensemble.units)), 32)
    logs = np.log(weights)
    exact = [
        [-np.logaddexp.reduce(row - nats, axis=1).mean() for row in logs]
        for nats in (ensemble.nats(domain) for domain in range(DOMAINS))
    ]
    error = abs(losses(ensemble, weights) / np.array(exact).T - 1).max()
    return at_most("search/ensemble/error", float(error), "", 1e-6, "relative, against float64")


def _about(ensemble: Ensemble) -> str:
    return f"{DOMAINS} x {int(ensemble.tokens[0])} tokens x {len(ensemble.units)} units"


def _seconds(work: Callable[[], object], repeats: int) -> float:
    """Return the smallest CPU time of this thread for one call."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.thread_time()
        work()
        best = min(best, time.thread_time() - started)
    return best
