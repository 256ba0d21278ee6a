"""Which mixtures a study trains: the search's best, one drawn blindly, what is trained, a spread."""

from __future__ import annotations

from itertools import combinations

import pytest

from ablate.errors import StudyError
from ablate.mixture import Mixture
from ablate.study import ValidateSettings
from ablate.validate.subjects import Subject
from ablate.validating import choose_mixtures


def subject(members: tuple[str, ...], loss: float) -> Subject:
    return Subject(
        mixture=Mixture.uniform(members), tokens=1, proxies={"merge": {"objective": loss}}
    )


KNOWN = [
    subject(members, 3.0 + (hash_ := sum(map(ord, members)) * 7 % 13) / 10 + hash_ / 1000)
    for size in (1, 2, 3, 4)
    for members in combinations("abcde", size)
]
BEST = min(KNOWN, key=lambda one: (one.proxies["merge"]["objective"], one.mixture.key()))


def test_the_best_and_a_control_are_among_an_even_spread() -> None:
    chosen, control = choose_mixtures(KNOWN, ValidateSettings(mixtures=12))
    assert chosen[0] == BEST and chosen[1].mixture.key() == control
    assert len({one.mixture.key() for one in chosen}) == len(chosen) == 12
    counts = [sum(one.size == size for one in chosen) for size in (1, 2, 3, 4)]
    assert min(counts) >= 2
    assert choose_mixtures(KNOWN[::-1], ValidateSettings(mixtures=12)) == (chosen, control)


def test_what_is_trained_counts_before_others_are_chosen() -> None:
    settings = ValidateSettings(mixtures=8)
    chosen, control = choose_mixtures(KNOWN, settings)
    done = {one.mixture.key() for one in chosen}
    again, same = choose_mixtures(KNOWN, settings, done)
    assert {one.mixture.key() for one in again} == done and same == control
    other = {one.mixture.key() for one in KNOWN if one not in chosen}
    most = set(sorted(other)[:7])
    kept, _ = choose_mixtures(KNOWN, settings, most)
    new = {one.mixture.key() for one in kept} - most
    assert len(kept) == len(most | {BEST.mixture.key(), control}) and new <= {
        BEST.mixture.key(),
        control,
    }
    more, _ = choose_mixtures(KNOWN, ValidateSettings(mixtures=10), done)
    assert done < {one.mixture.key() for one in more} and len(more) == 10


def test_sizes_limit_all_but_the_best() -> None:
    chosen, _ = choose_mixtures(KNOWN, ValidateSettings(mixtures=6, sizes=(2, 3)))
    assert all(one.size in (2, 3) for one in chosen[1:]) and chosen[0] == BEST
    with pytest.raises(StudyError, match=r"validate\.sizes"):
        choose_mixtures(KNOWN, ValidateSettings(mixtures=6, sizes=(9,)))
    with pytest.raises(StudyError, match="ablate search"):
        choose_mixtures([], ValidateSettings())
