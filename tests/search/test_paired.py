"""Laws of paired comparison, and its guarantees by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablate.errors import StudyError
from ablate.evaluate.statistics import ratio_stderr
from ablate.search.paired import (
    contrasts,
    difference,
    paired_scores,
    tied_with_best,
)

SIZES = {"law": 20, "math": 12, "web": 31}
WEIGHTS = {"law": 0.5, "math": 0.2, "web": 0.3}
Nats = dict[str, np.ndarray]


def evaluation(offsets: np.ndarray, seed: int, noise: float = 0.05) -> tuple[Nats, Nats]:
    """Nats [m, G] of mixtures that lose `offsets` [m] more, on groups of unlike difficulty."""
    rng = np.random.default_rng(seed)
    nats, tokens = {}, {}
    for name, size in SIZES.items():
        tokens[name] = rng.integers(500, 1500, size).astype(float)
        hard = 4 + 0.5 * rng.standard_normal(size)
        own = noise * rng.standard_normal((len(offsets), size))
        nats[name] = ((hard + offsets[:, None] + own) * tokens[name]).astype(np.float32)
    return nats, tokens


def row(nats: Nats, index: int) -> Nats:
    return {name: values[index] for name, values in nats.items()}


def test_one_domain_is_the_ratio_estimator_of_the_paired_nats() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.02]), seed=1)
    found = difference(row(nats, 0), row(nats, 1), tokens, {"web": 1.0})
    change = nats["web"][0].astype(float) - nats["web"][1]
    assert found.mean == pytest.approx(change.sum() / tokens["web"].sum())
    assert found.stderr == pytest.approx(ratio_stderr(change, tokens["web"]))
    assert found.freedom == pytest.approx(SIZES["web"] - 1)


def test_domains_add_as_independent_samples() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.02]), seed=2)
    a, b = row(nats, 0), row(nats, 1)
    parts = {name: difference(a, b, tokens, {name: 1.0}) for name in SIZES}
    found = difference(a, b, tokens, WEIGHTS)
    assert found.mean == pytest.approx(sum(w * parts[n].mean for n, w in WEIGHTS.items()))
    squares = [(w * parts[n].stderr) ** 2 for n, w in WEIGHTS.items()]
    assert found.stderr == pytest.approx(math.sqrt(sum(squares)))
    least = min(SIZES.values()) - 1
    assert least <= found.freedom <= sum(SIZES.values()) - len(SIZES)


def test_an_exact_tie_is_even_and_a_constant_lead_is_certain() -> None:
    nats, tokens = evaluation(np.array([0.0]), seed=3)
    a = {name: np.round(values[0]).astype(float) for name, values in nats.items()}
    worse = {name: a[name] + 2.0**-4 * tokens[name] for name in a}
    even = difference(a, a, tokens, WEIGHTS)
    assert (even.mean, even.stderr, even.probability) == (0, 0, 0.5)
    assert difference(a, worse, tokens, WEIGHTS).probability > 1 - 1e-9
    assert difference(worse, a, tokens, WEIGHTS).probability < 1e-9


def chances(nats: Nats, tokens: Nats, weights: dict[str, float]) -> np.ndarray:
    """The probability that the row's mixture beats the column's [m, m]."""
    rows = [row(nats, index) for index in range(len(nats["law"]))]
    return np.array([[difference(a, b, tokens, weights).probability for b in rows] for a in rows])


def test_probabilities_are_complementary() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.005, 0.0, 0.01]), seed=4)
    found = chances(nats, tokens, WEIGHTS)
    assert np.allclose(found + found.T, 1) and (np.diag(found) == 0.5).all()


def test_what_is_shared_by_all_mixtures_cancels() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.01, 0.02]), seed=5)
    rng = np.random.default_rng(0)
    harder = {n: v + 900 * rng.random(v.shape[1]) for n, v in nats.items()}
    before, after = (chances(x, tokens, WEIGHTS) for x in (nats, harder))
    assert np.allclose(before, after, atol=1e-6)


def test_order_of_mixtures_groups_and_domains_does_not_matter() -> None:
    nats, tokens = evaluation(np.linspace(0, 0.05, 8), seed=6)
    rng = np.random.default_rng(1)
    rows = rng.permutation(8)
    orders = {name: rng.permutation(size) for name, size in SIZES.items()}
    shuffled = {n: nats[n][rows][:, orders[n]] for n in reversed(SIZES)}
    counted = {n: tokens[n][orders[n]] for n in SIZES}
    weights = dict(reversed(WEIGHTS.items()))
    mine = chances(nats, tokens, WEIGHTS)
    assert np.allclose(chances(shuffled, counted, weights), mine[rows][:, rows])
    tied = tied_with_best(nats, tokens, WEIGHTS)
    assert (tied_with_best(nats, tokens, WEIGHTS) == tied).all()
    same_groups = {n: values[rows] for n, values in nats.items()}
    assert (tied_with_best(same_groups, tokens, WEIGHTS) == tied[rows]).all()


def test_a_contrast_is_linear_in_the_mixtures() -> None:
    nats, tokens = evaluation(np.linspace(0, 0.05, 4), seed=7)
    mean = {n: np.stack([v[1:3].mean(axis=0, dtype=float), v[0]]) for n, v in nats.items()}
    found = contrasts(paired_scores(nats, tokens, WEIGHTS), np.array([-1, 0.5, 0.5, 0]))
    pair = difference(row(mean, 0), row(mean, 1), tokens, WEIGHTS)
    assert found.mean[0] == pytest.approx(pair.mean)
    assert found.stderr[0] == pytest.approx(pair.stderr)


def test_a_domain_of_one_group_counts_its_difference_as_noise() -> None:
    tokens = {"one": np.array([1000.0])}
    found = difference(
        {"one": np.array([3900.0])}, {"one": np.array([4000.0])}, tokens, {"one": 1.0}
    )
    assert found.stderr == pytest.approx(0.1)
    assert 0.5 < found.probability < 0.9


def test_intervals_of_a_difference_cover() -> None:
    probabilities = []
    for seed in range(400):
        nats, tokens = evaluation(np.zeros(2), seed=100 + seed)
        probabilities.append(difference(row(nats, 0), row(nats, 1), tokens, WEIGHTS).probability)
    extreme = np.mean(np.abs(np.array(probabilities) - 0.5) > 0.45)
    assert 0.06 < extreme < 0.14  # one tenth, within three standard errors


@pytest.mark.parametrize("gap", [0.0, 0.004])
def test_the_true_best_is_in_the_set_as_often_as_promised(gap: float) -> None:
    """All tied is the hardest case for the best; a small lead the commonest."""
    inside, sizes = [], []
    offsets = gap * np.arange(10)
    for seed in range(200):
        nats, tokens = evaluation(offsets, seed=1000 + seed)
        mask = tied_with_best(nats, tokens, WEIGHTS, level=0.9, draws=250)
        inside.append(mask[0])
        sizes.append(mask.sum())
    # Two standard errors below 0.9; the guarantee is one-sided.
    assert np.mean(inside) >= 0.9 - 2 * math.sqrt(0.09 / 200)
    assert np.mean(sizes) <= 10 and (gap == 0 or np.mean(sizes) < 9)


def test_the_set_has_the_best_its_copies_and_not_the_far_ones() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.5, 0.6]), seed=8)
    twice = {name: values[[0, 0, 1, 2]] for name, values in nats.items()}
    assert tied_with_best(twice, tokens, WEIGHTS).tolist() == [True, True, False, False]
    one = {name: values[:1] for name, values in nats.items()}
    assert tied_with_best(one, tokens, WEIGHTS).tolist() == [True]


def test_a_higher_level_keeps_at_least_as_many() -> None:
    nats, tokens = evaluation(np.linspace(0, 0.1, 20), seed=9)
    masks = [tied_with_best(nats, tokens, WEIGHTS, level=level) for level in (0.5, 0.9, 0.99)]
    assert (masks[0] <= masks[1]).all() and (masks[1] <= masks[2]).all()


def test_wrong_arrays_are_refused() -> None:
    nats, tokens = evaluation(np.zeros(2), seed=10)
    with pytest.raises(StudyError, match="'novels'"):
        paired_scores(nats, tokens, {"novels": 1.0})
    with pytest.raises(StudyError, match="got none"):
        paired_scores(nats, tokens, {"law": 0.0})
    with pytest.raises(StudyError, match="'law'"):
        paired_scores(nats, {**tokens, "law": tokens["math"]}, WEIGHTS)
    with pytest.raises(StudyError, match="level"):
        tied_with_best(nats, tokens, WEIGHTS, level=1.0)
