"""Laws of the predictors: what each must recover, how honest its errors are, what never moves it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from ablate.search.predictors import AUTOMATIC, PREDICTORS, choose
from ablate.search.predictors.predictor import Array
from ablate.search.predictors.process import evidence

EVERY = sorted(PREDICTORS)
SMOOTH = ["gaussian", "linear", "mixing-law", "pairwise"]
COLUMNS = 5
SLOPES = np.array([0.8, -0.5, 0.1, 0.0, -1.2])


def proportions(rows: int, seed: int, columns: int = COLUMNS) -> Array:
    return np.random.default_rng(seed).dirichlet(np.full(columns, 0.7), rows)


def line(weights: Array) -> Array:
    return 3.0 + weights @ SLOPES


def bowl(weights: Array) -> Array:
    return 3.0 + weights @ SLOPES + 2.0 * weights[:, 0] * weights[:, 1] - weights[:, 2] ** 2


def law(weights: Array) -> Array:
    return 2.0 + 0.7 * np.exp(weights @ (3.0 * SLOPES))


def steep(weights: Array) -> Array:
    return 3.0 - 0.2 * np.log(weights[:, 0] + 0.01) + 0.1 * np.sin(6.0 * weights[:, 1])


CLASSES: list[tuple[str, Callable[[Array], Array], float]] = [
    ("linear", line, 0.01),
    ("pairwise", line, 0.01),
    ("pairwise", bowl, 0.02),
    ("gaussian", line, 0.01),
    ("gaussian", bowl, 0.02),
    ("gaussian", steep, 0.15),
    ("mixing-law", law, 0.05),
]


@pytest.mark.parametrize(("name", "truth", "share"), CLASSES)
def test_recovers_a_function_of_its_class(
    name: str, truth: Callable[[Array], Array], share: float
) -> None:
    weights, asked = proportions(40, 1), proportions(300, 2)
    mean, _ = PREDICTORS[name](weights, truth(weights), 0).predict(asked)
    error = np.sqrt(np.mean((mean - truth(asked)) ** 2))
    assert error <= share * truth(asked).std()


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("rows", [25, 100])
def test_nine_in_ten_losses_lie_within_1645_standard_errors(name: str, rows: int) -> None:
    truth = {"linear": line, "mixing-law": law}.get(name, bowl)
    inside = []
    for seed in range(2 if name == "trees" else 6):
        rng = np.random.default_rng(seed)
        weights, asked = proportions(rows, 10 + seed), proportions(200, 50 + seed)
        noise = 0.15 * truth(asked).std()
        losses = truth(weights) + noise * rng.normal(size=rows)
        mean, stderr = PREDICTORS[name](weights, losses, seed).predict(asked)
        seen = truth(asked) + noise * rng.normal(size=200)
        inside.append(np.mean(np.abs(seen - mean) <= 1.645 * stderr))
    assert 0.78 <= np.mean(inside) <= 0.99


@pytest.mark.parametrize("name", SMOOTH)
def test_the_order_of_columns_and_rows_does_not_matter(name: str) -> None:
    weights, asked = proportions(30, 3), proportions(50, 4)
    losses = bowl(weights)
    columns = np.random.default_rng(5).permutation(COLUMNS)
    rows = np.random.default_rng(6).permutation(len(weights))
    mean, stderr = PREDICTORS[name](weights, losses, 0).predict(asked)
    moved = PREDICTORS[name](weights[rows][:, columns], losses[rows], 0)
    again, error = moved.predict(asked[:, columns])
    # A law's starts are drawn by column, so its descent may end a little apart.
    tolerance = 0.05 if name == "mixing-law" else 0.01
    np.testing.assert_allclose(again, mean, atol=tolerance * losses.std())
    np.testing.assert_allclose(error, stderr, rtol=0.2, atol=tolerance * losses.std())


@pytest.mark.parametrize("name", EVERY)
def test_one_seed_gives_one_predictor_and_leaves_the_global_state_alone(name: str) -> None:
    weights, asked = proportions(20, 7), proportions(30, 8)
    before = np.random.get_state(legacy=False)["state"]["key"].copy()  # type: ignore[call-overload, index]
    one = PREDICTORS[name](weights, bowl(weights), 3).predict(asked)
    two = PREDICTORS[name](weights, bowl(weights), 3).predict(asked)
    np.testing.assert_array_equal(one, two)
    after = np.random.get_state(legacy=False)["state"]["key"]  # type: ignore[call-overload, index]
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", EVERY)
def test_more_rows_are_never_catastrophically_worse(name: str) -> None:
    weights, asked = proportions(120, 9), proportions(300, 10)
    losses = bowl(weights) + 0.02 * np.random.default_rng(11).normal(size=120)
    errors = []
    for rows in (8, 15, 30, 60, 120):
        mean, _ = PREDICTORS[name](weights[:rows], losses[:rows], 0).predict(asked)
        errors.append(np.sqrt(np.mean((mean - bowl(asked)) ** 2)))
    assert all(later <= 1.3 * min(errors[:i]) for i, later in enumerate(errors) if i)


@pytest.mark.parametrize("name", EVERY)
def test_a_predictor_beats_the_mean_with_fewer_rows_than_coefficients(name: str) -> None:
    ratios = []
    for seed in range(2 if name == "trees" else 4):
        weights, asked = proportions(24, seed, 12), proportions(300, 30 + seed, 12)
        slopes = np.random.default_rng(90 + seed).normal(size=12)
        mean, _ = PREDICTORS[name](weights, weights @ slopes, 0).predict(asked)
        ratios.append(np.std(mean - asked @ slopes) / np.std(asked @ slopes))
    assert np.mean(ratios) < (0.95 if name == "trees" else 0.6)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(
    ("weights", "losses"),
    [
        (np.array([[0.5, 0.5]]), np.array([3.0])),
        (np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([3.0, 4.0])),
        (proportions(12, 12), np.full(12, 3.3)),
        (np.repeat(proportions(3, 13), 5, axis=0), np.tile([3.0, 3.5, 4.0], 5)),
        (proportions(15, 14)[:, [0, 0, 1, 1, 2]], bowl(proportions(15, 14))),
        (np.full((6, 3), 1 / 3), np.array([3.0, 3.1, 2.9, 3.0, 3.05, 2.95])),
        (np.ones((4, 1)), np.array([3.0, 3.1, 2.9, 3.0])),
    ],
    ids=["one", "two", "constant", "repeated", "collinear", "same", "one column"],
)
def test_degenerate_rows_still_give_finite_answers(
    name: str, weights: Array, losses: Array
) -> None:
    mean, stderr = PREDICTORS[name](weights, losses, 0).predict(weights)
    assert np.isfinite(mean).all() and np.isfinite(stderr).all() and (stderr > 0).all()
    spread = max(np.ptp(losses), 1e-6)
    assert (mean >= losses.min() - spread).all() and (mean <= losses.max() + spread).all()


@pytest.mark.parametrize("name", EVERY)
def test_a_covariate_carries_what_proportions_do_not_say(name: str) -> None:
    rng = np.random.default_rng(15)
    weights, asked = proportions(60, 16), proportions(200, 17)
    size, other = rng.uniform(1, 9, (60, 1)), rng.uniform(1, 9, (200, 1))
    with_size = PREDICTORS[name](weights, line(weights) - 0.2 * size[:, 0], 0, covariates=size)
    without = PREDICTORS[name](weights, line(weights) - 0.2 * size[:, 0], 0)
    truth = line(asked) - 0.2 * other[:, 0]
    known = np.std(with_size.predict(asked, other)[0] - truth)
    assert known < 0.5 * np.std(without.predict(asked)[0] - truth)
    with pytest.raises(ValueError, match="fitted numbers of columns"):
        with_size.predict(asked)


@pytest.mark.parametrize("name", EVERY)
def test_rows_that_do_not_fit_together_are_refused(name: str) -> None:
    weights = proportions(4, 18)
    with pytest.raises(ValueError, match="one number a row"):
        PREDICTORS[name](weights, np.ones(3), 0)
    with pytest.raises(ValueError, match="losses must be finite"):
        PREDICTORS[name](weights, np.array([1.0, np.nan, 1.0, 1.0]), 0)
    with pytest.raises(ValueError, match="at least one"):
        PREDICTORS[name](weights[:0], np.empty(0), 0)


def test_the_evidence_has_its_gradient() -> None:
    rng = np.random.default_rng(19)
    rows, losses = rng.normal(size=(20, 4)), rng.normal(size=20)
    hyper = np.concatenate([[0.1, -1.0, -0.5, 0.3, -2.0], 0.5 * rng.normal(size=4)])
    _, gradient = evidence(hyper, rows, losses)
    for position, slope in enumerate(gradient):
        step = np.zeros(len(hyper))
        step[position] = 1e-5
        rise = evidence(hyper + step, rows, losses)[0] - evidence(hyper - step, rows, losses)[0]
        assert rise / 2e-5 == pytest.approx(slope, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["linear", "pairwise"])
def test_left_out_predictions_are_those_of_a_fit_without_the_row(name: str) -> None:
    weights = proportions(80, 20)
    losses = bowl(weights) + 0.05 * np.random.default_rng(21).normal(size=80)
    mean, stderr = PREDICTORS[name](weights, losses, 0).left_out()  # type: ignore[attr-defined]
    for row in (0, 17, 79):
        kept = np.arange(80) != row
        one = PREDICTORS[name](weights[kept], losses[kept], 0).predict(weights[[row]])
        assert one[0][0] == pytest.approx(mean[row], abs=0.3 * stderr[row])
        assert one[1][0] == pytest.approx(stderr[row], rel=0.15)


@pytest.mark.parametrize(("truth", "expected"), [(line, {"linear", "pairwise", "gaussian"}),
                                                 (bowl, {"pairwise", "gaussian"}),
                                                 (steep, {"gaussian"})])  # fmt: skip
def test_the_choice_follows_the_truth_and_shows_its_figures(
    truth: Callable[[Array], Array], expected: set[str]
) -> None:
    weights = proportions(60, 22)
    losses = truth(weights) + 0.005 * np.random.default_rng(23).normal(size=60)
    name, predictor, table = choose(weights, losses, 0)
    assert name in expected
    assert [row.name for row in table] == list(AUTOMATIC)
    assert [row.name for row in table if row.chosen] == [name]
    assert next(row.name for row in table if row.behind <= 1.0) == name
    assert min(row.behind for row in table) == 0.0
    np.testing.assert_array_equal(
        predictor.predict(weights), PREDICTORS[name](weights, losses, 0).predict(weights)
    )
    assert choose(weights, losses, 0)[2] == table


def test_a_choice_among_folded_predictors_and_with_one_row() -> None:
    weights = proportions(30, 24)
    name, _, table = choose(weights, law(weights), 0, names=["linear", "mixing-law"])
    assert name == "mixing-law" and table[1].how == "5 folds"
    name, predictor, table = choose(weights[:1], law(weights[:1]), 0)
    assert name == "linear" and np.isnan([table[0].error, table[0].rank, table[0].behind]).all()
    assert predictor.predict(weights[:1])[0] == pytest.approx(law(weights[:1]))
