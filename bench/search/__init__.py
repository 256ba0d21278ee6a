"""Searching: evaluations to the optimum of recorded landscapes, predictors, the ensemble proxy."""

from __future__ import annotations

from typing import Any

from bench.search import ensemble, landscapes, predictors


def run() -> list[dict[str, Any]]:
    """Return the numbers of all three."""
    return [*landscapes.run(), *predictors.run(), *ensemble.run()]
