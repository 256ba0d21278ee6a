"""From mixtures to coefficients of units."""

from __future__ import annotations

import pytest

from ablate.errors import StudyError
from ablate.merge.weights import unit_coefficients
from ablate.mixture import Mixture, member_mixture

UNITS = {"law": 3, "math": 1, "web": 2}


def test_micro_counts_units_alike_and_macro_partitions() -> None:
    seed, micro = unit_coefficients(member_mixture(["math", "law"], UNITS, "micro"), UNITS, None)
    assert seed == 0
    assert micro == tuple(
        ((n, i), 0.25) for n, i in [("law", 0), ("law", 1), ("law", 2), ("math", 0)]
    )
    _, macro = unit_coefficients(member_mixture(["math", "law"], UNITS, "macro"), UNITS, None)
    assert dict(macro)[("math", 0)] == 0.5
    assert dict(macro)[("law", 1)] == pytest.approx(1 / 6)


def test_members_are_sorted_however_they_were_named() -> None:
    one = unit_coefficients(Mixture.of({"web": 1, "law": 2}), UNITS, None)
    other = unit_coefficients(Mixture.of({"law": 2, "web": 1}), UNITS, None)
    assert one == other
    assert [key for key, _ in one[1]] == sorted(key for key, _ in one[1])


def test_a_scale_of_one_over_n_is_the_average() -> None:
    mixture = member_mixture(UNITS, UNITS, "micro")
    seed, scaled = unit_coefficients(mixture, UNITS, 1 / 6)
    assert seed == 0
    assert [c for _, c in scaled] == pytest.approx([1 / 6] * 6)


def test_a_scale_of_one_adds_whole_deltas() -> None:
    seed, scaled = unit_coefficients(member_mixture(UNITS, UNITS, "micro"), UNITS, 1.0)
    assert [c for _, c in scaled] == pytest.approx([1.0] * 6)
    assert seed == pytest.approx(-5.0)


@pytest.mark.parametrize("scale", [0.1, 0.5, 1.0])
def test_coefficients_sum_to_one(scale: float) -> None:
    seed, scaled = unit_coefficients(Mixture.of({"law": 0.7, "web": 0.3}), UNITS, scale)
    assert seed + sum(c for _, c in scaled) == pytest.approx(1.0)


def test_a_partition_without_units_is_refused() -> None:
    with pytest.raises(StudyError, match=r"must have unit models, got none for 'mat'.*'math'"):
        unit_coefficients(Mixture.of({"mat": 1}), UNITS, None)
