"""Several Ray nodes, each with mirrors of its own: nothing relies on a shared folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster as RayNodes

from ablate import engine
from ablate.resources import Cluster
from ablate.study import load_study
from tests.faults.disturbing import numbers
from tests.small_study import make_study
from tests.stores.test_store_runs import MORE_STEPS, in_the_store

pytestmark = [pytest.mark.multinode, pytest.mark.slow]


@pytest.fixture
def nodes(uri: str, tmp_path: Path) -> Iterator[RayNodes]:
    """A head without CPUs, where the driver is, and two nodes; `uri` sets the store's variables."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = RayNodes(initialize_head=True, head_node_args={"num_cpus": 0})
    for name in ("one", "two"):
        top = tmp_path / name
        cluster.add_node(num_cpus=1, env_vars={"ABLATE_MIRRORS": str(top)})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.parametrize("stage", [0, 2])
def test_two_workers_of_a_run_on_two_nodes(
    stage: int, nodes: RayNodes, uri: str, tmp_path: Path
) -> None:
    """Each run is on both nodes; their states, parts of one, are kept as they go."""
    study = make_study(tmp_path) / "study.yaml"
    train = {"workers_per_run": 2, "checkpoint_seconds": 0.3}
    deepspeed = {"zero_optimization": {"stage": stage}}
    settings = {"train": train, "deepspeed": deepspeed}
    where = Cluster.model_validate({**settings, "address": nodes.address})
    asked = load_study(study, (f"workspace={uri}", "search.merge.method=fisher", *MORE_STEPS))
    engine.run(asked, cluster=where)
    for name in ("one", "two"):
        mirrored = {p.name for p in (tmp_path / name).rglob("model.safetensors")}
        assert mirrored, name
    ray.shutdown()
    here = Cluster.model_validate({**settings, "cpus": 2})
    engine.run(load_study(study, ("search.merge.method=fisher", *MORE_STEPS)), cluster=here)
    assert in_the_store(uri) == numbers(tmp_path / "work")
