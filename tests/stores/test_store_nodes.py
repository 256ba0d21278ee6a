"""Several Ray nodes, each with mirrors of its own: nothing relies on a shared folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as RayNodes

from ablate.stores.objects import Objects
from tests.faults.disturbing import Run, numbers
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

    def is_saved() -> bool:
        names = Objects(uri).find("models")
        return any("/.resume-unit" in f"/{name}" and "resume.json" in name for name in names)

    add("one")
    lost = add("two")
    root = make_study(tmp_path)
    settings = {**SETTINGS, "deepspeed": {"zero_optimization": {"stage": stage}}}
    where = {**settings, "address": nodes.address, "wait_minutes": 5}
    words = ("search.merge.method=fisher", *MORE_STEPS)
    run = Run(root, overrides=(f"workspace={uri}", *words), cluster=json.dumps(where))
    run.wait_until(is_saved)
    nodes.remove_node(lost, allow_graceful=False)
    add("three")
    run.finish()
    for name in ("one", "two", "three"):
        assert list((tmp_path / name).rglob("model.safetensors")), name
    calm = Run(root, overrides=words, cluster=json.dumps({**settings, "cpus": 2}))
    calm.finish()
    assert in_the_store(uri) == numbers(calm.work)
