"""Laws of racing: whom it may stop, how often it is wrong, and what it saves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ablate.errors import StudyError
from ablate.search.racing import (
    LEAST_GROUPS,
    Race,
    asha_stop,
    groups_of,
    groups_until,
    plan_race,
    prediction_shares,
    replay,
    stage_alpha,
    verdict,
)

SIZES = {"law": 32, "math": 48, "web": 64}
WEIGHTS = {"law": 0.3, "math": 0.3, "web": 0.4}
Nats = dict[str, np.ndarray]


def evaluation(offsets: np.ndarray, seed: int, noise: float = 0.06) -> tuple[Nats, Nats]:
    """Nats [m, G] of mixtures that lose exactly `offsets` [m] more on every whole domain."""
    rng = np.random.default_rng(seed)
    nats, tokens = {}, {}
    for name, size in SIZES.items():
        counted = rng.integers(800, 1300, size).astype(float)
        hard = 4 + 0.5 * rng.standard_normal(size)
        own = noise * rng.standard_normal((len(offsets), size))
        own -= (own @ counted / counted.sum())[:, None]
        nats[name] = (hard + offsets[:, None] + own) * counted
        tokens[name] = counted
    return nats, tokens


def row(nats: Nats, index: int) -> Nats:
    return {name: values[index] for name, values in nats.items()}


def loss(nats: Nats, tokens: Nats) -> float:
    return sum(w * nats[n].sum() / tokens[n].sum() for n, w in WEIGHTS.items())


def prefix(nats: Nats, race: Race, stage: int) -> Nats:
    """The nats of a trial that was scored up to a stage only."""
    found = {}
    for name, groups in groups_until(race, stage).items():
        found[name] = np.full_like(nats[name], np.nan)
        found[name][groups] = nats[name][groups]
    return found


def test_stages_grow_cover_every_group_once_and_represent_each_domain() -> None:
    _, tokens = evaluation(np.zeros(1), seed=0)
    race = plan_race(tokens, WEIGHTS)
    for name, size in SIZES.items():
        added = [groups_of(race, stage)[name] for stage in range(len(race.shares))]
        assert sorted(np.concatenate(added).tolist()) == list(range(size))
        for stage, share in enumerate(race.shares):
            seen = groups_until(race, stage)[name]
            assert seen.size == max(math.ceil(share * size), LEAST_GROUPS)
            assert np.array_equal(seen, np.sort(np.concatenate(added[: stage + 1])))


def test_the_order_of_groups_depends_on_seed_and_name_only() -> None:
    _, tokens = evaluation(np.zeros(1), seed=0)
    one = plan_race(tokens, WEIGHTS)
    other = plan_race({"web": tokens["web"]}, {"web": 1.0})
    assert np.array_equal(one.visits["web"], other.visits["web"])
    assert not np.array_equal(plan_race(tokens, WEIGHTS, seed=1).visits["web"], one.visits["web"])


def test_only_the_seen_groups_are_read_and_all_of_them_are_needed() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.02]), seed=1)
    race = plan_race(tokens, WEIGHTS)
    leader, own = row(nats, 0), row(nats, 1)
    for stage in range(len(race.shares)):
        seen = prefix(own, race, stage)
        assert verdict(seen, leader, stage, race) == verdict(own, leader, stage, race)
        if stage:
            with pytest.raises(StudyError, match="NaN"):
                verdict(prefix(own, race, stage - 1), leader, stage, race)


def test_the_last_stage_is_exact_and_stops_nobody() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.3]), seed=2)
    race = plan_race(tokens, WEIGHTS)
    leader, own = row(nats, 0), row(nats, 1)
    for controls in (None, {n: values + 5 for n, values in own.items()}):
        last = verdict(own, leader, len(race.shares) - 1, race, controls=controls)
        assert not last.stop and last.share == 1
        assert last.lower == last.difference == last.upper == pytest.approx(0.3)
        assert last.objective == pytest.approx(loss(own, tokens))


def test_far_worse_mixtures_stop_at_once_and_better_ones_never() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.5, -0.5]), seed=3)
    race = plan_race(tokens, WEIGHTS)
    leader = row(nats, 0)
    first = verdict(row(nats, 1), leader, 0, race)
    assert first.stop and first.lower < 0.5 < first.upper
    assert first.objective == pytest.approx(loss(row(nats, 1), tokens), abs=0.1)
    for stage in range(len(race.shares)):
        assert not verdict(row(nats, 2), leader, stage, race).stop


def test_a_copy_of_the_leader_is_never_stopped() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.01]), seed=4)
    race = plan_race(tokens, WEIGHTS, alpha=0.5)
    leader = row(nats, 0)
    for stage in range(len(race.shares)):
        for controls in (None, row(nats, 1), leader):
            found = verdict(leader, leader, stage, race, controls=controls)
            assert not found.stop and found.lower == found.upper == 0
    same = {name: values[[0, 0, 0]] for name, values in nats.items()}
    result = replay(same, race)
    assert result.winner == 0 and (result.stages == len(race.shares)).all() and result.share == 1


@pytest.mark.parametrize("control", [False, True])
def test_the_error_rate_against_one_leader_is_kept(control: bool) -> None:
    """A mixture that ties with the leader at full tokens is as hard to keep as a winner can be."""
    races, alpha, stopped = 150, 0.2, 0
    for seed in range(races):
        nats, tokens = evaluation(np.zeros(3), seed=100 + seed)
        race = plan_race(tokens, WEIGHTS, alpha=alpha, seed=seed)
        own, leader = row(nats, 1), row(nats, 0)
        mean = {n: (own[n] + row(nats, 2)[n]) / 2 for n in own} if control else None
        stages = range(len(race.shares))
        stopped += any(verdict(own, leader, s, race, controls=mean).stop for s in stages)
    bound = alpha / 2  # the first leader's part
    assert stopped / races <= bound + 2 * math.sqrt(bound * (1 - bound) / races)


def test_bounds_cover_the_answer_of_full_evaluation() -> None:
    missed = 0
    for seed in range(200):
        nats, tokens = evaluation(np.array([0.0, 0.02]), seed=600 + seed)
        race = plan_race(tokens, WEIGHTS, shares=(0.25, 1.0), alpha=0.2, seed=seed)
        found = verdict(row(nats, 1), row(nats, 0), 0, race)
        missed += not found.lower <= 0.02 <= found.upper
    assert missed / 200 <= 0.2 + 2 * math.sqrt(0.16 / 200)  # two sides of alpha / 2


def test_error_rates_of_all_leaders_and_stages_sum_to_alpha() -> None:
    _, tokens = evaluation(np.zeros(1), seed=0)
    for at_once in (1, 4):
        race = plan_race(tokens, WEIGHTS, alpha=0.05, trials_at_once=at_once)
        spent = sum(
            stage_alpha(race, s, j) for s in range(len(race.shares)) for j in range(1, 2000)
        )
        assert spent * at_once == pytest.approx(0.05, rel=1e-3) and spent * at_once <= 0.05


def test_a_control_that_follows_the_mixture_narrows_the_bounds() -> None:
    nats, tokens = evaluation(np.array([0.0, 0.02]), seed=5)
    race = plan_race(tokens, WEIGHTS)
    leader, own = row(nats, 0), row(nats, 1)
    rng = np.random.default_rng(0)
    near = {n: own[n] + 0.01 * tokens[n] * rng.standard_normal(own[n].size) for n in own}
    plain, helped = (verdict(own, leader, 2, race, controls=c) for c in (None, near))
    assert helped.upper - helped.lower < (plain.upper - plain.lower) / 2
    assert abs(helped.difference - 0.02) < abs(plain.difference - 0.02) + 1e-9


def landscape(seed: int) -> tuple[np.ndarray, Nats, Nats]:
    """All 63 subsets of six partitions, units first, then in a random order."""
    rng = np.random.default_rng(seed)
    masks = np.array([[bool(i >> k & 1) for k in range(6)] for i in range(1, 64)])
    units = np.flatnonzero(masks.sum(axis=1) == 1)
    rest = rng.permutation(np.setdiff1d(np.arange(63), units))
    masks = masks[np.concatenate([units, rest])]
    weights = masks / masks.sum(axis=1, keepdims=True)
    effect = np.mean([np.exp(-2.5 * weights @ rng.gamma(1.5, 0.4, 6)) for _ in SIZES], axis=0)
    nats, tokens = evaluation(effect, seed)
    for name, size in SIZES.items():
        nats[name] += weights @ (0.06 * rng.standard_normal((6, size))) * tokens[name]
    return weights, nats, tokens


def test_racing_finds_the_winner_of_full_evaluation_for_a_fraction_of_the_tokens() -> None:
    kept, shares = 0, []
    for seed in range(12):
        weights, nats, tokens = landscape(seed)
        race = plan_race(tokens, WEIGHTS, seed=seed)
        found = replay(nats, race, finished=6, mixture_weights=weights)
        losses = [loss(row(nats, i), tokens) for i in range(63)]
        kept += found.winner == int(np.argmin(losses))
        shares.append(found.share)
        assert (found.stages >= 1).all() and found.stages[found.winner] == len(race.shares)
    # Six of 63 mixtures are full by rule, a tenth of the tokens; larger searches save more.
    assert kept == 12
    assert np.mean(shares) < 0.35


def test_a_race_repeats_itself_and_is_blind_to_the_order_of_domains() -> None:
    weights, nats, tokens = landscape(7)
    first = replay(nats, plan_race(tokens, WEIGHTS), finished=6, mixture_weights=weights)
    turned = {name: nats[name] for name in reversed(nats)}
    race = plan_race(dict(reversed(tokens.items())), dict(reversed(WEIGHTS.items())))
    again = replay(turned, race, finished=6, mixture_weights=weights)
    assert first.winner == again.winner and first.share == again.share
    assert np.array_equal(first.stages, again.stages)


def test_prediction_shares_sum_to_one_and_return_what_was_finished() -> None:
    known = np.eye(4)
    shares = prediction_shares(known, np.array([0.5, 0.5, 0, 0]), ridge=1e-9)
    assert shares == pytest.approx([0.5, 0.5, 0, 0], abs=1e-6)
    assert prediction_shares(known, known[2], ridge=0.3).sum() == pytest.approx(1)


def test_asha_keeps_the_best_fraction_at_each_rung() -> None:
    assert not asha_stop([], 5.0)
    assert asha_stop([1.0], 2.0) and not asha_stop([1.0], 0.5)
    rung = [float(value) for value in range(11)]
    assert not asha_stop(rung, 1.5, eta=4)  # third of twelve: a quarter is three
    assert asha_stop(rung, 2.5, eta=4)
    assert not asha_stop([1.0] * 7, 1.0)  # ties go on
    assert asha_stop(rung[::-1], 2.5) == asha_stop(rung, 2.5)


def test_wrong_rules_are_refused() -> None:
    _, tokens = evaluation(np.zeros(1), seed=0)
    for shares in ((), (0.5,), (0.5, 0.25, 1.0), (0.0, 1.0)):
        with pytest.raises(StudyError, match="shares"):
            plan_race(tokens, WEIGHTS, shares=shares)
    with pytest.raises(StudyError, match="alpha"):
        plan_race(tokens, WEIGHTS, alpha=0.0)
    with pytest.raises(StudyError, match="novels"):
        plan_race(tokens, {"novels": 1.0})
    with pytest.raises(StudyError, match="eta"):
        asha_stop([1.0], 2.0, eta=1)
    with pytest.raises(StudyError, match="finished"):
        replay(evaluation(np.zeros(2), 0)[0], plan_race(tokens, WEIGHTS), finished=0)
