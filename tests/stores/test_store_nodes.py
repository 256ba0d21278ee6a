"""Several Ray nodes, each with mirrors of its own: nothing relies on a shared folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as RayNodes
from tests.faults.test_nodes import Meanwhile

from ablate import engine
from ablate.resources import Cluster
from ablate.stores.objects import Objects
from ablate.study import load_study
from tests.faults.disturbing import numbers
from tests.small_study import make_study
from tests.stores.test_store_runs import MORE_STEPS, in_the_store

pytestmark = [pytest.mark.multinode, pytest.mark.slow]
SETTINGS = {"train": {"workers_per_run": 2, "checkpoint_seconds": 2, "max_failures": 20}}


@pytest.fixture
def nodes(uri: str) -> Iterator[RayNodes]:
    """A head without CPUs, where the driver is; `uri` sets the store's variables for all."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = RayNodes(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("stage", [0, 2])
def test_runs_over_two_nodes_of_which_one_is_lost(
    stage: int, nodes: RayNodes, uri: str, tmp_path: Path
) -> None:
    """Each run is on both nodes, its state in parts on both; the node that joins has an empty mirror."""

    def add(name: str) -> object:
        return nodes.add_node(num_cpus=1, env_vars={"ABLATE_MIRRORS": str(tmp_path / name)})

    def replace() -> None:
        nodes.remove_node(lost, allow_graceful=False)
        add("three")

    def is_saved() -> bool:
        names = Objects(uri).find("models")
        return any("/.resume-unit" in f"/{name}" and "resume.json" in name for name in names)

    add("one")
    lost = add("two")
    study = make_study(tmp_path) / "study.yaml"
    settings = {**SETTINGS, "deepspeed": {"zero_optimization": {"stage": stage}}}
    where = Cluster.model_validate({**settings, "address": nodes.address, "wait_minutes": 5})
    words = ("search.merge.method=fisher", *MORE_STEPS)
    when = Meanwhile(is_saved, replace)
    engine.run(load_study(study, (f"workspace={uri}", *words)), cluster=where)
    assert when.done
    for name in ("one", "two", "three"):
        assert list((tmp_path / name).rglob("model.safetensors")), name
    ray.shutdown()
    engine.run(load_study(study, words), cluster=Cluster.model_validate({**settings, "cpus": 2}))
    assert in_the_store(uri) == numbers(tmp_path / "work")
