"""Laws of a forecast. Rates come from the cluster's settings, but where measuring is the subject."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from wide_study import PARTITIONS, wide_study, write_texts

from ablate.evaluate.scorer import PREPARED_BYTES
from ablate.models.build import ModelShape, model_shape
from ablate.planning.forecast import Forecast, forecast_of
from ablate.planning.machine import Probe, measure, scoring_flops, training_flops
from ablate.planning.setting import makespan
from ablate.planning.traffic import step_bytes
from ablate.planning.work import Work, work_of
from ablate.resources import Cluster, load_cluster
from ablate.study import Study

NODES = {
    "count": 2, "cpus": 32, "gpus": 4, "memory_gb": 512, "gpu_memory_gb": 80,
    "object_store_gb": 200, "cpu_gflops": 50, "memory_gb_per_second": 100, "price_per_hour": 10,
}  # fmt: skip
GPUS = {"train": {"gpus_per_worker": 1, "workers_per_run": 2}, "trial": {"gpus": 1}}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return wide_study(
        write_texts(tmp_path_factory.mktemp("plan")),
        model={"preset": "1b"},
        train={"precision": "bf16"},
        search={"trials": 1000},
        validate={"mixtures": 8, "sizes": [2]},
    )


@pytest.fixture(scope="module")
def work(study: Study) -> Work:
    return work_of(study)


def cluster(nodes: dict[str, Any] | None = None, **sections: Any) -> Cluster:
    tree = {key: {**GPUS.get(key, {}), **sections.pop(key, {})} for key in GPUS}
    return Cluster.model_validate({**tree, **sections, "nodes": {**NODES, **(nodes or {})}})


def zero(stage: int, **more: Any) -> dict[str, Any]:
    return {"zero_optimization": {"stage": stage, **more}}


def test_twice_the_nodes_are_never_slower(study: Study, work: Work) -> None:
    before: Forecast | None = None
    for count in (1, 2, 4, 8, 16, 64):
        now = forecast_of(study, cluster({"count": count}), work)
        if before is not None:
            slower = zip(now.stages, before.stages, strict=True)
            assert all((a.seconds or 0) <= (b.seconds or 0) for a, b in slower)
            assert now.device_hours == before.device_hours
        before = now
    assert before is not None and before.problems == ()


def test_faster_parts_are_never_slower(study: Study, work: Work) -> None:
    # 16 GB/s of memory for each of four GPUs: less than their links carry.
    usual = forecast_of(study, cluster({"memory_gb_per_second": 64}), work)
    for key, value in {
        "gpu_tflops": 800, "network_gbps": 100, "storage_gb_per_second": 10,
        "memory_gb_per_second": 80,
    }.items():  # fmt: skip
        faster = forecast_of(study, cluster({"memory_gb_per_second": 64, key: value}), work)
        assert faster.seconds is not None and usual.seconds is not None
        assert faster.seconds < usual.seconds, key
    memory = {"memory_gb_per_second": 400}  # now the links bound it
    links = [
        forecast_of(study, cluster({**memory, "gpu_link_gb_per_second": rate}), work).stages[2]
        for rate in (25, 50)
    ]
    assert (links[1].seconds or 0) < (links[0].seconds or 0)


def test_bytes_add_up(study: Study, work: Work) -> None:
    found = forecast_of(study, cluster(), work)
    whole, models = 4 * work.model.parameters, PARTITIONS + 1
    assert found.memory.pool == whole * models
    assert found.traffic.pool == found.memory.pool  # two nodes: once from one to the other
    trained = models + work.validation_runs
    assert found.traffic.read == whole * (trained * 2 + found.places.evaluators + models)
    states = (found.traffic.written - whole * trained) / (20 * work.model.parameters)
    assert states == int(states) > 0
    assert found.cost == pytest.approx(10 * 2 * (found.seconds or 0) / 3600)
    assert found.seconds == pytest.approx(sum(stage.seconds or 0 for stage in found.stages))


def test_zero_stages_share_the_states_and_offloading_moves_them(study: Study, work: Work) -> None:
    numel = work.model.parameters
    at = {
        stage: forecast_of(study, cluster(deepspeed=zero(stage)), work).memory
        for stage in (0, 1, 2, 3)
    }
    assert at[0] == at[1]  # bf16 at stage 0 runs as stage 1
    # Two workers: half of what a stage shares.
    assert at[1].worker - at[2].worker == pytest.approx(6 * numel / 2)
    assert at[2].worker - at[3].worker == pytest.approx(2 * numel / 2)
    away = {key: {"device": "cpu"} for key in ("offload_param", "offload_optimizer")}
    off = forecast_of(study, cluster(deepspeed=zero(3, **away)), work).memory
    assert off.worker + off.worker_host == pytest.approx(at[3].worker)
    assert off.worker_host == pytest.approx(14 * numel / 2)
    assert off.training_node > at[3].training_node


def test_an_evaluator_keeps_gram_products_of_members_up_to_a_limit(
    study: Study, work: Work
) -> None:
    def host(**merge: Any) -> float:
        one = study.model_validate(
            {**study.model_dump(by_alias=True), "search": {"merge": merge, "trials": 1000}}
        )
        found = forecast_of(one, cluster(), work).memory
        others = found.scoring_node - linear.scoring_node
        assert others == pytest.approx(found.evaluator_host * 4)  # evaluators of a node
        return found.evaluator_host

    linear = forecast_of(study, cluster(), work).memory
    assert linear.evaluator_host == host(method="ties") == 0
    assert host(method="dare") == PARTITIONS * work.model.parameters / 8
    assert host(method="regmean") == PREPARED_BYTES < 4 * work.model.parameters * PARTITIONS
    assert host(method="linear", alternatives=[{"method": "regmean"}]) == PREPARED_BYTES


def test_a_pool_larger_than_the_store_is_named_and_slower(study: Study, work: Work) -> None:
    fits = forecast_of(study, cluster(), work)
    spills = forecast_of(study, cluster({"object_store_gb": 20}), work)
    assert fits.problems == () and fits.memory.spilled == 0
    (problem,) = spills.problems
    assert "does not fit a node's object store of 20 GB" in problem and "raise" in problem
    assert spills.memory.spilled == pytest.approx(fits.memory.pool - 20e9)
    slower = {stage.name: stage.seconds or 0 for stage in spills.stages}
    assert slower["search"] > 1.2 * next(s.seconds or 0 for s in fits.stages if s.name == "search")


def test_what_fits_nowhere_is_never_done(study: Study, work: Work) -> None:
    none = forecast_of(study, cluster({"gpus": 0}), work)
    assert none.seconds is None and none.cost is None
    assert [stage.seconds is None for stage in none.stages] == [False, True, True, True]
    assert len(none.problems) == 2 and all("lower them" in text for text in none.problems)
    json.dumps(none.to_json(), allow_nan=False)
    small = forecast_of(study, cluster({"gpu_memory_gb": 8}), work)
    assert any("a training worker of" in text and "ZeRO" in text for text in small.problems)


def test_gradients_travel_as_their_stage_says(study: Study, work: Work) -> None:
    numel = work.model.parameters
    passes = 65_536 // 1024 // 2 // 8
    alone = cluster(train={"workers_per_run": 1})
    assert step_bytes(study, alone, numel) == 0
    for stage, sent in {1: 6, 2: 4 * passes + 2, 3: 8 * passes}.items():
        one = step_bytes(study, cluster(deepspeed=zero(stage)), numel)
        assert one == pytest.approx(sent * numel / 2)
    inside = forecast_of(study, cluster(), work).traffic
    assert inside.workers > 0 and inside.workers_between_nodes == 0
    across = forecast_of(study, cluster(train={"workers_per_run": 8}), work)
    assert across.places.nodes_per_run == 2
    assert 0 < across.traffic.workers_between_nodes < across.traffic.workers


def test_a_makespan_is_between_its_bounds() -> None:
    runs = [3.0, 5.0, 2.0, 7.0, 1.0, 4.0]
    for lanes in range(1, 9):
        found = makespan(runs, lanes)
        assert max(max(runs), sum(runs) / lanes) <= found <= sum(runs) / lanes + max(runs)
    assert makespan(runs, 1) == sum(runs) and makespan(runs, 6) == 7.0
    assert makespan([], 3) == 0.0 and makespan(runs, 10**15) == 7.0


def test_more_nodes_than_there_can_be_are_refused_and_many_cpus_take_no_time(
    study: Study, work: Work
) -> None:
    for key, most in (("count", 10**6), ("cpus", 10**4)):
        with pytest.raises(ValueError, match=rf"nodes.{key}\s.*less than or equal to {most}"):
            cluster({key: 1e12})
    here = Cluster(cpus=10**15).model_copy(update={"nodes": cluster({"cpus": None}).nodes})
    assert forecast_of(study, here, work).places.tasks == 2 * 10**15


def test_this_machine_is_measured_and_left_as_it_was() -> None:
    shape = ModelShape(parameters=10**6, multiplied=10**6, layers=2, width=128, vocabulary=2048)
    threads = torch.get_num_threads()
    rates = measure(
        Probe(
            shape=shape, length=64, sequences=4, precision="fp32", scoring_length=64,
            scoring_precision="fp32", batch_tokens=None, training_threads=1, scoring_threads=1,
            processes=2,
        )
    )  # fmt: skip
    assert torch.get_num_threads() == threads
    assert 0 < rates.cpu_share <= 1 and 0 < rates.crowding <= 1
    # Any CPU thread of this century, and no GPU: the units are right.
    assert 1e8 < rates.training < 1e13 and 1e8 < rates.scoring < 1e13
    assert 1e8 < rates.merging < 1e13


def test_flops_of_a_token() -> None:
    """Against PaLM's formula (arXiv 2204.02311, appendix B), written out."""
    shape = ModelShape(parameters=120, multiplied=100, layers=3, width=5, vocabulary=4)
    assert training_flops(shape, 7) == 6 * 100 + 12 * 3 * 5 * 7
    assert training_flops(shape, 7) == 3 * scoring_flops(shape, 7)


def test_a_looked_up_embedding_is_not_multiplied(study: Study) -> None:
    tied = model_shape(study)
    assert tied.multiplied == tied.parameters
    untied = study.model_copy(
        update={
            "model": study.model.model_copy(update={"overrides": {"tie_word_embeddings": False}})
        }
    )
    found = model_shape(untied)
    assert found.parameters - tied.parameters == found.vocabulary * found.width
    assert found.multiplied == tied.multiplied


def test_nodes_are_read_from_a_file_and_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text("nodes: {count: 125, network_gbps: 4e2}\n")
    assert load_cluster(file).nodes.count == 125 and load_cluster(file).nodes.network_gbps == 400
    with pytest.raises(Exception, match=r"nodes.count .*greater than or equal to 1"):
        load_cluster(file, ["nodes.count=0"])
