"""Laws of the weighted sum of calibrated targets."""

from __future__ import annotations

import numpy as np
import pytest
from trainings import made_up, rows

from ablate.search.predictors.predictor import Array
from ablate.validate.calibration import calibrate
from ablate.validate.combination import Combination, combine

Targets = dict[str, tuple[dict[str, Array], Array]]
WEIGHTS = {"law": 0.5, "math": 0.2, "web": 0.3}


def targets(count: int, seed: int, shared: float = 0.8) -> Targets:
    """Three targets of the same mixtures, whose trainings go wrong together by `shared`."""
    luck = np.random.default_rng([seed, 99]).standard_normal(count)
    found = {}
    for index, name in enumerate(WEIGHTS):
        features, truth = made_up(count, seed + 1000 * index, noise=0.0)
        own = np.random.default_rng([seed, index]).standard_normal(count)
        noise = 0.1 * (shared * luck + np.sqrt(1 - shared**2) * own)
        found[name] = (features, truth + noise)
    return found


def features_of(given: Targets, picked: slice = slice(None)) -> dict[str, dict[str, Array]]:
    return {name: rows(features, picked) for name, (features, _) in given.items()}


def objective(given: Targets, picked: slice = slice(None)) -> Array:
    return sum(w * given[name][1][picked] for name, w in WEIGHTS.items())  # type: ignore[return-value]


def combined(given: Targets, picked: slice = slice(None)) -> Combination:
    fits = {
        name: calibrate(rows(features, picked), trained[picked])
        for name, (features, trained) in given.items()
    }
    return combine(fits, WEIGHTS)


def test_one_target_is_that_target() -> None:
    features, trained = made_up(15, seed=1)
    fit = calibrate(features, trained)
    found = combine({"law": fit, "web": fit}, {"law": 1.0, "web": 0.0})
    asked, _ = made_up(6, seed=2)
    assert list(found.fits) == ["law"] and found.errors() == fit.errors()
    for mine, theirs in zip(found.belief({"law": asked}), fit.belief(asked), strict=True):
        assert np.allclose(mine, theirs)
    assert np.allclose(found.predict({"law": asked}).upper, fit.predict(asked).upper)


def test_the_mean_is_the_weighted_sum_of_the_means() -> None:
    given = targets(16, seed=3)
    found = combined(given)
    asked = features_of(targets(5, seed=4))
    parts = [WEIGHTS[name] * fit.predict(asked[name]).mean for name, fit in found.fits.items()]
    assert np.allclose(found.predict(asked).mean, np.sum(parts, axis=0))
    held = [WEIGHTS[name] * fit.held_out.mean for name, fit in found.fits.items()]
    assert np.allclose(found.held_out.mean, np.sum(held, axis=0))
    assert np.allclose(found.held_out.trained, objective(given))


def test_targets_on_the_same_columns_are_the_regression_of_their_sum() -> None:
    features, first = made_up(18, seed=5, by_size=0.0)
    one = {"merge": features["merge"]}
    second = 1 - 0.5 * features["merge"] + 0.1 * np.random.default_rng(6).standard_normal(18)
    fits = {"a": calibrate(one, first), "b": calibrate(one, second)}
    mine = combine(fits, {"a": 1.0, "b": 3.0})
    whole = calibrate(one, first + 3 * second)
    asked = {"merge": np.linspace(-2, 2, 5)}
    found, expected = mine.predict({"a": asked, "b": asked}), whole.predict(asked)
    assert np.allclose(found.lower, expected.lower) and np.allclose(found.upper, expected.upper)
    assert mine.errors().coverage == whole.errors().coverage
    assert mine.errors().root_mean_square == pytest.approx(whole.errors().root_mean_square)


def test_errors_that_come_together_add_and_opposite_ones_cancel() -> None:
    features, trained = made_up(18, seed=7)
    fit = calibrate(features, trained)
    both = combine({"a": fit, "b": fit}, {"a": 1.0, "b": 1.0})
    against = combine({"a": fit, "b": fit}, {"a": 1.0, "b": -1.0})
    assert both.scale == pytest.approx(2 * fit.scale)
    assert against.scale == pytest.approx(0, abs=1e-12)


def test_the_belief_is_the_prediction_before_its_noise() -> None:
    found = combined(targets(16, seed=8))
    asked = features_of(targets(40, seed=9))
    mean, covariance, noise = found.belief(asked)
    prediction = found.predict(asked)
    widths = (prediction.upper - prediction.lower) / np.sqrt(np.diag(covariance) + noise)
    assert np.allclose(mean, prediction.mean) and np.allclose(widths, widths[0])
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_intervals_of_the_sum_cover() -> None:
    reported, fresh = [], []
    for seed in range(60):
        given = targets(20, seed=seed)
        found = combined(given, slice(14))
        reported.append(found.errors().coverage.value)
        guess = found.predict(features_of(given, slice(14, None)))
        truth = objective(given, slice(14, None))
        fresh.append(np.mean((guess.lower <= truth) & (truth <= guess.upper)))
    assert 0.90 <= np.mean(np.array(reported, dtype=float)) <= 0.99
    assert 0.90 <= np.mean(fresh) <= 0.99


def test_wrong_values_are_refused() -> None:
    found = combined(targets(14, seed=12))
    with pytest.raises(ValueError, match="novels"):
        combine(found.fits, {"novels": 1.0})
    with pytest.raises(ValueError, match="any"):
        combine(found.fits, {"law": 0.0})
    other = calibrate(*made_up(9, seed=13))
    with pytest.raises(ValueError, match="share their mixtures"):
        combine({**found.fits, "web": other}, WEIGHTS)
    with pytest.raises(ValueError, match="law"):
        found.predict({"web": {}, "math": {}})
