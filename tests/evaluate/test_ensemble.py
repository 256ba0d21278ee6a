"""The output-space proxy: laws of its losses and derivatives, against float64 log-sum-exp."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ablate.evaluate.ensemble import (
    Ensemble,
    build_ensemble,
    by_partition,
    every_subset,
    gradient,
    group_losses,
    group_tokens,
    losses,
    subset_losses,
)
from ablate.evaluate.ensemble.derivatives import local
from ablate.evaluate.ensemble.values import restricted
from ablate.evaluate.statistics import ratio_stderr

UNITS = ("law-0", "law-1", "math-0", "web-0", "web-1")
COUNTS = {"law": 1000, "math": 1, "odd": 65, "web": 640}


def token_nats(seed: int = 0, units: int = len(UNITS), scale: float = 1.0) -> dict[str, np.ndarray]:
    """Return nats[domain] [tokens, units] as of models that share most of what they know."""
    rng = np.random.default_rng(seed)
    return {
        name: scale
        * np.maximum(0, rng.gamma(1.5, 2, (n, 1)) + rng.normal(0, 1, (n, units))).astype(np.float32)
        for name, n in COUNTS.items()
    }


def mixtures(count: int, units: int = len(UNITS), seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(units), count)


def reference(nats: dict[str, np.ndarray], weights: np.ndarray) -> np.ndarray:
    """Return losses [m, domains] by log-sum-exp in float64."""
    with np.errstate(divide="ignore"):
        logs = np.log(weights)
    return np.array(
        [
            [-np.logaddexp.reduce(row - x.astype(float), axis=1).mean() for x in nats.values()]
            for row in logs
        ]
    )


NATS = token_nats()
ENSEMBLE = build_ensemble(NATS, UNITS)
OBJECTIVE = np.array([0.5, 0.1, 0.25, 0.15])


def test_losses_are_those_of_the_formula() -> None:
    weights = np.concatenate([mixtures(300), np.eye(len(UNITS))])
    np.testing.assert_allclose(losses(ENSEMBLE, weights), reference(NATS, weights), rtol=1e-6)


def test_a_unit_alone_has_its_own_loss() -> None:
    own = np.array([x.astype(float).mean(axis=0) for x in NATS.values()]).T
    np.testing.assert_allclose(losses(ENSEMBLE, np.eye(len(UNITS))), own, rtol=1e-7)


@given(st.integers(0, 10**6), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_losses_are_convex_along_segments(seed: int, share: float) -> None:
    ends = mixtures(2, seed=seed)
    middle = share * ends[0] + (1 - share) * ends[1]
    first, last, between = losses(ENSEMBLE, np.stack([*ends, middle]))
    assert (between <= share * first + (1 - share) * last + 1e-6).all()


def test_a_batch_scores_as_one_by_one() -> None:
    weights = mixtures(300)
    alone = np.concatenate([losses(ENSEMBLE, row[None]) for row in weights])
    np.testing.assert_allclose(losses(ENSEMBLE, weights), alone, rtol=2e-7)
    assert np.array_equal(losses(ENSEMBLE, weights), losses(ENSEMBLE, weights))


def test_the_order_of_units_changes_nothing() -> None:
    order = np.array([3, 0, 4, 2, 1])
    moved = build_ensemble({k: x[:, order] for k, x in NATS.items()}, [UNITS[i] for i in order])
    weights = mixtures(20)
    np.testing.assert_allclose(
        losses(moved, weights[:, order]), losses(ENSEMBLE, weights), rtol=2e-7
    )


def test_any_positive_sum_is_answered() -> None:
    weights = mixtures(5)
    shifted = losses(ENSEMBLE, 0.25 * weights)
    np.testing.assert_allclose(shifted, losses(ENSEMBLE, weights) + math.log(4), rtol=1e-6)


def test_long_domains_are_scored_in_pieces() -> None:
    rng = np.random.default_rng(4)
    nats = {
        name: rng.gamma(1.5, 2, (count, 3)).astype(np.float32)
        for name, count in {"long": 20_001, "short": 70, "longer": 33_000}.items()
    }
    ensemble = build_ensemble(nats, ["x", "y", "z"])
    weights = np.concatenate([mixtures(300, 3), np.eye(3)])
    got, want = losses(ensemble, weights), reference(nats, weights)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    objective = np.array([0.3, 0.3, 0.4])
    here = local(ensemble, weights[0], objective)
    assert here.value == pytest.approx(float(want[0] @ objective), rel=1e-7)
    assert here.gradient @ weights[0] == pytest.approx(-1, rel=1e-12)
    assert weights[0] @ here.hessian @ weights[0] == pytest.approx(1, rel=1e-12)


def hard_nats() -> dict[str, np.ndarray]:
    """Return nats between 0 and 1000, each unit at each extreme somewhere, even all at once."""
    rng = np.random.default_rng(2)
    nats = {name: rng.choice([0.0, 3.0, 60.0, 1000.0], (n, 4)) for name, n in COUNTS.items()}
    nats["odd"][:3] = 1000
    return {name: x.astype(np.float32) for name, x in nats.items()}


@pytest.mark.parametrize("scale", [1.0, 0.9, 1e30])
def test_extreme_nats_stay_finite_and_right(scale: float) -> None:
    nats = {k: (x * scale).astype(np.float32) if scale < 2 else x for k, x in hard_nats().items()}
    ensemble = build_ensemble(nats, ["a", "b", "c", "d"])
    tiny = np.array([[1 - 3e-12, 1e-12, 1e-12, 1e-12], [0.5, 0.5, 0, 0], [1e-300, 0, 0, 1.0]])
    weights = np.concatenate([np.eye(4), mixtures(30, 4), tiny])
    want = reference(nats, weights)
    np.testing.assert_allclose(losses(ensemble, weights), want, rtol=1e-6, atol=1e-6)
    blocks = group_losses(ensemble, weights, 7)
    for place, (name, x) in enumerate(blocks.items()):
        np.testing.assert_allclose(x.sum(axis=1) / COUNTS[name], want[:, place], rtol=1e-6)


def test_certain_tokens_cost_nothing() -> None:
    ensemble = build_ensemble({"a": np.zeros((40, 3), np.float32)}, ["x", "y", "z"])
    assert abs(losses(ensemble, mixtures(9, 3))).max() < 2e-7


def test_products_too_small_for_float64_are_taken_apart() -> None:
    # Every token costs 16 nats more than the best, so a column's product is exp(-1024).
    nats = np.tile(np.array([2.0, 18.0], np.float32), (640, 1))
    ensemble = build_ensemble({"a": nats}, ["good", "bad"])
    assert losses(ensemble, np.eye(2))[:, 0] == pytest.approx([2, 18], rel=1e-7)


def test_blocks_are_the_windows_of_an_evaluation() -> None:
    weights = mixtures(3)
    blocks, sizes = group_losses(ENSEMBLE, weights, 31), group_tokens(ENSEMBLE, 31)
    assert {name: x.shape for name, x in blocks.items()} == {
        "law": (3, 33), "math": (3, 1), "odd": (3, 3), "web": (3, 21)
    }  # fmt: skip
    assert sizes["law"].tolist() == [31] * 32 + [8]
    for place, (name, nats) in enumerate(NATS.items()):
        whole = losses(ENSEMBLE, weights)[:, place]
        np.testing.assert_allclose(blocks[name].sum(axis=1) / len(nats), whole, rtol=1e-6)
        part = reference({name: nats[31:62]}, weights) if len(nats) > 62 else None
        if part is not None:
            np.testing.assert_allclose(blocks[name][:, 1] / 31, part[:, 0], rtol=1e-6)
    again = group_losses(ENSEMBLE, weights, 31)
    assert all(np.array_equal(blocks[name], again[name]) for name in blocks)
    paired = ratio_stderr(blocks["law"][0] - blocks["law"][1], sizes["law"])
    assert 0 < paired < ratio_stderr(blocks["law"][0], sizes["law"])


@given(st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_the_gradient_is_that_of_finite_differences(seed: int) -> None:
    weights = 0.9 * mixtures(1, seed=seed)[0] + 0.1 / len(UNITS)
    slope = gradient(ENSEMBLE, weights, OBJECTIVE)
    assert slope @ weights == pytest.approx(-1, rel=1e-12)
    step = 1e-6
    for unit in range(len(UNITS)):
        shift = step * np.eye(len(UNITS))[unit]
        pair = np.array([weights + shift, weights - shift])
        above, below = reference(NATS, pair) @ OBJECTIVE
        assert slope[unit] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-6)


def test_value_and_curvature_belong_to_the_gradient() -> None:
    weights = mixtures(1)[0]
    here = local(ENSEMBLE, weights, OBJECTIVE)
    assert here.value == pytest.approx(float(reference(NATS, weights[None])[0] @ OBJECTIVE))
    step = 1e-5
    for unit in range(len(UNITS)):
        shift = step * np.eye(len(UNITS))[unit]
        pair = [gradient(ENSEMBLE, weights + s, OBJECTIVE) for s in (shift, -shift)]
        np.testing.assert_allclose(here.hessian[unit], (pair[0] - pair[1]) / (2 * step), rtol=1e-4)


def test_gradients_at_extremes_are_those_of_log_space() -> None:
    nats = hard_nats()
    ensemble = build_ensemble(nats, ["a", "b", "c", "d"])
    weights = np.array([0.4, 0.6, 0.0, 0.0])
    x = nats["law"].astype(float)
    logs = np.logaddexp(np.log(0.4) - x[:, 0], np.log(0.6) - x[:, 1])
    with np.errstate(over="ignore"):
        want = -np.exp(-x - logs[:, None]).mean(axis=0)
    got = gradient(ensemble, weights, np.array([1.0, 0, 0, 0]))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert np.isneginf(got[2:]).all()


def test_partitions_are_their_units_sharing_evenly() -> None:
    groups = np.array([0, 0, 1, 2, 2])
    partitions = by_partition(ENSEMBLE, groups, ["law", "math", "web"])
    assert partitions.units == ("law", "math", "web")
    weights = mixtures(20, 3)
    spread = weights[:, groups] / np.bincount(groups)[groups]
    np.testing.assert_allclose(losses(partitions, weights), losses(ENSEMBLE, spread), rtol=3e-7)
    hard = build_ensemble(hard_nats(), ["a", "b", "c", "d"])
    pairs = by_partition(hard, np.array([1, 0, 0, 1]), ["bc", "ad"])
    np.testing.assert_allclose(
        losses(pairs, np.eye(2)),
        losses(hard, np.array([[0, 0.5, 0.5, 0], [0.5, 0, 0, 0.5]])),
        rtol=1e-6,
    )
    for wrong in ([0, 0, 1, 2], [0, 0, 1, 1, 1], [0, 0, 1, 2, 3]):
        with pytest.raises(ValueError, match="leave none empty"):
            by_partition(ENSEMBLE, np.array(wrong), ["law", "math", "web"])


def test_units_left_out_are_units_of_weight_zero() -> None:
    hard = build_ensemble(hard_nats(), ["a", "b", "c", "d"])
    kept = np.array([False, True, False, True])
    inner = restricted(hard, kept)
    weights = mixtures(20, 2)
    wide = np.zeros((20, 4))
    wide[:, kept] = weights
    assert inner.units == ("b", "d")
    np.testing.assert_allclose(losses(inner, weights), losses(hard, wide), rtol=1e-6)


def test_subsets_share_evenly_or_by_their_shares() -> None:
    masks = every_subset(len(UNITS))
    assert masks.shape == (31, 5) and len(np.unique(masks, axis=0)) == 31
    even = masks / masks.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(subset_losses(ENSEMBLE, masks), reference(NATS, even), rtol=1e-6)
    shares = np.array([2.0, 1, 4, 1, 1])
    sized = masks * shares / (masks @ shares)[:, None]
    np.testing.assert_allclose(
        subset_losses(ENSEMBLE, masks, shares), reference(NATS, sized), rtol=1e-6
    )
    for wrong in (masks[:, :4], np.zeros((1, 5), bool)):
        with pytest.raises(ValueError, match="a member each"):
            subset_losses(ENSEMBLE, wrong)
    with pytest.raises(ValueError, match="above 0"):
        subset_losses(ENSEMBLE, masks, -shares)
    with pytest.raises(ValueError, match="1 to 20"):
        every_subset(21)


def test_thread_settings_change_no_bit() -> None:
    from threadpoolctl import threadpool_limits

    weights = mixtures(100)
    found = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            slope = gradient(ENSEMBLE, weights[0], OBJECTIVE)
            found.append((losses(ENSEMBLE, weights), slope))
    assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])


def test_the_nats_come_back() -> None:
    for place, x in enumerate(NATS.values()):
        np.testing.assert_allclose(ENSEMBLE.nats(place), x, rtol=1e-6, atol=2e-7)
    hard = hard_nats()
    back = build_ensemble(hard, ["a", "b", "c", "d"]).nats(0)
    np.testing.assert_allclose(back, hard["law"], rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize(
    "nats",
    [
        {},
        {"a": np.zeros((3, 2), np.float32), "b": np.zeros((3, 1), np.float32)},
        {"a": np.zeros((0, 2), np.float32)},
        {"a": np.full((3, 2), np.nan, np.float32)},
        {"a": np.full((3, 2), np.inf, np.float32)},
        {"a": np.full((3, 2), -1, np.float32)},
    ],
)
def test_unsound_nats_are_refused(nats: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match="must"):
        build_ensemble(nats, ["x", "y"])


@pytest.mark.parametrize(
    "weights",
    [np.ones(5), np.ones((2, 4)), np.zeros((1, 5)), -np.ones((1, 5)), np.full((1, 5), np.nan)],
)
def test_what_is_no_mixture_is_refused(weights: np.ndarray) -> None:
    with pytest.raises(ValueError, match="weights must"):
        losses(ENSEMBLE, weights)


def test_an_objective_weights_domains() -> None:
    for wrong in (np.ones(3), np.zeros(4), np.array([1, 1, 1, -1.0]), np.full(4, np.nan)):
        with pytest.raises(ValueError, match="objective must"):
            gradient(ENSEMBLE, mixtures(1)[0], wrong)
    with pytest.raises(ValueError, match="block must"):
        group_losses(ENSEMBLE, mixtures(1), 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        ENSEMBLE.units = ()  # type: ignore[misc]
    assert isinstance(ENSEMBLE, Ensemble)
