"""Which mixtures a study trains: the search's best, one drawn blindly, what is trained, a spread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pytest

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.study import ValidateSettings
from ablate.validate.subjects import Subject
from ablate.validating import check_rounds, choose_mixtures, rounds_left


def subject(members: tuple[str, ...], loss: float) -> Subject:
    return Subject(
        mixture=Mixture.uniform(members), tokens=1, proxies={"merge": {"objective": loss}}
    )


KNOWN = sorted(
    (
        subject(members, 3.0 + (hash_ := sum(map(ord, members)) * 7 % 13) / 10 + hash_ / 1000)
        for size in (1, 2, 3, 4)
        for members in combinations("abcde", size)
    ),
    key=lambda one: (one.proxies["merge"]["objective"], one.mixture.key()),
)
BEST = KNOWN[0]


def keys(of: Iterable[Subject]) -> set[str]:
    return {one.mixture.key() for one in of}


def test_the_best_and_a_control_are_among_an_even_spread() -> None:
    chosen, control = choose_mixtures(KNOWN, ValidateSettings(mixtures=12))
    assert chosen[0] == BEST and chosen[1].mixture.key() == control
    assert len(keys(chosen)) == len(chosen) == 12
    counts = Counter(one.size for one in chosen)
    assert set(counts) == {1, 2, 3, 4} and min(counts.values()) >= 3
    few, _ = choose_mixtures(KNOWN, ValidateSettings(mixtures=8))
    assert sorted(Counter(one.size for one in few).values())[-2:] in ([3, 4], [4, 4])


def test_what_is_trained_counts_before_others_are_chosen() -> None:
    settings = ValidateSettings(mixtures=8)
    chosen, control = choose_mixtures(KNOWN, settings)
    again, same = choose_mixtures(KNOWN, settings, keys(chosen))
    assert keys(again) == keys(chosen) and same == control
    other = sorted(keys(KNOWN) - keys(chosen))
    for trained, new in ((6, {BEST.mixture.key(), control}), (7, {BEST.mixture.key()}), (9, set())):
        most = set(other[:trained])
        kept, mark = choose_mixtures(KNOWN, settings, most)
        assert keys(kept) == most | new and (mark is None) == (control not in new)
    more, _ = choose_mixtures(KNOWN, ValidateSettings(mixtures=10), keys(chosen))
    assert keys(chosen) < keys(more) and len(more) == 10


def test_a_run_that_was_killed_chooses_what_it_had_chosen() -> None:
    rng = np.random.default_rng(0)
    chosen, control = choose_mixtures(KNOWN, ValidateSettings(mixtures=16))
    for _ in range(20):
        scored = {key for key in keys(chosen) if rng.random() < 0.5}
        again, same = choose_mixtures(KNOWN, ValidateSettings(mixtures=16), scored)
        assert keys(again) == keys(chosen) and same == control


def test_another_best_is_not_trained_beyond_what_was_asked() -> None:
    """A calibration ranks anew: a study that is run again trains nothing all the same."""
    settings = ValidateSettings(mixtures=8)
    chosen, control = choose_mixtures(KNOWN, settings)
    again, same = choose_mixtures(KNOWN[::-1], settings, keys(chosen))
    assert keys(again) == keys(chosen) and same == control
    more, _ = choose_mixtures(KNOWN[::-1], ValidateSettings(mixtures=9), keys(chosen))
    assert keys(more) - keys(chosen) == {KNOWN[-1].mixture.key()}


def test_rounds_of_the_study_are_done_once() -> None:
    settings = ValidateSettings(mixtures=8, rounds=3)
    left = [rounds_left(KNOWN, KNOWN[:count], settings) for count in (5, 8, 9, 11, 20)]
    assert left == [3, 3, 2, 0, 0] and rounds_left(KNOWN, KNOWN, settings) == 0


def test_rounds_after_too_few_mixtures_are_refused_before_any_is_trained() -> None:
    settings = ValidateSettings(mixtures=6, rounds=1)
    with pytest.raises(StudyError, match=r"validate\.rounds must follow 7 .* got 6; raise"):
        check_rounds(KNOWN, KNOWN[:6], settings)
    check_rounds(KNOWN, KNOWN[:7], settings)
    check_rounds(KNOWN[:4], KNOWN[:4], settings)  # there are no more: no round follows


def test_sizes_limit_all_but_the_best() -> None:
    chosen, _ = choose_mixtures(KNOWN, ValidateSettings(mixtures=6, sizes=(2, 3)))
    assert all(one.size in (2, 3) for one in chosen[1:]) and chosen[0] == BEST
    with pytest.raises(StudyError, match=r"validate\.sizes"):
        choose_mixtures(KNOWN, ValidateSettings(mixtures=6, sizes=(9,)))
    with pytest.raises(StudyError, match="ablate search"):
        choose_mixtures([], ValidateSettings())
