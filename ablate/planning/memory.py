"""Memory of a node: the pool in its object store, a worker in training, an evaluator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ablate.evaluate.likelihood import default_batch_tokens
from ablate.evaluate.scorer import GRADIENT_BYTES, PREPARED_BYTES
from ablate.models.build import ModelShape
from ablate.planning.hardware import Hardware
from ablate.planning.places import Places
from ablate.planning.work import Work
from ablate.resources import Cluster
from ablate.study import Study
from ablate.train.deepspeed_config import check_stage
from ablate.train.recipe import Batch, check_batch, trained_recipe

POOL_BYTES = 4
"""The pool is held in float32."""
STATE_BYTES = {"bf16": (2, 6, 12), "fp32": (4, 4, 8)}
"""Bytes per parameter of weights, gradients and optimizer (ZeRO, arXiv 1910.02054, section 3.1):
in bf16 gradients are added up in float32 beside, and the optimizer has float32 weights too."""
ELEMENT_BYTES = {"bf16": 2, "fp32": 4}
ACTIVATIONS = 17
"""Numbers kept for the backward pass per token, layer and width, without recomputation and with
attention that keeps no scores (arXiv 2205.05198, equation 1: 34 bytes at 2 bytes a number)."""
FORWARD_ACTIVATIONS = 8
"""Numbers alive per token and width in a pass that keeps nothing: residual, norm, the wide layer."""
DEVICE_RESERVE = 1.5e9
"""Bytes of a GPU that CUDA's context, kernels' workspaces and merge buffers take."""
HEAD_TILE_BYTES = 256e6
"""At most, of an evaluator's logits: they are made in tiles."""

STATISTICS_PER_PARAMETER = {"fisher": 4.0, "regmean": 3.4}
"""Bytes of the object store for each unit: one float32 each, one Gram matrix per distinct input of
Llama's linear layers."""
PREPARED_PER_PARAMETER = {"regmean": 4.0, "dare": 1 / 8}
"""Bytes that an evaluator keeps of each member by merge method: Gram products, a bit of what is
dropped. Others keep next to nothing."""


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes. `worker` and `evaluator` are of one process on its device, `worker_host` what a worker
    offloads, `evaluator_host` what an evaluator keeps of members in its node's memory, whatever its
    device; `training_node` and `scoring_node` of a node's memory (not its GPUs) in all."""

    pool: float
    object_store: float
    spilled: float
    worker: float
    worker_host: float
    evaluator: float
    evaluator_host: float
    training_node: float
    scoring_node: float
    node: float
    gpu: float


def memory_of(
    study: Study, cluster: Cluster, work: Work, hardware: Hardware, places: Places
) -> Memory:
    """Return what a node must hold in each stage, beside what it has."""
    shape = work.model
    pool = pool_bytes(work)
    device, host = _worker(study, cluster, shape)
    evaluator = _evaluator(study, cluster, shape, work)
    whole = POOL_BYTES * shape.parameters  # while it is read, and while it is published
    on_gpu, scored_on_gpu = bool(cluster.train.gpus_per_worker), bool(cluster.trial.gpus)
    a_worker = host + (whole if on_gpu else device)
    kept = _prepared(study, work)
    an_evaluator = kept + (whole if scored_on_gpu else evaluator)
    return Memory(
        pool=pool,
        object_store=hardware.object_store,
        spilled=max(0.0, pool - hardware.object_store),
        worker=device + (DEVICE_RESERVE if on_gpu else 0),
        worker_host=host,
        evaluator=evaluator + (DEVICE_RESERVE if scored_on_gpu else 0),
        evaluator_host=kept,
        training_node=a_worker * places.workers_per_node,
        scoring_node=min(pool, hardware.object_store) + an_evaluator * places.evaluators_per_node,
        node=hardware.memory,
        gpu=hardware.gpu_memory,
    )


def pool_bytes(work: Work) -> float:
    """Return the bytes of the seed, all units and what merges ask of each in the object store."""
    each = POOL_BYTES + sum(STATISTICS_PER_PARAMETER[kind] for kind in work.statistics)
    return work.model.parameters * (POOL_BYTES + each * work.units)


def _worker(study: Study, cluster: Cluster, shape: ModelShape) -> tuple[float, float]:
    """Return a training worker's bytes on its device, and those it offloads to its node."""
    batch = check_batch(trained_recipe(study, study.train.batch_tokens), cluster.train)
    precision = study.train.precision
    stage = zero_stage(cluster.deepspeed, precision)
    weights, gradients, optimizer = (size * shape.parameters for size in STATE_BYTES[precision])
    if study.train.average is not None:
        optimizer += POOL_BYTES * shape.parameters
    shares = [batch.workers if stage >= least else 1 for least in (3, 2, 1)]
    parts = {
        "weights": weights / shares[0],
        "gradients": gradients / shares[1],
        "optimizer": optimizer / shares[2],
    }
    zero = cluster.deepspeed.get("zero_optimization", {})
    offloaded = {"offload_param": "weights", "offload_optimizer": "optimizer"}
    host = sum(parts.pop(part) for key, part in offloaded.items() if _is_offloaded(zero, key))
    return sum(parts.values()) + _activations(study, shape, batch), host


def zero_stage(deepspeed: Mapping[str, Any], precision: str) -> int:
    """Return the stage that runs: bf16 at stage 0 runs as stage 1."""
    return max(check_stage(deepspeed), int(precision == "bf16"))


def _is_offloaded(zero: Mapping[str, Any], key: str) -> bool:
    return bool(zero.get(key, {}).get("device", "none") != "none")


def _activations(study: Study, shape: ModelShape, batch: Batch) -> float:
    size = ELEMENT_BYTES[study.train.precision]
    tokens = batch.sequences * study.train.sequence_length
    layers = ACTIVATIONS * size * shape.width * shape.layers
    logits = (size + 3 * 4) * shape.vocabulary  # as they come; float32, its softmax, its gradient
    return float(tokens * (layers + logits))


def _evaluator(study: Study, cluster: Cluster, shape: ModelShape, work: Work) -> float:
    size = ELEMENT_BYTES[study.evaluate.precision]
    on_gpu = bool(cluster.trial.gpus)
    tokens = cluster.trial.batch_tokens or default_batch_tokens(on_gpu)
    alive = FORWARD_ACTIVATIONS * size * shape.width * tokens
    model = size * shape.parameters
    gradients = max(model, min(GRADIENT_BYTES, work.sloped_domains * model)) if work.sloped else 0
    return float(model + gradients + alive + HEAD_TILE_BYTES * on_gpu)


def _prepared(study: Study, work: Work) -> float:
    """Return the bytes that an evaluator keeps of what merges prepare, at most its limit."""
    methods = {one.method for one in study.search.merge.methods}
    each = sum(PREPARED_PER_PARAMETER.get(method, 0.0) for method in methods)
    return min(float(PREPARED_BYTES), each * work.model.parameters * work.units)


def problems_of(memory: Memory, cluster: Cluster, places: Places) -> list[str]:
    """Return what does not fit, each in one line with a remedy."""
    found = []
    if memory.spilled:
        found.append(
            f"the pool of {_gb(memory.pool)} does not fit a node's object store of "
            f"{_gb(memory.object_store)}: {_gb(memory.spilled)} spill to disk, and merges read "
            "them from there; raise object_store_gb, or have fewer units (examples/at_scale)"
        )
    if places.gpu_training and memory.worker > memory.gpu:
        found.append(
            f"a training worker of {_gb(memory.worker)} does not fit a GPU of {_gb(memory.gpu)}; "
            "raise the ZeRO stage or train.workers_per_run, offload, or lower "
            "train.micro_batch_sequences"
        )
    share = memory.gpu * min(1.0, cluster.trial.gpus)
    if places.gpu_scoring and memory.evaluator > share:
        found.append(
            f"an evaluator of {_gb(memory.evaluator)} does not fit its share of a GPU, "
            f"{_gb(share)}; raise trial.gpus, or lower trial.batch_tokens"
        )
    for stage, needed in (("training", memory.training_node), ("scoring", memory.scoring_node)):
        if needed > memory.node:
            found.append(
                f"{stage} needs {_gb(needed)} of a node's {_gb(memory.node)}; reserve more CPUs "
                "per process, so that fewer of them share a node"
            )
    return found


def _gb(size: float) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 1e11 else f"{size / 1e9:.3g} GB"
