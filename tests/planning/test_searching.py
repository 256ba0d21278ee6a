"""What a search and a validation take: who works at once, and what is scored at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from wide_study import PARTITIONS, wide_study, write_texts

from ablate.planning.forecast import forecast_of
from ablate.planning.memory import pool_bytes
from ablate.planning.mixtures import mean_members
from ablate.planning.setting import GROUP_START, Stage
from ablate.planning.work import Work, work_of
from ablate.resources import Cluster
from ablate.search.spaces import Partitions, make_space
from ablate.study import SpaceSettings, Study
from ablate.train.recipe import forward_flops

SIMPLEX = {"space": {"kind": "simplex"}}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_texts(tmp_path_factory.mktemp("search"))


def study(folder: Path, search: dict[str, Any], validate: dict[str, Any] | None = None) -> Study:
    return wide_study(
        folder,
        model={"preset": "1b", "overrides": {"num_hidden_layers": 2}},
        search={"trials": 400, "algorithm": "random", **search},
        validate=validate,
    )


def planned(one: Study, nodes: int = 1, **more: Any) -> tuple[Work, dict[str, Stage]]:
    """Return the work, and the stages on nodes of four GPUs, an evaluator each."""
    where = Cluster.model_validate(
        {
            "train": {"gpus_per_worker": 1},
            "trial": {"gpus": 1},
            "nodes": {
                "count": nodes, "cpus": 32, "gpus": 4, "memory_gb": 512, "object_store_gb": 200,
                "memory_gb_per_second": 200, **more,
            },
        }
    )  # fmt: skip
    work = work_of(one, cluster=where)
    return work, {stage.name: stage for stage in forecast_of(one, where, work).stages}


def seconds(texts: Path, search: dict[str, Any], nodes: int = 1, **more: Any) -> float:
    return planned(study(texts, search), nodes, **more)[1]["search"].seconds or 0.0


def test_no_more_evaluators_work_than_mixtures_are_open(texts: Path) -> None:
    free = [seconds(texts, {}, nodes) for nodes in (1, 8)]
    assert free[0] > 3 * free[1]
    for one_by_one in ({"algorithm": "gradient", "trials": 60, **SIMPLEX}, {"algorithm": "tpe"}):
        few = [seconds(texts, one_by_one, nodes) for nodes in (1, 8)]
        assert few[1] == pytest.approx(few[0], rel=0.2)
    _, stages = planned(study(texts, {"algorithm": "tpe"}), 8)
    assert "4 of 32 evaluator(s)" in stages["search"].basis and "tpe" in stages["search"].basis
    raced = [seconds(texts, {"racing": {"at_once": 2}}, nodes) for nodes in (1, 8)]
    assert raced[1] == pytest.approx(raced[0], rel=0.2) and raced[0] > 1.5 * free[0]
    # Each open mixture is scored by every merge.
    ties = {"algorithm": "tpe", "merge": {"alternatives": [{"method": "ties"}]}}
    assert "8 of 32 evaluator(s)" in planned(study(texts, ties), 8)[1]["search"].basis


def test_groups_are_searched_with_half_of_the_trials(texts: Path) -> None:
    groups = {"space": {"groups": {"low": ["p00", "p01"]}}, "algorithm": "surrogate"}
    whole, _ = planned(study(texts, {"algorithm": "surrogate", "trials": 200}))
    half, _ = planned(study(texts, {**groups, "trials": 200}))
    assert (whole.open_at_once, half.open_at_once) == (8, 4)
    assert planned(study(texts, {"trials": 3}))[0].open_at_once == 3


def test_fits_in_the_driver_bound_a_long_search(texts: Path) -> None:
    few, many = ({"algorithm": "surrogate", "trials": trials} for trials in (100, 3000))
    assert seconds(texts, many, 64) > 0.1 * 3000
    assert seconds(texts, many, 64) == pytest.approx(seconds(texts, many, 128), rel=0.05)
    _, stages = planned(study(texts, many), 64)
    assert "surrogate" in stages["search"].basis and "driver" in stages["search"].basis
    # More rows make a fit dearer.
    assert seconds(texts, many, 64) > 31 * seconds(texts, few, 64)


def test_every_merge_of_a_mixture_is_scored(texts: Path) -> None:
    one, _ = planned(study(texts, {}))
    more = {"merge": {"alternatives": [{"method": "ties"}, {"method": "linear", "scale": 0.5}]}}
    three, _ = planned(study(texts, more))
    assert (one.scored, three.scored) == (400 + PARTITIONS + 1, 1200 + PARTITIONS + 1)
    per_model = one.search_flops / one.scored
    assert three.search_flops == pytest.approx(per_model * three.scored)
    assert seconds(texts, more) > 2 * seconds(texts, {})


def test_an_ensemble_merges_nothing(texts: Path) -> None:
    work, stages = planned(study(texts, {"merge": {"method": "ensemble"}}))
    assert work.scored == PARTITIONS + 1 and work.trials == 400
    parameters = work.model.parameters
    assert work.search_flops == forward_flops(parameters, work.evaluated_tokens * work.scored)
    assert "token probabilities" in stages["search"].basis
    assert (stages["search"].seconds or 0) < 0.7 * seconds(texts, {})
    # Mixtures are scored in the driver: more nodes do not help.
    longer = {"merge": {"method": "ensemble"}, "trials": 4000}
    assert seconds(texts, longer, 8) > 0.5 * seconds(texts, longer, 1)


def test_a_gradient_passes_backwards_and_reads_every_unit(texts: Path) -> None:
    steps = {"algorithm": "gradient", **SIMPLEX}
    plain, _ = planned(study(texts, SIMPLEX))
    sloped, stages = planned(study(texts, steps))
    forward = forward_flops(plain.model.parameters, plain.evaluated_tokens)
    assert sloped.search_flops - plain.search_flops == 3 * 400 * forward
    assert "slopes" in stages["search"].basis
    usual, wide = (seconds(texts, steps, gpu_link_gb_per_second=rate) for rate in (5, 25))
    assert usual > 1.1 * wide


def test_rounds_are_trained_one_after_another(texts: Path) -> None:
    at_once = {"mixtures": 8, "sizes": [2]}
    later = {"mixtures": 2, "rounds": 6, "sizes": [2]}
    (all_work, together), (work, one_by_one) = (
        planned(study(texts, {}, asked), 8) for asked in (at_once, later)
    )
    assert work.validation_runs == all_work.validation_runs == 8
    assert (work.validation_rounds, all_work.validation_rounds) == (6, 0)
    assert work.validation_flops == all_work.validation_flops
    run = (together["validate"].seconds or 0) - GROUP_START
    assert (one_by_one["validate"].seconds or 0) > 3 * run
    assert "6 rounds one after another" in one_by_one["validate"].basis


def test_members_are_those_of_mixtures_within_the_limit() -> None:
    """One of the 2^40 sets in 27 billion keeps the limit: blind draws may find none."""
    units = {f"p{number:02d}": 1 for number in range(40)}
    facts = Partitions(units=units, tokens=units, available=units)
    assert mean_members(make_space(SpaceSettings(max_tokens=1), facts, "micro"), units) == 1
    pairs = make_space(SpaceSettings(min_size=2, max_size=2), facts, "micro")
    assert mean_members(pairs, units) == 2


def test_merges_take_what_their_methods_read_compute_and_gather(texts: Path) -> None:
    by_method = {
        name: seconds(texts, {"merge": {"method": name}})
        for name in ("linear", "task_arithmetic", "dare", "ties", "fisher", "regmean")
    }
    assert by_method["linear"] == by_method["task_arithmetic"] < by_method["dare"]
    assert by_method["dare"] < by_method["ties"] and by_method["linear"] < by_method["regmean"]
    work, stages = planned(study(texts, {"merge": {"alternatives": [{"method": "fisher"}]}}))
    assert work.statistics == ("fisher",) and "fisher of every unit" in stages["search"].basis
    # Each unit's task has a whole GPU: twice the nodes, half the time, but for starts.
    fisher = {"merge": {"method": "fisher"}, "trials": 1}
    assert seconds(texts, fisher, 1) > 1.3 * seconds(texts, fisher, 2)


def test_what_is_gathered_is_in_the_pool(texts: Path) -> None:
    plain, _ = planned(study(texts, {}))
    fisher, _ = planned(study(texts, {"merge": {"method": "fisher"}}))
    size = plain.model.parameters
    assert pool_bytes(plain) == 4 * size * (plain.units + 1)
    assert pool_bytes(fisher) == 4 * size * (2 * plain.units + 1)
