"""The best mixture: bounds, certificate, agreement with other solvers, limited members."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from ablate.evaluate.ensemble import Constraints, Ensemble, build_ensemble, losses, optimum
from ablate.evaluate.ensemble.derivatives import local
from ablate.evaluate.ensemble.optimum import Optimum, duality_gap
from ablate.evaluate.ensemble.quadratic import minimise_quadratic, settled

TOKENS = 700


def ensemble(units: int, seed: int = 0, domains: int = 3) -> Ensemble:
    """Return models that each know some domains better."""
    rng = np.random.default_rng(seed)
    nats = {
        f"d{d}": np.maximum(
            0,
            rng.gamma(1.5, 2, (TOKENS, 1))
            + rng.normal(0, 0.5, units)
            + rng.normal(0, 0.8, (TOKENS, units)),
        ).astype(np.float32)
        for d in range(domains)
    }
    return build_ensemble(nats, [f"u{i}" for i in range(units)])


MODEL = ensemble(8)
OBJECTIVE = np.array([0.5, 0.3, 0.2])


def feasible(found: Optimum, constraints: Constraints) -> bool:
    within = (found.weights >= constraints.lower) & (found.weights <= constraints.upper)
    return bool(within.all()) and abs(math.fsum(found.weights) - 1) <= 1e-12


def scipy_loss(model: Ensemble, constraints: Constraints) -> float:
    """Return the minimum that SLSQP finds from several starts."""
    best = math.inf
    for seed in range(3):
        start = np.random.default_rng(seed).dirichlet(np.ones(len(model.units)))
        start = np.clip(start, constraints.lower, constraints.upper)
        answer = minimize(
            lambda w: local(model, np.maximum(w, 1e-15), OBJECTIVE).value,
            start,
            jac=lambda w: local(model, np.maximum(w, 1e-15), OBJECTIVE).gradient,
            bounds=list(zip(constraints.lower, constraints.upper, strict=True)),
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            method="SLSQP",
            options={"ftol": 1e-12, "maxiter": 500},
        )
        best = min(best, float(answer.fun)) if answer.success else best
    return best


def bounds_of(seed: int, units: int = 8) -> Constraints:
    rng = np.random.default_rng(seed)
    lower = np.where(rng.random(units) < 0.5, 0, rng.uniform(0, 0.9 / units, units))
    upper = np.minimum(1, lower + rng.uniform(1.2 / units, 4 / units, units))
    return Constraints(lower=lower, upper=upper)


@pytest.mark.parametrize("seed", [None, 0, 1, 2, 3])
def test_it_is_the_optimum_that_scipy_finds(seed: int | None) -> None:
    constraints = Constraints.simplex(8) if seed is None else bounds_of(seed)
    found = optimum(MODEL, OBJECTIVE, constraints, 1e-9)
    assert feasible(found, constraints)
    assert found.gap <= 1e-9
    assert found.loss == pytest.approx(scipy_loss(MODEL, constraints), abs=1e-7)
    assert found.loss == pytest.approx(
        float(losses(MODEL, found.weights[None])[0] @ OBJECTIVE), abs=2e-7
    )


def test_it_beats_ten_thousand_random_mixtures() -> None:
    found = optimum(MODEL, OBJECTIVE)
    rng = np.random.default_rng(0)
    others = np.concatenate([rng.dirichlet(np.full(8, a), 5000) for a in (1.0, 0.2)])
    assert found.loss - found.gap <= (losses(MODEL, others) @ OBJECTIVE).min() + 1e-7
    assert found.loss <= (losses(MODEL, others) @ OBJECTIVE).min()


@given(st.integers(0, 10**6), st.integers(1, 12))
@settings(max_examples=25, deadline=None)
def test_any_bounds_are_kept_and_certified(seed: int, units: int) -> None:
    model, constraints = ensemble(units, seed % 5), bounds_of(seed, units)
    found = optimum(model, OBJECTIVE, constraints, 1e-6)
    assert feasible(found, constraints)
    assert found.gap <= 1e-6 and found.passes <= 50
    finer = optimum(model, OBJECTIVE, constraints, 1e-12)
    assert found.loss - finer.loss <= found.gap + 1e-13


@given(st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_the_gap_bounds_the_distance_to_the_optimum(seed: int) -> None:
    point = np.random.default_rng(seed).dirichlet(np.ones(8))
    here = local(MODEL, point, OBJECTIVE)
    gap = duality_gap(point, here.gradient, (np.zeros(8), np.ones(8)))
    assert here.value - optimum(MODEL, OBJECTIVE, tolerance=1e-10).loss <= gap


def test_an_infinite_slope_certifies_nothing() -> None:
    model = build_ensemble({"a": np.array([[0.0, 1000], [3, 0]])}, ["x", "y"])
    here = local(model, np.array([0.0, 1.0]), np.ones(1))
    assert here.value == 500 and np.isneginf(here.gradient[0])
    assert duality_gap(np.array([0.0, 1]), here.gradient, (np.zeros(2), np.ones(2))) == math.inf
    found = optimum(model, np.ones(1), tolerance=1e-12)
    share = found.weights[0]  # of f = -(log l + log(1 - l + l exp(-3))) / 2
    assert share == pytest.approx(1 / (2 * (1 - math.exp(-3))), abs=1e-6)


def test_the_same_question_has_the_same_answer() -> None:
    first, second = (optimum(ensemble(8), OBJECTIVE, bounds_of(1)) for _ in range(2))
    assert np.array_equal(first.weights, second.weights) and first.gap == second.gap


def test_bounds_without_room_are_answered() -> None:
    fixed = np.array([0.25, 0.75, 0, 0, 0, 0, 0, 0])
    found = optimum(MODEL, OBJECTIVE, Constraints(lower=fixed, upper=fixed))
    assert np.array_equal(found.weights, fixed) and found.gap == 0
    tenth = np.full(8, 0.125)
    assert np.array_equal(
        optimum(MODEL, OBJECTIVE, Constraints(lower=np.zeros(8), upper=tenth)).weights, tenth
    )


def test_the_best_units_may_be_left_out() -> None:
    # Where the allowed units give a token less than float32 holds beside the one left out.
    rng = np.random.default_rng(0)
    nats = rng.uniform(500, 505, (TOKENS, 4)).astype(np.float32)
    nats[:, 0] = 0.5
    model = build_ensemble({"a": nats}, list("abcd"))
    upper = np.array([0.0, 1, 1, 1])
    found = optimum(model, np.ones(1), Constraints(lower=np.zeros(4), upper=upper))
    shifted = build_ensemble({"a": nats[:, 1:] - 500}, list("bcd"))
    want = optimum(shifted, np.ones(1))
    assert found.weights[0] == 0
    assert found.loss == pytest.approx(want.loss + 500, abs=1e-4)
    np.testing.assert_allclose(found.weights[1:], want.weights, atol=1e-3)


def test_equal_units_are_no_obstacle() -> None:
    rng = np.random.default_rng(0)
    nats = np.repeat(rng.gamma(1.5, 2, (TOKENS, 3)), 4, axis=1).astype(np.float32)
    model = build_ensemble({"a": nats}, [f"u{i}" for i in range(12)])
    found = optimum(model, np.ones(1))
    single = optimum(build_ensemble({"a": nats[:, ::4]}, list("abc")), np.ones(1))
    assert found.gap <= 1e-6
    assert found.loss == pytest.approx(single.loss, abs=2e-6)


@given(st.integers(0, 10**6), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_sums_are_mended_without_new_members(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    point = rng.dirichlet(np.ones(count)) * np.r_[0, np.ones(count - 1)] + 1e-13
    point[0] = 0
    point[1:] /= point.sum() * (1 + 1e-12)
    mended = settled(point, np.zeros(count), np.ones(count))
    assert mended[0] == 0
    assert math.fsum(mended) == pytest.approx(1, abs=3e-16)


def test_a_hundred_units_take_few_passes() -> None:
    found = optimum(ensemble(100), OBJECTIVE, tolerance=1e-6)
    assert found.gap <= 1e-6 and found.passes <= 30


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_limited_members_are_near_the_best_choice(limit: int) -> None:
    constraints = Constraints.simplex(8, at_most=limit)
    found = optimum(MODEL, OBJECTIVE, constraints)
    assert feasible(found, constraints)
    assert np.count_nonzero(found.weights) <= limit
    true = min(
        optimum(MODEL, OBJECTIVE, Constraints(lower=np.zeros(8), upper=upper)).loss
        for upper in (
            np.isin(np.arange(8), chosen).astype(float)
            for chosen in itertools.combinations(range(8), limit)
        )
    )
    assert found.loss - found.gap <= true  # the certificate, whatever the heuristic found
    assert found.loss == pytest.approx(true, abs=1e-5)  # on this one it finds the best


def test_limited_members_keep_their_bounds() -> None:
    lower, upper = np.zeros(8), np.full(8, 0.4)
    lower[6] = 0.15
    constraints = Constraints(lower=lower, upper=upper, at_most=3)
    found = optimum(MODEL, OBJECTIVE, constraints)
    assert feasible(found, constraints) and np.count_nonzero(found.weights) <= 3


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_hopeless_members_and_tight_bounds_are_no_trap(seed: int) -> None:
    # Units that are certain or all but exclude a token: slopes are infinite at the simplex's edge.
    rng = np.random.default_rng(seed)
    units, limit = 9, 3
    nats = {name: rng.choice([0.0, 3, 60, 1000], (150, units)) for name in "ab"}
    model = build_ensemble(nats, [f"u{i}" for i in range(units)])
    upper = np.minimum(1, rng.uniform(0.3, 0.8, units) * rng.choice([0.2, 1], units) + 0.15)
    objective = np.array([0.7, 0.3])
    wide = Constraints(lower=np.zeros(units), upper=upper)
    whole = optimum(model, objective, wide)
    assert feasible(whole, wide) and whole.gap <= 1e-6 and whole.passes <= 50
    limited = Constraints(lower=np.zeros(units), upper=upper, at_most=limit)
    if np.sort(upper)[-limit:].sum() < 1:
        with pytest.raises(ValueError, match="at most 3 positive"):
            optimum(model, objective, limited)
        return
    found = optimum(model, objective, limited)
    assert feasible(found, limited) and np.count_nonzero(found.weights) <= limit
    assert found.loss - found.gap <= whole.loss <= found.loss + 1e-6


@pytest.mark.parametrize(
    ("lower", "upper", "limit", "rule"),
    [
        (np.full(8, 0.2), np.ones(8), None, "leave a mixture"),
        (np.zeros(8), np.full(8, 0.1), None, "leave a mixture"),
        (np.full(8, 0.1), np.full(8, 0.05), None, "lower <= upper"),
        (-np.ones(8), np.ones(8), None, "0 <= lower"),
        (np.zeros(7), np.ones(7), None, "for 8 weights"),
        (np.full(8, np.nan), np.ones(8), None, "0 <= lower"),
        (np.zeros(8), np.full(8, 0.2), 4, "at most 4 positive"),
        (np.full(8, 0.05), np.ones(8), 7, "8 have a lower bound"),
        (np.zeros(8), np.ones(8), 0, "at most 0 positive"),
    ],
)
def test_contradictions_are_refused(
    lower: np.ndarray, upper: np.ndarray, limit: int | None, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        optimum(MODEL, OBJECTIVE, Constraints(lower=lower, upper=upper, at_most=limit))


def test_a_tolerance_is_positive() -> None:
    with pytest.raises(ValueError, match="tolerance"):
        optimum(MODEL, OBJECTIVE, tolerance=0)


@given(st.integers(0, 10**6), st.integers(2, 9))
@settings(max_examples=60, deadline=None)
def test_quadratic_steps_are_optimal(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(count, count + 2))
    hessian, slope = root @ root.T, 3 * rng.normal(size=count)
    start = rng.dirichlet(np.ones(count))
    bounds = np.minimum(start, rng.uniform(0, 0.2, count)), np.maximum(start, 0.6)
    end = minimise_quadratic(hessian, slope, start, bounds)
    assert ((end >= bounds[0]) & (end <= bounds[1])).all()
    assert end.sum() == pytest.approx(1, abs=1e-12)
    assert duality_gap(end, slope + hessian @ (end - start), bounds) < 1e-9
