"""The simulation of examples/at_scale against closed formulas, and its study as it is planned."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples" / "at_scale"


@pytest.fixture
def simulate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("simulate")


@pytest.fixture
def scale(simulate: ModuleType) -> ModuleType:
    return sys.modules["scale"]


def small(scale: ModuleType, **values: float) -> Any:
    """Return six nodes of two GPUs, four layers, and no time between trials."""
    given = {"nodes": 6, "gpus": 2, "layers": 4, "units": 60, "ceremony": 0, "cache_gb": 0}
    return scale.Inputs(**{**given, **values})


def test_one_node_has_every_unit_and_scores_without_a_pause(
    simulate: ModuleType, scale: ModuleType
) -> None:
    one = small(scale, nodes=1)
    busy = scale.merge_seconds(one) + scale.compute_seconds(one)
    found = simulate.whole_units(one, 2000 * busy / 3600)
    assert found.bytes_per_trial == 0 == scale.whole_unit_bytes(one)
    assert found.trials_per_hour == pytest.approx(2 * 3600 / busy, rel=0.01)


@pytest.mark.parametrize("cache_gb", [0, 200, 500])
def test_whole_units_move_what_the_formula_says(
    simulate: ModuleType, scale: ModuleType, cache_gb: float
) -> None:
    """A cache of C of U units is hit with C / U when all units are asked for alike."""
    one = small(scale, cache_gb=cache_gb, tokens=4_194_304)
    found = simulate.whole_units(one, 200 * simulate.whole_hours(one) / 4)
    assert found.bytes_per_trial == pytest.approx(scale.whole_unit_bytes(one), rel=0.05)


@pytest.mark.parametrize(("tokens", "least"), [(8_388_608, 0.97), (65_536, 0.8)])
def test_whole_units_come_near_their_limit_and_not_above(
    simulate: ModuleType, scale: ModuleType, tokens: float, least: float
) -> None:
    """Much text: the GPUs set the pace. Little text: the networks do."""
    one = small(scale, tokens=tokens, network_gbps=100)
    hours = 100 * simulate.whole_hours(one) / 4
    ahead = simulate.whole_units(one, hours, prefetch=True)
    limit = scale.whole_unit_limit(one, ahead.bytes_per_trial)
    assert least * limit < ahead.trials_per_hour < 1.02 * limit
    assert simulate.whole_units(one, hours).trials_per_hour < 1.02 * ahead.trials_per_hour


def test_a_pipeline_is_as_fast_as_its_slowest_server(
    simulate: ModuleType, scale: ModuleType
) -> None:
    usual = small(scale)
    work, merge = (f(usual) / usual.stages for f in (scale.compute_seconds, scale.merge_seconds))
    first, period = simulate.rhythm(replace(usual, network_gbps=1e9, nvlink_gb=1e9))
    assert (
        period
        == pytest.approx(merge + work)
        == pytest.approx(3600 * usual.groups / scale.sliced_limit(usual))
    )
    # The last stage waits for the first micro batch to pass all stages before it.
    passes = usual.tokens / usual.micro_tokens
    assert first == pytest.approx(merge + work + (usual.stages - 1) * work / passes)
    thin = replace(usual, network_gbps=0.5)
    _, period = simulate.rhythm(thin)
    assert period == pytest.approx(scale.sliced_bytes(thin) / thin.network)
    assert period == pytest.approx(3600 * thin.groups / scale.sliced_limit(thin))


def test_both_designs_move_as_much_at_the_break_even(scale: ModuleType) -> None:
    one = small(scale, cache_gb=100)
    even = replace(one, tokens=scale.break_even_tokens(one))
    assert scale.sliced_bytes(even) == pytest.approx(scale.whole_unit_bytes(even))
    assert scale.break_even_tokens(replace(one, members=16)) == pytest.approx(
        2 * scale.break_even_tokens(one)
    )


def test_nodes_that_vanish_cost_what_the_formula_says(
    simulate: ModuleType, scale: ModuleType
) -> None:
    one = small(scale, tokens=1_048_576)
    calm = simulate.sliced(one, 500).trials_per_hour
    for rate in (0.1, 0.5):
        now = replace(one, lost_per_hour=rate)
        found = simulate.sliced(now, 500)
        assert found.lost > 0
        assert found.trials_per_hour / calm == pytest.approx(
            scale.sliced_availability(now), rel=0.05
        )
    hours = 100 * simulate.whole_hours(one) / 4
    steady = simulate.whole_units(one, hours)
    shaken = simulate.whole_units(replace(one, lost_per_hour=1), hours)
    assert steady.lost == 0 < shaken.lost
    assert shaken.trials_per_hour < steady.trials_per_hour


def test_the_same_seed_gives_the_same_search(simulate: ModuleType, scale: ModuleType) -> None:
    one = small(scale, lost_per_hour=2, cache_gb=100)
    hours = 8 * simulate.whole_hours(one)
    assert simulate.whole_units(one, hours, 3) == simulate.whole_units(one, hours, 3)
    assert simulate.whole_units(one, hours, 3) != simulate.whole_units(one, hours, 4)


def test_the_study_is_planned_on_a_thousand_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ablate.planning import work_of
    from ablate.planning.forecast import forecast_of
    from ablate.resources import load_cluster
    from ablate.study import load_study

    monkeypatch.syspath_prepend(str(FOLDER))
    importlib.import_module("make_texts").main(tmp_path / "texts", 50, 2)
    (tmp_path / "study.yaml").write_text((FOLDER / "study.yaml").read_text())
    study, cluster = load_study(tmp_path / "study.yaml"), load_cluster(FOLDER / "cluster.yaml")
    work = work_of(study, cluster=cluster)
    found = forecast_of(study, cluster, work)
    assert work.units == 500 and found.places.evaluators == 1000
    assert found.places.lanes == 125
    assert work.model.parameters == pytest.approx(6.74e9, rel=0.01)
    assert found.memory.pool == pytest.approx(13.5e12, rel=0.01)
    (problem,) = found.problems
    assert "the pool of 13,504 GB does not fit" in problem and "examples/at_scale" in problem
    json.dumps(found.to_json(), allow_nan=False)
    # Of full size: in 2,600 shards prepare takes half an hour, in 52 a day, as the plan says.
    full = importlib.import_module("plan").full_size
    few = full(work)
    assert sum(file.kept for file in few.texts) == 520 * 10**9
    assert work.seed_tokens == pytest.approx(20 * 10**9, rel=0.001)
    slow = forecast_of(study, cluster, few)
    assert "53 tasks, one per file" in slow.stages[0].basis
    assert (slow.stages[0].seconds or 0) > 27 * 3600
    assert sum("split it" in problem for problem in slow.problems) == 1
    many = full(replace(work, texts=work.texts[:1] * 2600))
    quick = forecast_of(study, cluster, many)
    assert quick.stages[0].seconds == pytest.approx(200e6 / 100_000, rel=0.25)
    assert len(quick.problems) == 1
