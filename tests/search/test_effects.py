"""Laws of partition effects: Shapley's axioms, agreement with brute force, honest intervals."""

from __future__ import annotations

import math
from itertools import combinations, permutations, product

import numpy as np
import pytest

from ablate.errors import StudyError
from ablate.search.effects import (
    Effects,
    interactions,
    leave_one_out,
    shapley,
    shapley_regression,
)
from ablate.search.paired import PairedScores, paired_scores


def all_masks(partitions: int) -> np.ndarray:
    return np.array(list(product([False, True], repeat=partitions)))


def by_permutations(masks: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Shapley values by their definition: the mean gain over every order."""
    partitions = masks.shape[1]
    value = {mask.tobytes(): v for mask, v in zip(masks, values, strict=True)}
    total = np.zeros(partitions)
    for order in permutations(range(partitions)):
        mask = np.zeros(partitions, dtype=bool)
        for i in order:
            before = value[mask.tobytes()]
            mask[i] = True
            total[i] += value[mask.tobytes()] - before
    return total / math.factorial(partitions)


def smooth_game(partitions: int, seed: int) -> np.ndarray:
    """Values of a game like the merged one: saturating, with pair interactions and a rest."""
    rng = np.random.default_rng(seed)
    members = all_masks(partitions).astype(float)
    pair = np.triu(rng.normal(0, 0.03, (partitions, partitions)), 1)
    single = members @ rng.normal(0, 0.1, partitions)
    rest = rng.normal(0, 0.01, len(members))
    return (
        4
        + single
        + np.einsum("si,sj,ij->s", members, members, pair)
        - 0.3 * np.log1p(members.sum(axis=1))
        + rest
    )


def covered(found: Effects, truth: np.ndarray) -> np.ndarray:
    return (found.lower <= truth) & (truth <= found.upper)


@pytest.mark.parametrize("partitions", [1, 2, 3, 5, 6])
def test_exact_values_are_those_of_every_order(partitions: int) -> None:
    masks = all_masks(partitions)
    values = np.random.default_rng(partitions).normal(size=len(masks))
    found = shapley(masks, values)
    assert found.method == "exact" and not found.stderr.any()
    assert found.effect == pytest.approx(by_permutations(masks, values))


def test_efficiency_symmetry_dummy_and_linearity() -> None:
    masks = all_masks(6)
    rng = np.random.default_rng(0)
    values, other = rng.normal(size=(2, 64))
    found = shapley(masks, values).effect
    full, empty = masks.all(axis=1), ~masks.any(axis=1)
    assert found.sum() == pytest.approx((values[full] - values[empty])[0])
    both = shapley(masks, 2 * values - 3 * other).effect
    assert both == pytest.approx(2 * found - 3 * shapley(masks, other).effect)
    number = {mask.tobytes(): row for row, mask in enumerate(masks)}
    swapped = masks[:, [1, 0, 2, 3, 4, 5]]
    mirror = values[[number[np.ascontiguousarray(mask).tobytes()] for mask in swapped]]
    even = shapley(masks, values + mirror).effect
    assert even[0] == pytest.approx(even[1])
    without = masks.copy()
    without[:, 3] = False
    blind = values[[number[mask.tobytes()] for mask in without]]
    assert shapley(masks, blind).effect[3] == pytest.approx(0)
    assert shapley(masks, blind + 0.7 * masks[:, 3]).effect[3] == pytest.approx(0.7)


def test_order_of_subsets_does_not_matter_and_partitions_may_be_renamed() -> None:
    masks, values = all_masks(5), smooth_game(5, 1)
    rng = np.random.default_rng(0)
    rows, names = rng.permutation(32), rng.permutation(5)
    for measure in (shapley, leave_one_out, shapley_regression):
        plain = measure(masks, values).effect
        assert measure(masks[rows], values[rows]).effect == pytest.approx(plain)
        assert measure(masks[:, names], values).effect == pytest.approx(plain[names])
    some = np.concatenate([[0, 31], 1 + rng.permutation(30)[:26]])
    assert shapley(masks[some], values[some]).effect == pytest.approx(
        shapley(masks[some[::-1]], values[some[::-1]]).effect
    )


def test_sixteen_partitions_are_exact_and_quick() -> None:
    masks = all_masks(16)
    weights = np.linspace(-1, 1, 16)
    found = shapley(masks, (masks @ weights) ** 2)
    assert found.effect == pytest.approx(weights * weights.sum())


def test_interactions_are_the_pair_terms_of_a_quadratic_game() -> None:
    masks = all_masks(6)
    rng = np.random.default_rng(2)
    pairs = list(combinations(range(6), 2))
    products = np.array([masks[:, i] & masks[:, j] for i, j in pairs]).T
    strengths = rng.normal(size=len(pairs))
    values = 1 + masks @ rng.normal(size=6) + products @ strengths
    for index in ("shapley", "banzhaf"):
        assert interactions(masks, values, index=index).effect == pytest.approx(strengths)
    some = np.concatenate([[0], 1 + rng.permutation(63)[:45]])
    estimated = interactions(masks[some], values[some])
    assert estimated.effect == pytest.approx(strengths)
    assert estimated.stderr.max() < 1e-8


def test_interaction_indices_follow_their_definitions() -> None:
    masks = all_masks(4)
    values = np.random.default_rng(3).normal(size=16)
    value = {mask.tobytes(): v for mask, v in zip(masks, values, strict=True)}

    def second(base: np.ndarray, i: int, j: int) -> float:
        def at(*added: int) -> float:
            mask = base.copy()
            mask[list(added)] = True
            return float(value[mask.tobytes()])

        return at(i, j) - at(i) - at(j) + at()

    for row, (i, j) in enumerate(combinations(range(4), 2)):
        bases = [mask for mask in masks if not mask[i] and not mask[j]]
        gains = [second(base, i, j) for base in bases]
        share = [math.factorial(s) * math.factorial(2 - s) / 6 for s in (b.sum() for b in bases)]
        assert interactions(masks, values, index="banzhaf").effect[row] == pytest.approx(
            np.mean(gains)
        )
        assert interactions(masks, values).effect[row] == pytest.approx(np.dot(share, gains))


def test_leave_one_out_compares_with_the_full_or_the_best_set() -> None:
    masks, values = all_masks(4), smooth_game(4, 4)
    found = leave_one_out(masks, values)
    for i in range(4):
        assert found.effect[i] == pytest.approx(values[15] - values[15 - 2 ** (3 - i)])
    some = np.flatnonzero(masks.sum(axis=1) <= 2)
    best = masks[some[np.argmin(values[some])]]
    partial = leave_one_out(masks[some], values[some])
    assert np.array_equal(np.isfinite(partial.effect), best)
    assert (partial.effect[best] <= 0).all()
    chosen = leave_one_out(masks, values, reference=masks[6])
    assert np.isnan(chosen.effect[[0, 3]]).all() and np.isfinite(chosen.lower[[1, 2]]).all()


def test_regression_on_all_subsets_is_exact_whatever_the_game() -> None:
    masks = all_masks(6)
    values = np.random.default_rng(5).normal(size=64)
    found = shapley_regression(masks, values)
    assert found.effect == pytest.approx(shapley(masks, values).effect)
    assert found.stderr == pytest.approx(0, abs=1e-9)


def test_estimates_converge_and_their_intervals_cover() -> None:
    masks = all_masks(8)
    rng = np.random.default_rng(6)
    units = np.flatnonzero(masks.sum(axis=1) <= 1)
    rest = np.setdiff1d(np.arange(255), units)
    errors = {}
    for scored in (30, 60, 150):
        hits, squares = [], []
        for seed in range(40):
            values = smooth_game(8, seed)
            truth = shapley(masks, values).effect
            rows = np.concatenate([units, [255], rng.choice(rest, scored - 10, replace=False)])
            found = shapley(masks[rows], values[rows])
            hits.append(covered(found, truth))
            squares.append((found.effect - truth) ** 2)
            assert found.effect.sum() == pytest.approx(values[255] - values[0])
        errors[scored] = math.sqrt(np.mean(squares))
        assert np.mean(hits) >= 0.9
    assert errors[150] < errors[60] / 1.5 < errors[30] / 2


def groups(values: np.ndarray, seed: int, noise: float = 0.05) -> tuple[PairedScores, np.ndarray]:
    """Scores of subsets whose true objectives are `values`, on groups of unlike difficulty."""
    rng = np.random.default_rng(seed)
    nats, tokens = {}, {}
    for name, size in (("law", 20), ("web", 30)):
        tokens[name] = rng.integers(500, 1500, size).astype(float)
        rate = 0.5 * rng.standard_normal(size) + values[:, None]
        nats[name] = (rate + noise * rng.standard_normal((len(values), size))) * tokens[name]
    found = paired_scores(nats, tokens, {"law": 0.4, "web": 0.6})
    return found, found.objective


@pytest.mark.parametrize("scored", [32, 26])
def test_intervals_from_groups_cover_the_effects_on_all_text(scored: int) -> None:
    masks, values = all_masks(5), smooth_game(5, 7)
    truth = shapley(masks, values).effect
    hits = []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        rows = np.concatenate([[0, 31], 1 + rng.permutation(30)[: scored - 2]])
        scores, objective = groups(values[rows], seed)
        hits.append(covered(shapley(masks[rows], objective, scores), truth))
    assert np.mean(hits) >= 0.92
    if scored == 32:
        assert np.mean(hits) <= 0.98


def test_what_every_subset_shares_leaves_no_error() -> None:
    masks, values = all_masks(4), smooth_game(4, 8)
    scores, objective = groups(values, 0, noise=0.0)
    for found in (
        shapley(masks, objective, scores),
        interactions(masks, objective, scores),
        leave_one_out(masks, objective, scores),
    ):
        assert found.stderr == pytest.approx(0, abs=1e-12)


def test_leave_one_out_has_the_error_of_the_paired_difference() -> None:
    masks, values = all_masks(3), smooth_game(3, 9)
    scores, objective = groups(values, 1)
    found = leave_one_out(masks, objective, scores)
    change = scores.influence[7] - scores.influence[3]
    assert found.stderr[0] == pytest.approx(np.linalg.norm(change))


def test_many_partitions_are_estimated_additively() -> None:
    rng = np.random.default_rng(11)
    weights = rng.normal(size=40)
    masks = np.unique(np.vstack([np.zeros(40), rng.random((120, 40)) < 0.3]) > 0, axis=0)
    found = shapley(masks, masks @ weights)
    assert found.method.startswith("additive regression; extrapolated to sizes")
    assert found.effect == pytest.approx(weights)


def test_wrong_arrays_are_refused() -> None:
    masks, values = all_masks(4), smooth_game(4, 12)
    scores, _ = groups(values, 0)
    with pytest.raises(StudyError, match="twice"):
        shapley(masks[[0, 1, 1]], values[:3])
    with pytest.raises(StudyError, match="masks must be"):
        shapley(masks, values[:3])
    with pytest.raises(StudyError, match="same 3 subsets"):
        shapley(masks[:3], values[:3], scores)
    with pytest.raises(StudyError, match="seed"):
        shapley(masks[1:], values[1:])
    with pytest.raises(StudyError, match="tell them apart"):
        shapley(masks[:3], values[:3])
    with pytest.raises(StudyError, match="pair interactions need"):
        interactions(masks[[0, 1, 2, 4, 8, 15]], values[[0, 1, 2, 4, 8, 15]])
    with pytest.raises(StudyError, match="reference"):
        leave_one_out(masks[:3], values[:3], reference=masks[9])
    with pytest.raises(StudyError, match="index"):
        interactions(masks, values, index="owen")
    with pytest.raises(StudyError, match="level"):
        shapley(masks, values, level=95)
