"""What the nodes are: as the cluster file says, and as this machine is where it does not."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ablate.models.build import ModelShape
from ablate.planning.machine import Probe, Rates, measure
from ablate.resources import Cluster
from ablate.study import Study
from ablate.train.recipe import MICRO_BATCH_LIMIT

RAY_STORE_SHARE, RAY_STORE_MOST = 0.3, 200e9
"""Ray's own choice of object store: this share of memory, so many bytes at most."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """Nodes, all alike; bytes, bytes/s and FLOP/s.

    `training` is the rate of one worker, `scoring` that of one evaluator, `merging` that of all
    evaluators of a node together. `start_share` is what a starting process gets of a CPU. `basis`
    says in words what the rates rest on.
    """

    nodes: int
    cpus: int
    gpus: int
    memory: float
    gpu_memory: float
    object_store: float
    training: float
    scoring: float
    merging: float
    gpu_link: float
    network: float
    storage: float
    start_share: float
    price_per_hour: float | None
    basis: Mapping[str, str]


def hardware_of(study: Study, cluster: Cluster, shape: ModelShape) -> Hardware:
    """Return the nodes of a cluster; what its file does not say is counted or measured here."""
    given, own = cluster.nodes, cluster.address is None
    cpus = given.cpus or (cluster.cpus if own else None) or os.cpu_count() or 1
    gpus = given.gpus
    if gpus is None:
        gpus = cluster.gpus if own and cluster.gpus is not None else torch.cuda.device_count()
    memory = given.memory_gb * 1e9 if given.memory_gb else _memory_here()
    store = given.object_store_gb or (cluster.object_store_gb if own else None)
    rates = _measured(study, cluster, shape, cpus)
    training, training_basis = _rate(cluster, cluster.train.gpus_per_worker, rates, training=True)
    scoring, scoring_basis = _rate(cluster, cluster.trial.gpus, rates, training=False)
    merging = given.memory_gb_per_second
    return Hardware(
        nodes=given.count,
        cpus=cpus,
        gpus=gpus,
        memory=memory,
        gpu_memory=given.gpu_memory_gb * 1e9,
        object_store=store * 1e9 if store else min(RAY_STORE_SHARE * memory, RAY_STORE_MOST),
        training=training,
        scoring=scoring,
        merging=merging * 1e9 if merging else rates.merging if rates else 0.0,
        gpu_link=given.gpu_link_gb_per_second * 1e9,
        network=given.network_gbps * 1e9 / 8,
        storage=given.storage_gb_per_second * 1e9,
        start_share=rates.cpu_share if rates and given.cpu_gflops is None else 1.0,
        price_per_hour=given.price_per_hour,
        basis={
            "training": training_basis,
            "scoring": scoring_basis,
            "merging": "nodes.memory_gb_per_second" if merging else "measured here",
        },
    )


def _memory_here() -> float:
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))


def _measured(study: Study, cluster: Cluster, shape: ModelShape, cpus: int) -> Rates | None:
    """Return this machine's rates where the cluster file leaves one of them open."""
    given, train, trial = cluster.nodes, cluster.train, cluster.trial
    on_cpu = not (train.gpus_per_worker and trial.gpus)
    if given.memory_gb_per_second and (given.cpu_gflops or not on_cpu):
        return None
    here = os.cpu_count() or 1
    return measure(
        Probe(
            shape=shape,
            length=study.train.sequence_length,
            sequences=train.micro_batch_sequences or MICRO_BATCH_LIMIT,
            precision=study.train.precision,
            scoring_length=study.evaluation_length,
            scoring_precision=study.evaluate.precision,
            batch_tokens=trial.batch_tokens,
            training_threads=min(train.threads_per_worker, here),
            scoring_threads=min(trial.threads, here),
            processes=min(cpus, here),
        )
    )


def _rate(
    cluster: Cluster, gpus: float, rates: Rates | None, *, training: bool
) -> tuple[float, str]:
    """Return the FLOP/s of a worker or an evaluator, and what it rests on."""
    given = cluster.nodes
    if gpus:
        return gpus * given.gpu_tflops * 1e12, f"nodes.gpu_tflops {given.gpu_tflops:g}"
    threads = cluster.train.threads_per_worker if training else cluster.trial.threads
    if given.cpu_gflops:
        return threads * given.cpu_gflops * 1e9, f"nodes.cpu_gflops {given.cpu_gflops:g}"
    assert rates is not None
    rate = (rates.training if training else rates.scoring) * rates.cpu_share
    return rate, f"measured here, with {rates.cpu_share:.0%} of a CPU free"
