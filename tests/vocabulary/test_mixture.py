"""Mixtures are normalised, sorted, and equal when they mean the same."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ablate.errors import StudyError
from ablate.mixture import Mixture, member_mixture

WEIGHTS = st.dictionaries(
    st.text(min_size=1, max_size=5), st.floats(0.001, 1e6), min_size=1, max_size=8
)


@given(WEIGHTS, st.floats(0.01, 100))
def test_scale_and_order_do_not_matter(weights: dict[str, float], scale: float) -> None:
    one = Mixture.of(weights)
    other = Mixture.of({name: scale * weights[name] for name in reversed(list(weights))})
    assert one.partitions == other.partitions == tuple(sorted(weights))
    assert math.isclose(sum(w for _, w in one.weights), 1.0)
    for (_, a), (_, b) in zip(one.weights, other.weights, strict=True):
        assert math.isclose(a, b, rel_tol=1e-9)


def test_micro_counts_units_and_macro_counts_partitions() -> None:
    units = {"a": 3, "b": 1}
    assert dict(member_mixture(["b", "a"], units, "micro").weights) == {"a": 0.75, "b": 0.25}
    assert dict(member_mixture(["b", "a"], units, "macro").weights) == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0}, {"a": math.nan}])
def test_impossible_weights_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(StudyError):
        Mixture.of(weights)


def test_an_unknown_member_gets_a_suggestion() -> None:
    with pytest.raises(StudyError, match="did you mean 'math'"):
        Mixture.uniform(["mat"]).require_known(["math", "law"])
