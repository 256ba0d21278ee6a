"""How many processes of each kind the nodes hold at once."""

from __future__ import annotations

from dataclasses import dataclass

from ablate.planning.hardware import Hardware
from ablate.resources import Cluster


@dataclass(frozen=True, kw_only=True)
class Places:
    """`lanes` are training runs at once, 0 where no run fits; `nodes_per_run` what one spans."""

    workers_per_node: int
    lanes: int
    nodes_per_run: int
    evaluators_per_node: int
    evaluators: int
    tasks: int
    gpu_training: bool
    gpu_scoring: bool


def places_of(cluster: Cluster, hardware: Hardware) -> Places:
    """Return what fits on the nodes."""
    train, trial, nodes = cluster.train, cluster.trial, hardware.nodes
    workers = _per_node(hardware, train.cpus_per_worker, train.gpus_per_worker)
    lanes = nodes * workers // train.workers_per_run
    lanes = min(lanes, train.concurrent_runs or lanes)
    scoring = _per_node(hardware, trial.cpus, trial.gpus)
    evaluators = min(nodes * scoring, trial.concurrent or nodes * scoring)
    return Places(
        workers_per_node=min(workers, -(-lanes * train.workers_per_run // nodes)),
        lanes=lanes,
        nodes_per_run=-(-train.workers_per_run // workers) if workers else 0,
        evaluators_per_node=min(scoring, -(-evaluators // nodes)),
        evaluators=evaluators,
        tasks=nodes * _per_node(hardware, cluster.prepare.cpus, 0),
        gpu_training=train.gpus_per_worker > 0,
        gpu_scoring=trial.gpus > 0,
    )


def gathering_places(cluster: Cluster, hardware: Hardware) -> int:
    """Return how many tasks gather statistics at once: one CPU each, and whole GPUs or none."""
    return max(1, hardware.nodes * _per_node(hardware, 1, cluster.trial.whole_gpus))


def _per_node(hardware: Hardware, cpus: float, gpus: float) -> int:
    fits = hardware.cpus / cpus
    return int((min(fits, hardware.gpus / gpus) if gpus else fits) + 1e-9)


def problems_of_places(places: Places, cluster: Cluster) -> list[str]:
    """Return what no node holds, each in one line with a remedy."""
    train, trial = cluster.train, cluster.trial
    found = []
    if not places.lanes:
        found.append(
            f"the nodes hold no training run of {train.workers_per_run} workers with "
            f"{train.cpus_per_worker:g} CPUs and {train.gpus_per_worker:g} GPUs each; lower them, "
            "or say what a node is under nodes"
        )
    if not places.evaluators:
        found.append(
            f"no node holds an evaluator of {trial.cpus:g} CPUs and {trial.gpus:g} GPUs; lower "
            "them, or say what a node is under nodes"
        )
    return found
