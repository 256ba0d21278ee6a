"""Agreement over made-up trainings: what is compared, what is said first, what is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import spearmanr

from ablate.mixture import Mixture
from ablate.validate.agreement import Agreement, Trained, assess
from ablate.validate.datamodels import left_out_losses
from ablate.validate.predictor import Predictor
from ablate.validate.subjects import BASELINES, Subject, with_objective

WEIGHTS = {"x": 0.5, "a": 0.5}
KINDS = {"x": "domain", "a": "heldout"}
NAMES = "abcdef"


def subject(members: str, losses: Mapping[str, float], noise: float) -> Subject:
    """A mixture whose merge is right up to a shift, and whose members' mean is all noise."""
    merge = with_objective({name: loss + 0.5 for name, loss in losses.items()}, WEIGHTS)
    off = with_objective(dict.fromkeys(losses, noise), WEIGHTS)
    flat = with_objective(dict.fromkeys(losses, 4.0), WEIGHTS)
    return Subject(
        mixture=Mixture.uniform(list(members)),
        tokens=100 * len(members),
        proxies={"merge": merge} | {name: flat if name == "seed" else off for name in BASELINES},
    )


def trainings(count: int = 12, replicates: int = 1) -> list[Trained]:
    rng = np.random.default_rng(0)
    worth = dict(zip(NAMES, rng.normal(size=len(NAMES)), strict=True))
    found, seen = [], set()
    while len(found) < count:
        members = "".join(sorted(rng.choice(list(NAMES), 2 + len(found) % 2, replace=False)))
        if members in seen:
            continue
        seen.add(members)
        base = 3 + sum(worth[name] for name in members) / len(members)
        losses = {"x": base, "a": base + 0.1 * rng.normal()}
        each = [
            with_objective({n: v + 1e-3 * rng.normal() for n, v in losses.items()}, WEIGHTS)
            for _ in range(replicates)
        ]
        known = subject(members, losses, rng.normal())
        one = Trained(subject=known, tokens=known.tokens, losses=tuple(each))
        found.append(one)
    return found


@cache
def assessed(count: int = 12, replicates: int = 1) -> Agreement:
    """The same trainings are assessed once for all tests."""
    return assess(trainings(count, replicates), KINDS, WEIGHTS, 0)


def test_a_merge_that_predicts_is_said_to_beat_the_baselines_and_one_that_does_not_is_not() -> None:
    good = assessed()
    assert good.summary["merge"]["domains"]["spearman"].value == pytest.approx(1.0, abs=0.05)
    assert "it beats all" in good.headline and "NOT" not in good.headline.split(".")[0]
    swapped = [
        Trained(
            subject=Subject(
                mixture=one.subject.mixture,
                tokens=one.subject.tokens,
                proxies=one.subject.proxies
                | {
                    "merge": one.subject.proxies["members_mean"],
                    "members_mean": one.subject.proxies["merge"],
                },
            ),
            tokens=one.tokens,
            losses=one.losses,
        )
        for one in trainings()
    ]
    bad = assess(swapped, KINDS, WEIGHTS, 0)
    assert "does NOT beat the mean of the members' own losses (1.00)" in bad.headline


def test_in_domain_and_outside_are_split_by_what_a_text_is() -> None:
    found = assessed()
    assert found.targets == {"objective": "objective", "x": "domain", "a": "partition"}
    tables = found.tables
    for kind, target in (("in_domain", "a"), ("outside", "x"), ("objective", "objective")):
        mean = tables[target]["merge"].within.mean["kendall"].value
        assert found.summary["merge"][kind]["kendall"].value == pytest.approx(mean)
    assert found.summary["seed"]["domains"]["spearman"].value is None  # it does not vary
    assert tables["x"]["seed"].overall["decision_accuracy"].value == 0.5


def test_calibration_foretells_what_was_left_out_and_survives_json() -> None:
    found = assessed()
    assert found.objective_fit is not None and found.predictor is not None
    assert found.objective_fit.errors().root_mean_square < 0.05
    body = json.loads(json.dumps(found.to_json()))
    again = Predictor.from_json(body["predictor"])
    known = [one.subject for one in found.trained]
    assert again.predict(known, WEIGHTS) == found.predictor.predict(known, WEIGHTS)
    for row, one in zip(body["mixtures"], found.trained, strict=True):
        mean, lower, upper = row["predicted"]["objective"]
        assert lower < mean < upper and abs(mean - one.mean("objective")) < 0.2
    ranks = found.tables["objective"]["calibrated"].overall
    held_out = [row["predicted"]["objective"][0] for row in body["mixtures"]]
    truth = [one.mean("objective") for one in found.trained]
    assert ranks["spearman"].value == pytest.approx(spearmanr(held_out, truth).statistic)
    other = again.predict(known, {"a": 1.0})[known[0].mixture.key()]
    assert other["objective"].loss == pytest.approx(other["a"].loss)
    assert "objective" not in again.predict(known, {"a": 0.5, "q": 0.5})[known[0].mixture.key()]


def test_two_trainings_of_each_mixture_give_the_noise_floor() -> None:
    assert not assessed().noise_floor
    found = assessed(replicates=2)
    assert len(found.plot().data[0].x) == 24 and found.plot("x", "members_mean").layout.xaxis
    value = found.noise_floor["objective"]["spearman"].value
    assert value is not None and 0.9 < value <= 1.0
    assert len(found.to_json()["mixtures"]) == 24


def test_the_first_line_counts_what_was_ranked() -> None:
    assert "the merge ranks 12 trained mixtures with" in assessed().headline
    assert "the merge ranks 3 of 5 trained mixtures with" in assessed(5).headline


def test_tokens_are_those_that_were_trained_on() -> None:
    """With `tokens: fixed` all mixtures have as many, whatever their units had: nothing to rank by."""
    fixed = [replace(one, tokens=100) for one in trainings(9)]
    found = assess(fixed, KINDS, WEIGHTS, 0)
    assert {row["tokens"] for row in found.to_json()["mixtures"]} == {100}
    assert found.tables["objective"]["tokens"].overall["spearman"].value is None
    assert found.tables["objective"]["tokens"].overall["decision_accuracy"].value == 0.5


def test_a_plot_of_what_was_not_compared_is_refused() -> None:
    for asked, name in ((("y", "merge"), "'y'"), (("x", "calibrated"), "'calibrated'")):
        with pytest.raises(KeyError, match=f"{name} must be one of"):
            assessed().plot(*asked)


@pytest.mark.parametrize("count", [3, 4, 5, 6])
def test_too_few_mixtures_are_said_to_be_too_few(count: int) -> None:
    found = assess(trainings(count), KINDS, WEIGHTS, 0)
    assert not found.fits and found.predictor is None and "calibrated" not in found.proxies
    assert ("cannot say" in found.headline) == (count < 5)
    assert f"7 trained mixtures, {7 - count} more than there are" in found.headline


def test_what_predicts_no_better_than_the_mean_ranks_nothing() -> None:
    rng = np.random.default_rng(2)
    noise = [
        Trained(
            subject=one.subject,
            tokens=one.tokens,
            losses=(with_objective(dict.fromkeys("xa", value), WEIGHTS),),
        )
        for one, value in zip(trainings(9), rng.normal(size=9), strict=True)
    ]
    found = assess(noise, KINDS, WEIGHTS, 0)
    assert found.fits and found.predictor is None and "calibrated" not in found.proxies
    assert "no better than by the mean" in found.headline and "over all sizes" not in found.headline
    body = found.to_json()
    assert body["predictor"] is None and not any(row["predicted"] for row in body["mixtures"])


def test_of_one_text_that_is_not_predicted_the_ranking_is_nobodys() -> None:
    rng = np.random.default_rng(3)
    odd = []
    for one in trainings(12):
        (losses,) = one.losses
        odd.append(
            Trained(
                subject=one.subject,
                tokens=one.tokens,
                losses=(with_objective({"x": losses["x"], "a": float(rng.normal())}, {"x": 1.0}),),
            )
        )
    found = assess(odd, KINDS, {"x": 1.0}, 0)
    assert found.predictor is not None and not found.fits["a"].tells
    table = found.tables["a"]["calibrated"].overall
    assert table["spearman"].value is None and table["decision_accuracy"].value == 0.5
    assert found.predictor.objective({"a": 1.0}) is None


def test_a_datamodel_never_sees_the_mixture_that_it_foretells() -> None:
    rng = np.random.default_rng(1)
    mixtures = [Mixture.of(dict(zip("abc", rng.random(3), strict=True))) for _ in range(10)]
    losses = np.array([2 + dict(one.weights)["a"] for one in mixtures])
    tokens = [100] * 10
    plain = left_out_losses(mixtures, tokens, {"x": losses}, rng_seed=0, on_progress=lambda _: None)
    assert np.allclose(plain["datamodel"]["x"], losses, atol=1e-3)
    for place in range(3):
        moved = losses.copy()
        moved[place] += 5.0
        other = left_out_losses(
            mixtures, tokens, {"x": moved}, rng_seed=0, on_progress=lambda _: None
        )
        for name in ("datamodel", "mixing_law"):
            assert other[name]["x"][place] == plain[name]["x"][place]
