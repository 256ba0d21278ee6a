"""Agreement and calibration on a recorded table of truly trained mixtures, where it is at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from ablate.search.predictors import PREDICTORS
from ablate.search.predictors.predictor import Array
from ablate.validate.calibration import Fitted, calibrate
from ablate.validate.combination import combine
from ablate.validate.measures import MEASURES
from ablate.validate.statistics import agree

DATA = Path(
    os.environ.get("ABLATE_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)
PILE_CC = "metric/the_pile_pile_cc_val_loss"
WIKIPEDIA = "metric/the_pile_wikipedia_en_val_loss"

pytestmark = pytest.mark.skipif(
    not (DATA / "regmix").exists(), reason=f"no table of trained mixtures in {DATA}"
)


def table(split: str, size: str, column: str) -> tuple[Array, Array]:
    mixtures = pd.read_csv(DATA / "regmix" / f"{split}_mixture_{size}.csv", index_col="index")
    losses = pd.read_csv(DATA / "regmix" / f"{split}_pile_loss_{size}.csv", index_col="index")
    joined = mixtures.join(losses[[column]], how="inner")
    return joined[mixtures.columns].to_numpy(float), joined[column].to_numpy(float)


def pair(size: str, column: str = PILE_CC) -> tuple[Array, Array]:
    """Return proxy [n] and trained [n] losses of models of that size.

    At 60M, n = 256, the proxy is a 1M model of the same mixture. The 64 mixtures of 1B were not
    trained at any other size: there the proxy is what 512 models of 1M predict by a linear regression.
    """
    asked, trained = table("test", size, column)
    if size == "60m":
        weights, small = table("test", "1m", column)
        assert (weights == asked).all()
        return small, trained
    weights, small = table("train", "1m", column)
    return PREDICTORS["linear"](weights, small, 0).predict(asked)[0], trained


@pytest.mark.parametrize("size", ["60m", "1B"])
def test_agreement_of_small_models_with_large_ones_is_that_of_scipy(size: str) -> None:
    x, y = pair(size)
    found = agree(x, y, rng_seed=0)
    assert found["pearson"].value == pytest.approx(stats.pearsonr(x, y).statistic)
    assert found["spearman"].value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found["kendall"].value == pytest.approx(stats.kendalltau(x, y).statistic)
    assert found["regret"].value == pytest.approx(y[np.argmin(x)] - y.min())
    for name, estimate in found.items():
        assert estimate.value == MEASURES[name](x, y)
        assert estimate.lower <= estimate.value <= estimate.upper  # type: ignore[operator]


def by_hand(x: Array, y: Array) -> Array:
    """Predict each by line or mean, whichever errs less over the others left out in turn."""
    means = []
    for i in range(len(y)):
        kept = np.delete(np.arange(len(y)), i)
        line, flat = [], []
        for j in kept:
            rest = kept[kept != j]
            line.append(y[j] - np.polyval(np.polyfit(x[rest], y[rest], 1), x[j]))
            flat.append(y[j] - y[rest].mean())
        better = np.mean(np.square(line)) < np.mean(np.square(flat))
        whole = np.polyval(np.polyfit(x[kept], y[kept], 1), x[i])
        means.append(whole if better else y[kept].mean())
    return np.array(means)


@pytest.mark.parametrize("size", ["60m", "1B"])
def test_the_held_out_error_of_a_calibration_is_that_of_refits(size: str) -> None:
    x, y = (values[:64] for values in pair(size))
    errors = calibrate({"merge": x}, y).errors()
    residual = y - by_hand(x, y)
    assert errors.mean_absolute == pytest.approx(np.mean(np.abs(residual)))
    assert errors.root_mean_square == pytest.approx(np.sqrt(np.mean(residual**2)))
    assert errors.r2 is not None and errors.r2 > 0.5


@pytest.mark.parametrize("size", ["60m", "1B"])
def test_intervals_of_real_losses_cover(size: str) -> None:
    x, y = pair(size)
    coverage = calibrate({"merge": x}, y).errors().coverage
    assert coverage.lower <= 0.95 <= coverage.upper  # type: ignore[operator]


def test_what_was_written_predicts_the_same() -> None:
    x, y = pair("1B")
    features = {"merge": x, "ensemble": x**2}
    fit = calibrate(features, y)
    again = Fitted.from_json(json.loads(json.dumps(fit.to_json())))
    assert again.predict(features).upper.tolist() == fit.predict(features).upper.tolist()


@pytest.mark.parametrize("size", ["60m", "1B"])
def test_a_sum_of_two_domains_is_predicted_within_its_intervals(size: str) -> None:
    pairs = {"web": pair(size), "wiki": pair(size, WIKIPEDIA)}
    fits = {name: calibrate({"merge": x}, y) for name, (x, y) in pairs.items()}
    errors = combine(fits, {"web": 0.7, "wiki": 0.3}).errors()
    assert errors.r2 is not None and errors.r2 > 0.5
    assert errors.coverage.lower <= 0.95 <= errors.coverage.upper  # type: ignore[operator]
