"""Laws of the choice of mixtures to train."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ablate.validate.choice import stratified

SIZES = [1] * 8 + [2] * 28 + [4] * 70 + [8]
KEYS = [f"m{i:03d}" for i in range(len(SIZES))]


def scores(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(len(SIZES))


def test_must_comes_first_then_one_control_that_only_the_seed_changes() -> None:
    found = [
        stratified(SIZES, scores(), KEYS, 12, must=[40, 7, 40], rng_seed=seed) for seed in range(40)
    ]
    assert all(each[:2] == [40, 7] for each in found)
    assert len({each[2] for each in found}) > 20
    plain = stratified(SIZES, scores(1), KEYS, 3, must=[40, 7], rng_seed=3)
    assert plain == found[3][:3]  # a control looks at no score
    assert stratified(SIZES, scores(), KEYS, 12, must=[40, 7], rng_seed=5) == found[5]


def test_no_mixture_twice_and_all_when_there_are_no_more() -> None:
    for count in range(0, 30):
        found = stratified(SIZES, scores(), KEYS, count, must=[3, 90], rng_seed=1)
        assert len(found) == len(set(found)) == count
    everything = stratified(SIZES, scores(), KEYS, 500, must=[3], rng_seed=1)
    assert sorted(everything) == list(range(len(SIZES)))
    assert stratified([], [], [], 3, rng_seed=0) == []


def test_a_shorter_choice_begins_a_longer_one() -> None:
    long = stratified(SIZES, scores(), KEYS, 40, must=[5], rng_seed=2)
    assert stratified(SIZES, scores(), KEYS, 17, must=[5], rng_seed=2) == long[:17]


def test_sizes_are_covered_evenly_as_far_as_they_reach() -> None:
    found = stratified(SIZES, scores(), KEYS, 25, rng_seed=3)
    assert Counter(SIZES[i] for i in found) == {1: 8, 2: 8, 4: 8, 8: 1}
    found = stratified(SIZES, scores(), KEYS, 5, must=[0], rng_seed=4)
    assert {SIZES[i] for i in found} == {1, 2, 4, 8}


def test_within_a_size_the_ends_come_first_and_the_quantiles_are_even() -> None:
    sizes, predicted = [3] * 41, np.linspace(0, 1, 41)
    keys = KEYS[:41]
    found = stratified(sizes, predicted, keys, 6, must=[0], rng_seed=0)
    assert found[0] == 0 and found[2] == 40
    ranks = np.sort(found)
    assert np.diff(ranks).max() <= 12
    three = stratified(sizes, predicted, keys, 4, must=[20, 10], rng_seed=0)
    assert three[3] == 0  # the search's best need not be the best predicted


def test_the_order_of_the_mixtures_does_not_matter_even_with_ties() -> None:
    predicted = np.round(scores(), 0)
    found = stratified(SIZES, predicted, KEYS, 20, must=[50, 2], rng_seed=6)
    mixed = np.random.default_rng(0).permutation(len(SIZES))
    place = {int(old): new for new, old in enumerate(mixed)}
    again = stratified(
        [SIZES[i] for i in mixed],
        predicted[mixed],
        [KEYS[i] for i in mixed],
        20,
        must=[place[50], place[2]],
        rng_seed=6,
    )
    assert [int(mixed[i]) for i in again] == found


def test_only_allowed_sizes_are_added_to_what_must_be() -> None:
    found = stratified(
        SIZES, scores(), KEYS, 30, must=[len(SIZES) - 1], allowed_sizes={1, 2}, rng_seed=7
    )
    assert found[0] == len(SIZES) - 1 and {SIZES[i] for i in found[1:]} == {1, 2}
    few = stratified(SIZES, scores(), KEYS, 90, allowed_sizes=[1], rng_seed=7)
    assert sorted(few) == list(range(8))


def test_wrong_values_are_refused() -> None:
    with pytest.raises(ValueError, match="same mixtures"):
        stratified([1, 2], [0.0], ["a", "b"], 1, rng_seed=0)
    with pytest.raises(ValueError, match="distinct"):
        stratified([1, 2], [0.0, 1.0], ["a", "a"], 1, rng_seed=0)
    with pytest.raises(ValueError, match="positions"):
        stratified([1, 2], [0.0, 1.0], ["a", "b"], 1, must=[2], rng_seed=0)
