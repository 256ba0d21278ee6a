"""What is known of a mixture before it is trained: proxies and baselines from the table's rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ablate.evaluate.statistics import DomainScore
from ablate.mixture import Mixture
from ablate.search.candidates import Candidate
from ablate.search.table import Trial
from ablate.validate.subjects import OBJECTIVE, features, fitted_features, subjects

WEIGHTS = {"x": 0.25, "y": 0.75}


def row(kind: str, mixture: Mixture | None, losses: tuple[float, float], **more: object) -> Trial:
    candidate = Candidate(
        key=f"{kind}{mixture}{more}",
        kind=kind,  # type: ignore[arg-type]
        method="linear",
        merge=None,
        unit=None,
        mixture=mixture,
        seed_coefficient=0.0,
        coefficients=(),
        tokens=100,
    )
    scores = {
        name: DomainScore(nats=10 * loss, tokens=10, bytes=30, stderr=0.1)
        for name, loss in zip("xy", losses, strict=True)
    }
    return Trial(
        candidate=replace(candidate, **more),  # type: ignore[arg-type]
        scores=scores,
        objective=0.25 * losses[0] + 0.75 * losses[1],
        member_objective=None,
        merge_seconds=0.0,
        evaluate_seconds=0.0,
        error=None,
    )


def table() -> list[Trial]:
    alone = {name: Mixture.uniform([name]) for name in "ab"}
    both = Mixture.of({"a": 2 / 3, "b": 1 / 3})
    return [
        row("seed", None, (9.0, 9.0)),
        row("unit", alone["a"], (4.0, 8.0), unit=0),
        row("unit", alone["a"], (6.0, 6.0), unit=1),
        row("unit", alone["b"], (2.0, 3.0), unit=0),
        row("proxy", both, (3.0, 4.0), merge="linear"),
        row("proxy", both, (2.5, 3.5), merge="ensemble"),
        row("proxy", both, (2.0, 4.5), merge="ties"),
        row("proxy", both, (0.0, 0.0), merge="somebody's"),
        row("proxy", both, (2.2, 3.2), merge="logit_ensemble"),
    ]


def test_proxies_and_baselines_are_those_of_the_members() -> None:
    (found,) = subjects(table(), ("linear", "ties"), WEIGHTS).values()
    losses = {name: (by["x"], by["y"]) for name, by in found.proxies.items()}
    assert losses["merge"] == (3.0, 4.0) and losses["ties"] == (2.0, 4.5)
    assert losses["logit_ensemble"] == (2.2, 3.2)
    assert losses["ensemble"] == (2.5, 3.5) and "somebody's" not in losses
    assert losses["members_mean"] == pytest.approx((2 / 3 * 5 + 2 / 3, 2 / 3 * 7 + 1))
    assert losses["members_best"] == (2.0, 3.0) and losses["members_worst"] == (6.0, 8.0)
    assert losses["seed"] == (9.0, 9.0) and losses["tokens"] == (-100.0, -100.0)
    own = [0.25 * x + 0.75 * y for x, y in ((4, 8), (6, 6), (2, 3))]
    of = {name: by[OBJECTIVE] for name, by in found.proxies.items()}
    assert (of.pop("members_best"), of.pop("members_worst")) == (min(own), max(own))
    for name, value in of.items():
        by = found.proxies[name]
        assert value == pytest.approx(0.25 * by["x"] + 0.75 * by["y"])
    assert found.name == "a 0.667 + b 0.333" and found.size == 2


def test_a_row_counts_for_every_merge_that_makes_its_parameters() -> None:
    pair = Mixture.uniform(["a", "b"])
    rows = [*table()[:4], row("proxy", pair, (3.0, 4.0), merge="linear", also=("half",))]
    for merges in (("linear", "half"), ("half", "linear")):
        (found,) = subjects(rows, merges, WEIGHTS).values()
        assert found.proxies["merge"] == found.proxies[merges[1]]
    (alone,) = subjects(rows, ("half",), WEIGHTS).values()
    assert alone.proxies["merge"]["x"] == 3.0 and "linear" not in alone.proxies


def test_where_the_ensemble_is_the_study_s_merge_it_stays_the_ensemble() -> None:
    (found,) = subjects(table(), ("ensemble",), WEIGHTS).values()
    assert found.proxies["ensemble"]["x"] == 2.5 and "merge" not in found.proxies


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_mixture_of_a_unit_without_a_score_is_left_out(lost: int) -> None:
    """As of a seed without one: there is nothing to compare such a mixture with."""
    rows = table()
    rows[lost] = replace(rows[lost], scores={}, objective=None, error="ran out of memory")
    assert not subjects(rows, ("linear", "ties"), WEIGHTS)
    other = Mixture.uniform(["c"])
    rows += [
        row("unit", other, (4.0, 4.0), unit=0),
        row("unit", other, (4.0, 4.0), unit=1),
        row("proxy", other, (3.0, 4.0), merge="linear"),
    ]
    assert set(subjects(rows, ("linear", "ties"), WEIGHTS)) == ({other.key()} if lost else set())


def test_averaged_logits_alone_are_no_proxy() -> None:
    mixture = Mixture.of({"a": 1, "b": 1})
    rows = [*table(), row("proxy", mixture, (3.0, 4.0), merge="logit_ensemble")]
    assert mixture.key() not in subjects(rows, ("linear", "ties"), WEIGHTS)


def test_a_unit_that_is_no_trained_mixture_is_a_subject_of_its_own() -> None:
    assert set(subjects(table(), ("linear",), WEIGHTS)) == {Mixture.of({"a": 2, "b": 1}).key()}
    found = subjects(table(), ("linear", "ties"), WEIGHTS, alone={"b"})
    one = found[Mixture.uniform("b").key()]
    names = ("merge", "ensemble", "ties", "logit_ensemble", "members_mean")
    same = {one.proxies[name]["x"] for name in names}
    assert same == {2.0} and one.size == 1


def test_features_are_those_that_all_mixtures_have() -> None:
    rows = table()
    other = Mixture.of({"a": 1, "b": 1})
    rows.append(row("proxy", other, (3.3, 4.4), merge="linear"))
    known = list(subjects(rows, ("linear", "ties"), WEIGHTS).values())
    columns = features(known, "x")
    shared = {"merge", "members_mean", "members_best", "size", "tokens"}
    assert set(columns) == shared | {"text/a", "text/b"}
    tokens = np.array([one.tokens for one in known])
    shares = np.array([dict(one.mixture.weights)["a"] for one in known])
    assert np.allclose(columns["text/a"], shares * tokens)
    assert np.allclose(columns["text/a"] + columns["text/b"], tokens)
    assert {"members_worst", "seed"} & set(columns) == set()
    assert "logit_ensemble" not in features(known[:1], "x")
    assert np.allclose(np.sort(columns["merge"]), [3.0, 3.3])


def test_nothing_is_fitted_to_other_merges() -> None:
    """They are scored of some mixtures only; earlier fits that ask for them are still answered."""
    known = list(subjects(table(), ("linear", "ties"), WEIGHTS).values())
    asked, fitted = features(known, "x"), fitted_features(known, "x")
    assert asked.keys() - fitted.keys() == {"ties"} and {"merge", "ensemble"} <= fitted.keys()
