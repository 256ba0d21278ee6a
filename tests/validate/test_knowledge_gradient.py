"""Laws of the knowledge gradient, and the gain by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from trainings import made_up

from ablate.search.predictors.predictor import Array
from ablate.validate.calibration import calibrate
from ablate.validate.knowledge_gradient import gains, most_telling


def belief(count: int, seed: int, rank: int = 3) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    loads = rng.standard_normal((count, rank))
    return rng.standard_normal(count), loads @ loads.T / rank


def drawn(mean: Array, covariance: Array, noise: float, one: int, z: Array) -> float:
    """Return the mean fall of the least loss over draws z of what training `one` would show."""
    slopes = covariance[one] / np.sqrt(noise + covariance[one, one])
    return float(mean.min() - (mean[:, None] + slopes[:, None] * z).min(axis=0).mean())


@pytest.mark.parametrize("seed", range(6))
def test_the_gain_is_that_of_simulated_trainings(seed: int) -> None:
    mean, covariance = belief(3 + 3 * seed, seed)
    # Evenly spaced quantiles: a quadrature rather than a draw.
    z = stats.norm.ppf((np.arange(40_000) + 0.5) / 40_000)
    for noise in (0.0, 0.5):
        found = gains(mean, covariance, noise)
        expected = [drawn(mean, covariance, noise, one, z) for one in range(len(mean))]
        assert np.allclose(found, expected, atol=2e-4)


def test_two_independent_mixtures_have_the_closed_form() -> None:
    """E[max(0, s Z - d)] = s f(d / s), the normal loss function."""
    gap, variance, noise = 0.3, 0.5, 0.2
    found = gains([1.0, 1.0 + gap], np.diag([0.0, variance]), noise)
    spread = variance / np.sqrt(variance + noise)
    u = gap / spread
    assert found[0] == 0
    assert found[1] == pytest.approx(spread * (stats.norm.pdf(u) - u * stats.norm.sf(u)))


def test_gains_are_never_negative_and_fall_with_the_noise() -> None:
    mean, covariance = belief(60, seed=7)
    quiet, loud = gains(mean, covariance, 0.01), gains(mean, covariance, 1.0)
    assert (loud >= 0).all() and (quiet >= loud - 1e-15).all() and quiet.max() > 0


def test_a_shift_common_to_all_tells_nothing() -> None:
    """What is known of no difference between mixtures cannot change which is chosen."""
    mean, covariance = belief(10, seed=8)
    assert np.allclose(gains(mean, np.ones((10, 10)), 0.1), 0, atol=1e-15)
    assert np.allclose(
        gains(mean, covariance + 5.0, 0.0).max(), gains(mean, covariance + 5, 0).max()
    )
    assert np.allclose(gains(mean + 4, covariance, 0.1), gains(mean, covariance, 0.1))


def test_order_does_not_matter_and_copies_share_their_gain() -> None:
    mean, covariance = belief(25, seed=9)
    mixed = np.random.default_rng(0).permutation(25)
    before = gains(mean, covariance, 0.1)
    assert np.allclose(gains(mean[mixed], covariance[np.ix_(mixed, mixed)], 0.1), before[mixed])
    twice = np.r_[np.arange(25), 3]
    after = gains(mean[twice], covariance[np.ix_(twice, twice)], 0.1)
    assert after[-1] == pytest.approx(after[3]) == pytest.approx(before[3])
    picked = np.array([4, 2, 20])
    assert gains(mean, covariance, 0.1, picked).tolist() == before[picked].tolist()


def test_the_most_telling_is_open_and_of_the_greatest_gain() -> None:
    mean, covariance = belief(30, seed=10)
    found = gains(mean, covariance, 0.1)
    assert most_telling(mean, covariance, 0.1, open=np.ones(30, bool)) == int(np.argmax(found))
    may = np.ones(30, dtype=bool)
    may[np.argmax(found)] = False
    assert most_telling(mean, covariance, 0.1, open=may) == int(np.argsort(-found)[1])


def test_without_doubt_the_best_open_mixture_is_taken() -> None:
    mean = np.array([3.0, 1.0, 2.0, 2.0])
    for covariance in (np.zeros((4, 4)), 1e-30 * np.eye(4)):
        assert most_telling(mean, covariance, 0.0, open=[True, True, True, True]) == 1
        assert most_telling(mean, covariance, 0.0, open=[True, False, True, True]) == 2


def test_a_calibrated_belief_finds_what_simulated_trainings_find() -> None:
    features, trained = made_up(16, seed=11)
    sizes = np.log(np.arange(2.0, 42.0))
    # Larger mixtures of just so much worse merges: all truly lose the same.
    fit = calibrate({name: features[name] for name in ("merge", "size")}, trained)
    asked = {"merge": 0.3 / 0.8 * sizes, "size": sizes}
    mean, covariance, noise = fit.belief(asked)
    one = most_telling(mean, covariance, noise, open=np.ones(40, bool))
    z = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    simulated = [drawn(mean, covariance, noise, each, z) for each in range(40)]
    assert simulated[one] == pytest.approx(max(simulated), abs=1e-6)
    assert simulated[one] > 0


def test_wrong_values_are_refused() -> None:
    mean, covariance = belief(4, seed=13)
    with pytest.raises(ValueError, match="open"):
        most_telling(mean, covariance, 0.1, open=np.zeros(4, bool))
    with pytest.raises(ValueError, match=r"\[m, m\]"):
        gains(mean, covariance[:3], 0.1)
    with pytest.raises(ValueError, match="noise"):
        gains(mean, covariance, -0.1)
