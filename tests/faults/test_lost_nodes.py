"""Nodes that are lost and nodes that join, with several Ray nodes on this machine."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster as RayNodes

from ablate import engine
from ablate.cluster.pool import Store, store_pool
from ablate.cluster.session import session
from ablate.errors import StudyError
from ablate.resources import Cluster
from ablate.study import load_study
from bench.tune import make_pool
from tests.faults.disturbing import LONGER, Run, injections, lines, numbers
from tests.faults.fake_nodes import FakeNodes

pytestmark = [pytest.mark.multinode, pytest.mark.faults]
WHERE = {
    "train": {"checkpoint_seconds": 0.3, "max_failures": 20},
    "trial": {"retries": 20},
    "wait_minutes": 5,
}


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    """A head without CPUs, where the driver is, and nodes that tests add."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    cluster = RayNodes(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def start(place: Path, nodes: RayNodes) -> Run:
    """Start a driver that joins the nodes."""
    where = json.dumps({**WHERE, "address": nodes.address})
    return Run(place, cluster=where)


def test_a_node_lost_in_training(place: Path, nodes: RayNodes, calm: dict[str, Any]) -> None:
    nodes.add_node(num_cpus=1)
    lost = nodes.add_node(num_cpus=1)
    run = start(place, nodes)
    run.wait_until(lambda: lines(run.work / "logs/train-unit*") >= 30)
    nodes.remove_node(lost, allow_graceful=False)
    injections["node lost in training"] += 1
    run.finish()
    assert numbers(run.work) == calm


def test_all_nodes_lost_in_training_and_another_joins(
    place: Path, nodes: RayNodes, calm: dict[str, Any]
) -> None:
    lost = nodes.add_node(num_cpus=1)
    run = start(place, nodes)
    run.wait_until(lambda: lines(run.work / "logs/train-unit*") >= 10)
    nodes.remove_node(lost, allow_graceful=False)
    injections["all nodes lost in training"] += 1
    run.wait_until(lambda: "no training run fits; waiting" in run.said)
    nodes.add_node(num_cpus=2)
    run.finish()
    assert numbers(run.work) == calm


def unsearched(calm: Path, place: Path) -> Path:
    """Put the trained workspace in place, nothing scored yet; return where its journal will be."""
    journal = shutil.copytree(calm, place / "work") / "trials.jsonl"
    journal.unlink()
    return journal


@pytest.mark.parametrize("rows", [1, 4, 7])
def test_a_node_lost_in_search_with_the_only_copy_of_units(
    rows: int, place: Path, nodes: RayNodes, undisturbed: Callable[..., Path]
) -> None:
    """The pool is loaded while there is one node; it goes when another has joined."""
    calm = undisturbed(LONGER)
    journal = unsearched(calm, place)
    only = nodes.add_node(num_cpus=2)
    run = start(place, nodes)
    run.wait_until(lambda: lines(journal) >= rows)
    nodes.remove_node(only, allow_graceful=False)
    nodes.add_node(num_cpus=2)
    injections["node lost with the only copy of units"] += 1
    run.finish()
    assert numbers(run.work) == numbers(calm)


def test_units_lost_with_their_node_are_read_again_while_evaluators_hold_every_cpu(
    place: Path, nodes: RayNodes, undisturbed: Callable[..., Path]
) -> None:
    """The pool is on a node that goes; on the other an evaluator has reserved the only CPU."""
    calm = undisturbed(LONGER)
    journal = unsearched(calm, place)
    lost = nodes.add_node(num_cpus=1)
    run = start(place, nodes)
    run.wait_until(lambda: "pool       5/5" in run.said)
    nodes.add_node(num_cpus=1)
    run.wait_until(lambda: lines(journal) >= 1)
    nodes.remove_node(lost, allow_graceful=False)
    injections["node lost while every CPU was reserved"] += 1
    assert run.code(seconds=180) == 0, run.said[-3000:]
    assert numbers(run.work) == numbers(calm)


def store_bytes() -> dict[str, int]:
    """Return the bytes in each node's object store that holds anything large."""
    found = {}
    for node in ray.nodes():
        if node["Alive"]:
            stats = node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
            found[node["NodeID"]] = stats.store_stats.object_store_bytes_used
    return {name: held for name, held in found.items() if held > 1_000_000}


@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
class Reader:
    """A process that maps every member, as an evaluator does."""

    def read(self, store: Store, members: list[tuple[str, int]]) -> tuple[str, float]:
        self.vectors = store.vectors(members)
        node: str = ray.get_runtime_context().get_node_id()
        return node, float(sum(vector.sum(dtype="f8") for vector in self.vectors))


def test_each_node_fetches_a_unit_once(tmp_path: Path, nodes: RayNodes) -> None:
    for _ in range(2):
        nodes.add_node(num_cpus=2)
    pool, layout = make_pool(tmp_path, hidden=256, partitions=4)
    with session(Cluster(address=nodes.address)):
        store = store_pool(pool, layout, tmp_path, set(pool.by_member))
        members = list(store.references)
        readers = [Reader.remote() for _ in range(4)]  # type: ignore[attr-defined]
        heard = ray.get([reader.read.remote(store, members) for reader in readers])
        held = store_bytes()
    pool_bytes = 4 * layout.numel * len(members)
    assert len({node for node, _ in heard}) == 2 and len({total for _, total in heard}) == 1
    assert {node for node, _ in heard} == set(held)
    assert all(0.99 < found / pool_bytes < 1.05 for found in held.values()), (held, pool_bytes)


def test_work_that_no_node_holds_is_refused_at_once(place: Path, nodes: RayNodes) -> None:
    nodes.add_node(num_cpus=1)
    study = load_study(place / "study.yaml", LONGER)
    base = {"address": nodes.address}
    for section, told in (
        ({"prepare": {"cpus": 2}}, "a task of prepare.cpus of 2 CPUs, got room for 0"),
        ({"train": {"cpus_per_worker": 2}}, "workers_per_run 1 workers of 2 CPUs"),
        ({"train": {"workers_per_run": 2}}, "got room for 1"),
        ({"trial": {"cpus": 2}}, "an evaluator of 2 CPUs, got room for 0"),
    ):
        where = Cluster.model_validate({**base, **section})
        with pytest.raises(StudyError) as refused:
            engine.run(study, cluster=where)
        assert told in str(refused.value), refused.value
        injections["fewer CPUs than asked"] += 1


def test_more_runs_than_nodes_are_trained_in_turn(
    place: Path, nodes: RayNodes, calm: dict[str, Any]
) -> None:
    """Five runs at once are asked for, three CPUs are there: nothing waits for ever."""
    for _ in range(3):
        nodes.add_node(num_cpus=1)
    where = Cluster.model_validate(
        {**WHERE, "address": nodes.address, "train": {"concurrent_runs": 5}}
    )
    engine.run(load_study(place / "study.yaml", LONGER), cluster=where)
    injections["fewer CPUs than asked"] += 1
    assert numbers(place / "work") == calm


def test_an_autoscaling_cluster_is_asked_for_nodes_and_waited_for(
    place: Path,
    calm: dict[str, Any],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    os.environ["RAY_AUTH_MODE"] = "disabled"
    # Ray calls itself by name to start its head, and to stop every Ray of this machine first.
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    cluster = FakeNodes(cpus=1, count=2, store_bytes=200_000_000)
    cluster.start()
    try:
        where = Cluster.model_validate(
            {**WHERE, "address": "auto", "train": {"concurrent_runs": 2}}
        )
        engine.run(load_study(place / "study.yaml", LONGER), cluster=where)
    finally:
        ray.shutdown()
        cluster.shutdown()
    injections["a cluster that starts without nodes"] += 1
    assert "waiting for nodes" in capfd.readouterr().err
    assert numbers(place / "work") == calm
