"""What proxies miss of single partitions: shrunk effects of each partition's text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ablate.search.predictors.predictor import Array
from ablate.validate.calibration import calibrate
from ablate.validate.regressions import PENALTIES, TEXT, candidates, fit_rows, stacked
from ablate.workspace import MAX_STATE_BYTES

PARTITIONS = 6


def world(
    count: int, seed: int, *, missed: float, noise: float = 0.02
) -> tuple[dict[str, Array], Array]:
    """Return features and trained losses of random subsets; proxies miss `missed` nats (sd)."""
    rng = np.random.default_rng(seed)
    members = np.zeros((count, PARTITIONS))
    for row in members:
        row[rng.permutation(PARTITIONS)[: rng.integers(2, 5)]] = 1
    merge = 3 + 0.5 * rng.standard_normal(count)
    effects = missed * np.random.default_rng(99).standard_normal(PARTITIONS)
    trained = 0.4 + 0.9 * merge + members @ effects + noise * rng.standard_normal(count)
    features = {
        "merge": merge,
        "ensemble": merge + 0.05 * rng.standard_normal(count),
        "size": np.log(members.sum(axis=1)),
        **{f"{TEXT}p{place}": 40_000 * members[:, place] for place in range(PARTITIONS)},
    }
    return features, trained


def without_text(features: dict[str, Array]) -> dict[str, Array]:
    return {name: values for name, values in features.items() if not name.startswith(TEXT)}


def test_effects_that_proxies_miss_are_found_and_intervals_cover() -> None:
    held: list[float] = []
    errors: dict[str, list[float]] = {"text": [], "none": []}
    for seed in range(40):
        features, trained = world(60, seed, missed=0.1)
        first = {name: values[:18] for name, values in features.items()}
        rest = {name: values[18:] for name, values in features.items()}
        with_text = calibrate(first, trained[:18])
        plain = calibrate(without_text(first), trained[:18])
        found = with_text.predict(rest)
        errors["text"].append(float(np.mean((found.mean - trained[18:]) ** 2)))
        errors["none"].append(float(np.mean((plain.predict(rest).mean - trained[18:]) ** 2)))
        inside = (found.lower <= trained[18:]) & (trained[18:] <= found.upper)
        held.append(float(np.mean(inside)))
    assert np.mean(errors["text"]) < 0.5 * np.mean(errors["none"])
    assert 0.92 <= np.mean(held) <= 0.99


def test_where_proxies_miss_nothing_text_does_little_harm() -> None:
    errors: dict[str, list[float]] = {"text": [], "none": []}
    for seed in range(40):
        features, trained = world(60, seed, missed=0.0)
        first = {name: values[:12] for name, values in features.items()}
        rest = {name: values[12:] for name, values in features.items()}
        for kind, given in (("text", first), ("none", without_text(first))):
            mean = calibrate(given, trained[:12]).predict(rest).mean
            errors[kind].append(float(np.mean((mean - trained[12:]) ** 2)))
    assert np.mean(errors["text"]) < 1.2 * np.mean(errors["none"])


@pytest.mark.parametrize("count", [10, 18])
def test_the_fit_is_the_bayesian_one_of_its_penalty(count: int) -> None:
    """Mean and leverage are those of a normal prior, also with more columns than mixtures."""
    features, trained = world(40, 3, missed=0.1)
    names = [f"{TEXT}extra{place}" for place in range(4)]
    rng = np.random.default_rng(0)
    features |= {name: 40_000.0 * rng.integers(0, 2, 40) for name in names}
    rows = np.arange(count)
    first = {name: values[:count] for name, values in features.items()}
    model = next(m for m in candidates(first, count) if m.text.any())
    columns = stacked(features, model.columns, 40)
    fit = fit_rows(model, columns, trained, rows[None])
    inside = columns[:count]
    spread = inside.std(axis=0)
    spread[model.text] = np.sqrt(np.mean(spread[model.text] ** 2))
    spread /= model.widths
    z = (columns - inside.mean(axis=0)) / spread
    best = None
    for penalty in count * PENALTIES:
        precision = z[:count].T @ z[:count] + penalty * np.eye(len(spread))
        covariance = np.linalg.inv(precision)
        slope = covariance @ z[:count].T @ (trained[:count] - trained[:count].mean())
        hat = 1 / count + np.einsum("mk,kj,mj->m", z[:count], covariance, z[:count])
        residual = trained[:count] - trained[:count].mean() - z[:count] @ slope
        error = np.mean((residual / (1 - hat)) ** 2)
        if count - 2 - hat.sum() > 1 and (best is None or error < best[0]):
            best = error, slope, covariance
    assert best is not None
    mean, leverage = fit.at(columns[-1:])
    assert mean[0] == pytest.approx(trained[:count].mean() + z[-1] @ best[1])
    assert leverage[0] == pytest.approx(1 / count + z[-1] @ best[2] @ z[-1])
    assert fit.freedom[0] > 1


def test_a_partition_that_was_never_trained_makes_the_interval_wider() -> None:
    features, trained = world(18, 5, missed=0.1)
    fit = calibrate(features, trained)
    assert any(name.startswith(TEXT) for name in fit.columns)
    asked = {name: values[:3] for name, values in features.items()}
    known = fit.predict(asked)
    foreign = fit.predict({**asked, f"{TEXT}new": np.array([0.0, 40_000.0, 80_000.0])})
    assert np.array_equal(known.mean, foreign.mean)
    wider = (foreign.upper - foreign.lower) / (known.upper - known.lower)
    assert wider[0] == 1 and 1 < wider[1] < wider[2]
    both = {**asked, f"{TEXT}new": np.array([0.0, 40_000.0, 80_000.0])}
    kernel = fit.mean_and_kernel(both)[1]
    assert np.allclose(np.diag(kernel), fit.mean_and_leverage(both)[1])
    assert kernel[1, 2] > fit.mean_and_kernel(asked)[1][1, 2]
    absent = {name: values for name, values in asked.items() if name != f"{TEXT}p0"}
    zero = {**asked, f"{TEXT}p0": np.zeros(3)}
    assert np.allclose(fit.predict(absent).mean, fit.predict(zero).mean)


def test_what_is_written_of_two_hundred_partitions_fits_into_a_state_file() -> None:
    """With as many texts: so one fit may take a 250th part of it."""
    rng = np.random.default_rng(0)
    merge, members = rng.standard_normal(40), rng.random((40, 200)) < 0.05
    size = np.log(np.maximum(members.sum(axis=1), 1))
    trained = merge + members @ (0.2 * rng.standard_normal(200))
    text = {f"{TEXT}p{place:03}": 1e6 * members[:, place] for place in range(200)}
    fit = calibrate({"merge": merge, "size": size, **text}, trained)
    assert len(fit.columns) > 150
    assert len(json.dumps(fit.to_json(), indent=1)) < MAX_STATE_BYTES / 250
