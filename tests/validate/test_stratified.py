"""Laws of the choice of mixtures to train."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from ablate.validate.choice import drawn_blindly, stratified

SIZES = [1] * 8 + [2] * 28 + [4] * 70 + [8]
KEYS = [f"m{i:03d}" for i in range(len(SIZES))]


def scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(len(SIZES))


def test_must_comes_first() -> None:
    found = stratified(SIZES, scores(), KEYS, 12, must=[40, 7, 40])
    assert found[:2] == [40, 7] and len(set(found)) == 12
    assert stratified(SIZES, scores(), KEYS, 1, must=[40, 7]) == [40]


def test_what_is_drawn_blindly_only_the_seed_changes() -> None:
    drawn = {KEYS[drawn_blindly(KEYS, seed)] for seed in range(40)}
    assert len(drawn) > 20
    assert {KEYS[::-1][drawn_blindly(KEYS[::-1], seed)] for seed in range(40)} == drawn


def test_no_mixture_twice_and_all_when_there_are_no_more() -> None:
    for count in range(0, 30):
        found = stratified(SIZES, scores(), KEYS, count, must=[3, 90])
        assert len(found) == len(set(found)) == count
    everything = stratified(SIZES, scores(), KEYS, 500, must=[3])
    assert sorted(everything) == list(range(len(SIZES)))
    assert stratified([], [], [], 3) == []


def test_a_choice_made_again_with_any_part_of_it_taken_is_the_same_choice() -> None:
    """So a run that was killed trains what it would have trained."""
    rng = np.random.default_rng(5)
    predicted, keys = rng.standard_normal(120), [f"m{i:03d}" for i in range(120)]
    sizes = rng.choice(9, p=[0.02, 0.05, 0.1, 0.2, 0.2, 0.2, 0.15, 0.06, 0.02], size=120) + 1
    for count in range(1, 40):
        must = [int(i) for i in rng.choice(120, count % 4, replace=False)]
        found = stratified(sizes, predicted, keys, count, must=must)
        for _ in range(5):
            part = [i for i in found if rng.random() < 0.5]
            again = stratified(sizes, predicted, keys, count, must=must, done=part)
            assert set(again) == set(found), (count, must)


@pytest.mark.parametrize("count", range(3, 40))
def test_no_size_is_begun_that_is_not_given_three(count: int) -> None:
    """Eleven partitions of one unit: 55 pairs, and so on to the one mixture of all."""
    sizes = [size for size in range(2, 12) for _ in range(math.comb(11, size))]
    keys = [f"m{i:04d}" for i in range(len(sizes))]
    predicted = np.random.default_rng(0).standard_normal(len(sizes))
    for must in ([600], [len(sizes) - 1]):
        found = stratified(sizes, predicted, keys, count, must=must)
        counts = Counter(sizes[i] for i in found)
        whole = sum(counts[size] for size in counts if counts[size] >= 3)
        assert len(found) == count and whole >= count - 4
        if count >= 9:
            assert whole >= count - 3 and sum(n >= 3 for n in counts.values()) >= min(
                9, count // 3 - 1
            )


def test_sizes_are_covered_evenly_as_far_as_they_reach() -> None:
    found = stratified(SIZES, scores(), KEYS, 25)
    assert Counter(SIZES[i] for i in found) == {1: 8, 2: 8, 4: 8, 8: 1}
    found = stratified(SIZES, scores(), KEYS, 7, must=[0])
    assert Counter(SIZES[i] for i in found) == {1: 4, 4: 3}  # the ends of what holds three


def test_within_a_size_the_ends_come_first_and_the_quantiles_are_even() -> None:
    sizes, predicted = [3] * 41, np.linspace(0, 1, 41)
    keys = KEYS[:41]
    found = stratified(sizes, predicted, keys, 6, must=[0])
    assert found[:2] == [0, 40]
    ranks = np.sort(found)
    assert np.diff(ranks).max() <= 12
    three = stratified(sizes, predicted, keys, 3, must=[20, 10])
    assert three[2] == 0  # the search's best need not be the best predicted


def test_the_order_of_the_mixtures_does_not_matter_even_with_ties() -> None:
    predicted = np.round(scores(), 0)
    found = stratified(SIZES, predicted, KEYS, 20, must=[50, 2])
    mixed = np.random.default_rng(0).permutation(len(SIZES))
    place = {int(old): new for new, old in enumerate(mixed)}
    again = stratified(
        [SIZES[i] for i in mixed],
        predicted[mixed],
        [KEYS[i] for i in mixed],
        20,
        must=[place[50], place[2]],
    )
    assert [int(mixed[i]) for i in again] == found


def test_only_allowed_sizes_are_added_to_what_must_be() -> None:
    found = stratified(SIZES, scores(), KEYS, 30, must=[len(SIZES) - 1], allowed_sizes={1, 2})
    assert found[0] == len(SIZES) - 1 and {SIZES[i] for i in found[1:]} == {1, 2}
    few = stratified(SIZES, scores(), KEYS, 90, allowed_sizes=[1])
    assert sorted(few) == list(range(8))


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="same mixtures"):
        stratified([1, 2], [0.0], ["a", "b"], 1)
    with pytest.raises(ValueError, match="distinct"):
        stratified([1, 2], [0.0, 1.0], ["a", "a"], 1)
    with pytest.raises(ValueError, match="positions"):
        stratified([1, 2], [0.0, 1.0], ["a", "b"], 1, must=[2])
