"""Laws of calibration: refits by brute force, honest errors, intervals that cover."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats
from trainings import made_up, rows

from ablate.search.predictors.predictor import Array
from ablate.validate.calibration import LEAST_TO_CALIBRATE, Fitted, calibrate
from ablate.validate.held_out import wilson
from ablate.validate.regressions import PENALTIES, Model, candidates, fit_rows, stacked


def refitted(columns: Array, trained: Array, asked: Array, penalty: float, scale: Array) -> float:
    """Predict one row by penalised normal equations, the intercept free."""
    design = np.column_stack([np.ones(len(trained)), columns / scale])
    penalties = np.diag([0.0, *np.full(columns.shape[1], penalty)])
    solved = np.linalg.solve(design.T @ design + penalties, design.T @ trained)
    return float(np.concatenate([[1.0], asked / scale]) @ solved)


def left_out(model: Model, columns: Array, trained: Array) -> tuple[float, Array, float]:
    """Return the least mean squared error over penalties, its residuals, and the penalty."""
    count, scale = len(trained), columns.std(axis=0) / model.widths
    found = []
    for penalty in count * PENALTIES if model.ridge else [0.0]:
        residuals = []
        for i in range(count):
            kept = np.arange(count) != i
            mean = refitted(columns[kept], trained[kept], columns[i], penalty, scale)
            residuals.append(trained[i] - mean)
        found.append((float(np.mean(np.square(residuals))), np.array(residuals), float(penalty)))
    return min(found, key=lambda each: each[0])


def nested(features: dict[str, Array], trained: Array) -> Array:
    """Predict each mixture by the model and penalty chosen without it, every step refitted."""
    means = []
    for i in range(len(trained)):
        kept = np.arange(len(trained)) != i
        scored = []
        for model in candidates(features, len(trained) - 1):
            columns = stacked(features, model.columns, len(trained))
            error, _, penalty = left_out(model, columns[kept], trained[kept])
            scale = columns[kept].std(axis=0) / model.widths
            mean = refitted(columns[kept], trained[kept], columns[i], penalty, scale)
            scored.append((error, mean))
        means.append(min(scored, key=lambda each: each[0])[1])
    return np.array(means)


def test_left_out_residuals_are_those_of_refits_without_the_row() -> None:
    features, trained = made_up(14, seed=1)
    for model in candidates(features, 14):
        columns = stacked(features, model.columns, 14)
        fit = fit_rows(model, columns, trained, np.arange(14)[None])
        error, residuals, _ = left_out(model, columns, trained)
        assert np.allclose(fit.left_out[0], residuals), model
        assert fit.error[0] == pytest.approx(error)


def test_least_squares_intervals_are_the_textbook_ones() -> None:
    """But for the noise's scale, which comes from left-out residuals, and the charged choice."""
    features, trained = made_up(15, seed=2)
    x, asked = features["merge"], np.array([-1.0, 0.3, 2.0])
    fit = fit_rows(
        Model(name="merge", columns=("merge",)), x[:, None], trained, np.arange(15)[None]
    )
    line = stats.linregress(x, trained)
    mean, leverage = (np.array([fit.at(np.array([[a]]))[i][0] for a in asked]) for i in (0, 1))
    assert np.allclose(mean, line.intercept + line.slope * asked)
    assert np.allclose(leverage, 1 / 15 + (asked - x.mean()) ** 2 / (15 * x.var()))
    assert fit.freedom[0] == pytest.approx(15 - 2 - 2)
    plain = fit_rows(
        Model(name="merge", columns=("merge",)), x[:, None], trained, np.arange(15)[None], charge=0
    )
    residual = trained - line.intercept - line.slope * x
    variance = np.sum(residual**2) / 13
    assert np.mean(plain.standard**2) == pytest.approx(variance, rel=0.1)
    assert plain.freedom[0] == pytest.approx(13)


def test_a_known_affine_map_is_found() -> None:
    features, trained = made_up(20, seed=3, noise=0.0, by_size=0.0)
    fit = calibrate(features, trained)
    fresh, truth = made_up(9, seed=4, noise=0.0, by_size=0.0)
    found = fit.predict(fresh)
    assert fit.model == "merge" and fit.columns == ("merge",)
    assert np.allclose(found.mean, truth) and np.allclose(found.upper - found.lower, 0, atol=1e-6)
    assert fit.errors().r2 == pytest.approx(1)


def test_size_enters_where_sizes_differ_and_only_there() -> None:
    features, trained = made_up(30, seed=5)
    assert "size" in calibrate(features, trained).columns
    features["size"] = np.full(30, np.log(3.0))
    assert all("size" not in model.columns for model in candidates(features, 30))
    assert "size" not in calibrate(features, trained).columns


@pytest.mark.parametrize("seed", [6, 7])
def test_held_out_predictions_are_the_choice_made_anew_without_each_mixture(seed: int) -> None:
    features, trained = made_up(11, seed=seed, noise=0.3)
    few = {name: features[name] for name in ("merge", "members", "size")}
    assert np.allclose(calibrate(few, trained).held_out.mean, nested(few, trained))


def test_a_held_out_mixture_does_not_know_its_own_loss() -> None:
    features, trained = made_up(16, seed=8)
    changed = trained.copy()
    changed[5] += 10
    before, after = calibrate(features, trained).held_out, calibrate(features, changed).held_out
    assert after.mean[5] == pytest.approx(before.mean[5])
    assert after.scale[5] == pytest.approx(before.scale[5], rel=1e-5)


def test_noise_is_not_predicted_better_than_by_the_mean() -> None:
    found = []
    for seed in range(100):
        features, trained = made_up(14, seed=seed, slope=0.0, by_size=0.0)
        found.append(calibrate(features, trained).errors().r2)
    r2 = np.array(found, dtype=float)
    assert r2.mean() < 2 * r2.std() / 10
    # The winner's own error flatters: that is what the nesting is for.
    fit = calibrate(features, trained)
    assert min(each.root_mean_square for each in fit.table.values()) <= (
        fit.table["mean"].root_mean_square
    )


@pytest.mark.parametrize(("count", "repeats"), [(12, 200), (16, 200), (30, 100)])
def test_intervals_cover_fresh_mixtures_and_the_reported_coverage_says_so(
    count: int, repeats: int
) -> None:
    reported, fresh = [], []
    for seed in range(repeats):
        features, trained = made_up(count + 5, seed=seed)
        fit = calibrate(rows(features, slice(count)), trained[:count])
        reported.append(fit.errors(0.95).coverage.value)
        found = fit.predict(rows(features, slice(count, None)), level=0.95)
        fresh.append(np.mean((found.lower <= trained[count:]) & (trained[count:] <= found.upper)))
    assert 0.90 <= np.mean(np.array(reported, dtype=float)) <= 0.99
    assert 0.90 <= np.mean(fresh) <= 0.99


def test_the_belief_is_the_prediction_before_its_noise() -> None:
    features, trained = made_up(18, seed=9)
    fit = calibrate(features, trained)
    asked, _ = made_up(7, seed=10)
    mean, covariance, noise = fit.belief(asked)
    found = fit.predict(asked, level=0.9)
    half = stats.t.ppf(0.95, fit.freedom) * np.sqrt(np.diag(covariance) + noise)
    assert np.allclose(mean, found.mean) and np.allclose(half, (found.upper - found.lower) / 2)
    assert np.linalg.eigvalsh(covariance).min() > -1e-12


def test_what_was_written_predicts_the_same() -> None:
    for count, used in ((12, ["merge", "size"]), (25, None), (7, ["merge"]), (8, [])):
        features, trained = made_up(count, seed=11)
        given = {name: features[name] for name in (features if used is None else used)}
        fit = calibrate(given, trained)
        again = Fitted.from_json(json.loads(json.dumps(fit.to_json())))
        mine, theirs = fit.predict(features), again.predict(features)
        assert mine.mean.tolist() == theirs.mean.tolist()
        assert mine.lower.tolist() == theirs.lower.tolist()
        assert again.errors() == fit.errors() and again.table == fit.table
        assert again.to_json() == fit.to_json()


def test_order_of_features_and_mixtures_does_not_matter() -> None:
    features, trained = made_up(16, seed=12)
    mixed = np.random.default_rng(0).permutation(16)
    before = calibrate(features, trained)
    after = calibrate(rows(dict(reversed(features.items())), mixed), trained[mixed])
    assert after.model == before.model
    assert np.allclose(after.predict(features).lower, before.predict(features).lower)
    assert np.allclose(after.held_out.mean, before.held_out.mean[mixed])


def test_units_of_features_do_not_matter_and_those_of_losses_scale() -> None:
    features, trained = made_up(16, seed=13)
    other = {name: 5 + 1e3 * values for name, values in features.items()}
    before, after = calibrate(features, trained), calibrate(other, 1e-3 * trained)
    assert np.allclose(1e3 * after.predict(other).upper, before.predict(features).upper)
    assert after.errors().coverage == before.errors().coverage


def test_few_mixtures_carry_only_small_models() -> None:
    features, trained = made_up(9, seed=14)
    assert [model.name for model in candidates(features, 4)] == ["mean"]
    for count in range(4, 10):
        parameters = [model.parameters for model in candidates(features, count)]
        assert max(parameters[1:], default=1) <= max(count - 3, 1)
    fit = calibrate({}, trained)
    assert fit.model == "mean" and fit.errors().r2 == pytest.approx(0) and not fit.tells
    assert (fit.predict(features).mean == trained.mean()).all()


@pytest.mark.parametrize("count", range(4, 12))
def test_nothing_is_fitted_that_no_fold_could_judge(count: int) -> None:
    """A proxy without error: where folds may choose it they do, and below that nothing is fitted."""
    features, trained = made_up(count, seed=17, noise=0.0, by_size=0.0)
    if count < LEAST_TO_CALIBRATE:
        with pytest.raises(ValueError, match="train more"):
            calibrate(features, trained)
        return
    fit = calibrate(features, trained)
    assert fit.tells and stats.spearmanr(fit.held_out.mean, trained).statistic == pytest.approx(1)


def test_folds_that_predict_the_mean_tell_nothing() -> None:
    rng = np.random.default_rng(18)
    told = [calibrate({"merge": rng.standard_normal(9)}, rng.standard_normal(9)) for _ in range(40)]
    backwards = [
        fit for fit in told if stats.spearmanr(fit.held_out.mean, fit.held_out.trained)[0] < -0.99
    ]
    assert backwards and not any(fit.tells for fit in backwards)


def test_repeated_features_and_losses_without_spread_do_no_harm() -> None:
    features, trained = made_up(14, seed=15)
    twice = calibrate({**features, "again": features["merge"]}, trained)
    assert np.isfinite(twice.errors().root_mean_square)
    lonely = {**features, "size": np.log([2.0] * 13 + [8.0])}
    assert np.isfinite(calibrate(lonely, trained).errors().root_mean_square)
    # One mixture alone decides the slope by size: nothing can be said of it without that one.
    table = calibrate(lonely, trained).table
    assert "size" not in table and {"mean", "merge", "ridge"} <= table.keys()
    level = calibrate(features, np.full(14, 2.5))
    assert level.errors().r2 is None and level.errors().coverage.value == 1
    json.dumps(calibrate(lonely, trained).to_json(), allow_nan=False)


def test_the_interval_of_the_coverage_is_wilsons() -> None:
    for hits in (0, 9, 12):
        expected = stats.binomtest(hits, 12).proportion_ci(method="wilson")
        assert wilson(hits, 12).to_json() == pytest.approx([hits / 12, expected.low, expected.high])


def test_wrong_values_are_refused() -> None:
    features, trained = made_up(8, seed=16)
    with pytest.raises(ValueError, match="train more"):
        calibrate({}, trained[:3])
    with pytest.raises(ValueError, match="'merge'"):
        calibrate({"merge": features["merge"][:7]}, trained)
    with pytest.raises(ValueError, match="finite"):
        calibrate({"merge": np.full(8, np.nan)}, trained)
    fit = calibrate({"merge": features["merge"]}, trained)
    with pytest.raises(ValueError, match="missing"):
        fit.predict({"size": features["size"]})
    with pytest.raises(ValueError, match="level"):
        fit.predict(features, level=2)


def test_proxies_that_say_nothing_do_little_harm() -> None:
    """Many proxies and few mixtures: they are not chosen among one by one."""
    errors: dict[str, list[float]] = {"plain": [], "junk": []}
    for seed in range(40):
        features, trained = made_up(40, seed=seed)
        junk = {
            f"ties(density={place})": np.random.default_rng([seed, place]).standard_normal(40)
            for place in range(6)
        }
        for kind, given in (("plain", features), ("junk", {**features, **junk})):
            fit = calibrate(rows(given, slice(12)), trained[:12])
            missed = fit.predict(rows(given, slice(12, None))).mean - trained[12:]
            errors[kind].append(float(np.mean(missed**2)))
    # Medians: one choice in forty is unlucky with or without them.
    assert np.median(errors["junk"]) < 1.15 * np.median(errors["plain"])
    assert set(calibrate({**features, **junk}, trained).table) == {
        *("mean", "merge", "ensemble", "merge + size", "ensemble + size", "ridge")
    }
