"""Laws of the measures of agreement and of their intervals."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from ablate.report import agreement as report_agreement
from ablate.validate import measures
from ablate.validate.measures import MEASURES, RESAMPLED, Samples
from ablate.validate.statistics import (
    AgreementWithin,
    Estimate,
    agree,
    agree_over,
    agree_within,
)

MONOTONE = ["spearman", "kendall", "decision_accuracy", "top_overlap", "best_quarter"]
NOTHING = Estimate(value=None, lower=None, upper=None)


def pairs(count: int, seed: int, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    trained = rng.standard_normal(count)
    proxy = trained + 0.7 * rng.standard_normal(count)
    return (np.round(proxy), np.round(trained)) if ties else (proxy, trained)


def accuracy(proxy: np.ndarray, trained: np.ndarray) -> float:
    scores = []
    for i, j in combinations(range(len(proxy)), 2):
        if trained[i] != trained[j]:
            x, y = proxy[i] - proxy[j], trained[i] - trained[j]
            scores.append(0.5 if x == 0 else float((x > 0) == (y > 0)))
    return float(np.mean(scores))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("count", [3, 7, 30])
def test_correlations_are_those_of_scipy_and_accuracy_that_of_all_pairs(
    count: int, ties: bool
) -> None:
    for seed in range(5):
        x, y = pairs(count, seed, ties)
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            continue
        assert MEASURES["pearson"](x, y) == pytest.approx(stats.pearsonr(x, y).statistic)
        assert MEASURES["spearman"](x, y) == pytest.approx(stats.spearmanr(x, y).statistic)
        assert MEASURES["kendall"](x, y) == pytest.approx(stats.kendalltau(x, y).statistic)
        assert MEASURES["decision_accuracy"](x, y) == pytest.approx(accuracy(x, y))


def test_the_best_quarter_and_the_regret_are_those_of_a_sorted_list() -> None:
    x, y = pairs(22, seed=1)
    best = np.argsort(y)[:5]
    assert MEASURES["top_overlap"](x, y) == len(set(best) & set(np.argsort(x)[:5])) / 5
    expected = stats.spearmanr(x[best], y[best]).statistic
    assert MEASURES["best_quarter"](x, y) == pytest.approx(expected)
    lost = y[np.argmin(x)] - y.min()
    assert MEASURES["regret"](x, y) == pytest.approx(lost)
    assert MEASURES["regret_share"](x, y) == pytest.approx(100 * lost / np.ptp(y))


def test_mixtures_tied_for_the_choice_count_by_their_mean() -> None:
    assert MEASURES["regret"]([1, 1, 2, 3], [5.0, 3.0, 2.0, 6.0]) == 2.0
    assert MEASURES["regret_share"]([1, 1, 2, 3], [5.0, 3.0, 2.0, 6.0]) == 50.0
    flat = np.zeros(8)
    assert MEASURES["regret"](flat, np.arange(8.0)) == 3.5
    assert MEASURES["decision_accuracy"](flat, np.arange(8.0)) == 0.5
    assert MEASURES["top_overlap"](flat, np.arange(8.0)) == pytest.approx(2 / 8)


@pytest.mark.parametrize("ties", [False, True])
def test_every_measure_of_a_sample_is_that_of_the_sample_written_out(ties: bool) -> None:
    x, y = pairs(24, seed=2, ties=ties)
    rng = np.random.default_rng(3)
    counts = np.stack([np.bincount(rng.integers(24, size=24), minlength=24) for _ in range(20)])
    samples = Samples(proxy=x, trained=y, counts=counts.astype(float))
    for name, measure in RESAMPLED.items():
        written = [MEASURES[name](np.repeat(x, c), np.repeat(y, c)) for c in counts]
        assert np.allclose(measure(samples), written, equal_nan=True), name


def test_a_growing_map_of_the_trained_loss_agrees_wholly_and_a_falling_one_not_at_all() -> None:
    _, y = pairs(30, seed=4)
    same, opposite = agree(np.exp(y), y, rng_seed=0), agree(-y, y, rng_seed=0)
    for name in MONOTONE:
        assert same[name].to_json() == pytest.approx([1, 1, 1]), name
    assert same["regret"].to_json() == same["regret_share"].to_json() == [0, 0, 0]
    assert agree(2 * y + 1, y, rng_seed=0)["pearson"].to_json() == pytest.approx([1, 1, 1])
    assert opposite["kendall"].to_json() == pytest.approx([-1, -1, -1])
    assert opposite["decision_accuracy"].value == opposite["top_overlap"].value == 0
    assert opposite["regret_share"].value == pytest.approx(100)


def test_ranks_do_not_see_a_growing_map_and_nothing_sees_the_order_of_mixtures() -> None:
    x, y = pairs(26, seed=5)
    mixed = np.random.default_rng(0).permutation(26)
    before, after = agree(x, y, rng_seed=1), agree(np.exp(x), y, rng_seed=1)
    for name in [*MONOTONE, "regret", "regret_share"]:
        assert after[name] == before[name]
    for name, measure in MEASURES.items():
        assert measure(x[mixed], y[mixed]) == pytest.approx(measure(x, y)), name


def test_the_same_seed_gives_the_same_intervals_and_another_others() -> None:
    x, y = pairs(20, seed=6)
    assert agree(x, y, rng_seed=7) == agree(x, y, rng_seed=7)
    assert agree(x, y, rng_seed=7)["pearson"] != agree(x, y, rng_seed=8)["pearson"]


def test_a_higher_level_holds_a_lower_one_and_the_interval_the_value() -> None:
    x, y = pairs(30, seed=8)
    wide, narrow = (agree(x, y, rng_seed=0, level=level) for level in (0.95, 0.5))
    for name in ("pearson", "spearman", "kendall", "decision_accuracy"):
        bounds = [wide[name].lower, narrow[name].lower, wide[name].value]
        assert bounds == sorted(bounds, key=float)  # type: ignore[arg-type]
        assert wide[name].upper >= narrow[name].upper  # type: ignore[operator]


def test_what_is_undefined_is_none() -> None:
    assert set(agree([1.0, 2.0], [1.0, 2.0], rng_seed=0).values()) == {NOTHING}
    flat = agree(np.ones(8), np.arange(8.0), rng_seed=0)
    assert flat["pearson"] == flat["spearman"] == flat["kendall"] == NOTHING
    assert flat["best_quarter"] == NOTHING and flat["regret"].value == 3.5
    level = agree(np.arange(8.0), np.ones(8), rng_seed=0)
    assert level["regret"].value == 0 and level["regret_share"] == NOTHING
    assert level["decision_accuracy"] == NOTHING
    assert Estimate.from_json(NOTHING.to_json()) == NOTHING


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Two normal columns of correlation 0.6: tau is 2/pi arcsin 0.6, accuracy its half plus 0.5."""
    truth = {"pearson": 0.6, "kendall": 2 / np.pi * np.arcsin(0.6)}
    truth["decision_accuracy"] = 0.5 + truth["kendall"] / 2
    inside = dict.fromkeys(truth, 0)
    for seed in range(200):
        rng = np.random.default_rng([9, seed])
        y = rng.standard_normal(40)
        found = agree(0.6 * y + 0.8 * rng.standard_normal(40), y, rng_seed=seed, draws=300)
        for name, value in truth.items():
            inside[name] += found[name].lower <= value <= found[name].upper  # type: ignore[operator]
    for name, hits in inside.items():
        assert 0.89 <= hits / 200 <= 0.99, name


def test_within_sizes_nothing_between_sizes_enters() -> None:
    x, y = pairs(32, seed=10)
    sizes = np.repeat([2, 3, 5, 8], 8)
    shift = np.repeat([0.0, 7.0, -3.0, 1.0], 8)
    before = agree_within(x, y, sizes, rng_seed=0)
    after = agree_within(x + shift, y - 2 * shift, sizes, rng_seed=0)
    for name, estimate in before.mean.items():
        assert after.mean[name].to_json() == pytest.approx(estimate.to_json()), name
    assert agree(x + shift, y - 2 * shift, rng_seed=0)["spearman"].value < 0


def test_each_size_is_agreed_alone_and_the_mean_weighs_by_mixtures() -> None:
    x, y = pairs(21, seed=11)
    sizes = [2] * 12 + [4] * 7 + [6] * 2
    found = agree_within(x, y, sizes, rng_seed=0)
    assert list(found.by_size) == [2, 4]
    parts = [MEASURES["spearman"](x[:12], y[:12]), MEASURES["spearman"](x[12:19], y[12:19])]
    assert [found.by_size[size]["spearman"].value for size in (2, 4)] == pytest.approx(parts)
    assert found.mean["spearman"].value == pytest.approx(np.average(parts, weights=[12, 7]))
    lower, upper = found.mean["spearman"].lower, found.mean["spearman"].upper
    assert lower is not None and upper is not None and lower < np.average(parts) < upper
    alone = agree_within(x[:12], y[:12], sizes[:12], rng_seed=0)
    assert alone.by_size[2] == found.by_size[2]
    for name, estimate in alone.by_size[2].items():
        assert alone.mean[name].to_json() == pytest.approx(estimate.to_json()), name
    assert found.mean["best_quarter"] == NOTHING
    assert agree_within(x[:2], y[:2], [2, 2], rng_seed=0).mean["regret"] == NOTHING


def test_over_targets_the_mean_is_taken_over_the_same_samples() -> None:
    x, y = pairs(24, seed=12)
    other, sizes = pairs(24, seed=13), np.repeat([2, 3, 4], 8)
    one = agree_within(x, y, sizes, rng_seed=0).mean

    def within(proxy: np.ndarray, trained: np.ndarray) -> AgreementWithin:
        return agree_within(proxy, trained, sizes, rng_seed=0)

    # The same target twice, in other units, varies as one does: no gain from counting it twice.
    twice = agree_over([within(x, y), within(np.exp(x), y)])
    assert twice["spearman"].to_json() == pytest.approx(one["spearman"].to_json())
    both = agree_over([within(x, y), within(*other)])
    parts = [one["kendall"].value, agree_within(*other, sizes, rng_seed=0).mean["kendall"].value]
    assert both["kendall"].value == pytest.approx(np.mean(np.array(parts, dtype=float)))
    flat = agree_over([within(x, y), within(np.ones(24), y)])
    assert flat["spearman"].to_json() == pytest.approx(one["spearman"].to_json())
    assert agree_over([])["pearson"] == NOTHING


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        agree([1.0, np.nan, 2.0], [1.0, 2.0, 3.0], rng_seed=0)
    with pytest.raises(ValueError, match="proxy and trained"):
        agree([1.0, 2.0], [1.0, 2.0, 3.0], rng_seed=0)
    with pytest.raises(ValueError, match="level"):
        agree([1.0, 3.0, 2.0], [1.0, 2.0, 3.0], rng_seed=0, level=1)
    with pytest.raises(ValueError, match="sizes"):
        agree_within([1.0, 3.0, 2.0], [1.0, 2.0, 3.0], [2, 2], rng_seed=0)


def test_the_page_counts_the_sizes_that_are_ranked() -> None:
    """The page reads agreement.json without the code that wrote it: both have the number."""
    assert report_agreement.LEAST_TO_RANK == measures.LEAST_TO_RANK
