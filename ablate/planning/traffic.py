"""Bytes that move: between the workers of a run, between nodes, and to and from the workspace."""

from __future__ import annotations

from dataclasses import dataclass

from ablate.planning.memory import POOL_BYTES, STATE_BYTES, pool_bytes, zero_stage
from ablate.planning.places import Places
from ablate.planning.work import Work
from ablate.resources import Cluster
from ablate.study import Study
from ablate.train.recipe import check_batch, trained_recipe


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Bytes of the whole study, but `step`: what one worker sends in one optimizer step.

    `workers` is what workers of a run send each other, `workers_between_nodes` the part of it that
    leaves a node, `pool` what the object stores send each other so that every node has each unit.
    """

    step: float
    workers: float
    workers_between_nodes: float
    pool: float
    read: float
    written: float

    @property
    def network(self) -> float:
        """Return what nodes send each other, in bytes."""
        return self.workers_between_nodes + self.pool


def traffic_of(
    study: Study, cluster: Cluster, work: Work, places: Places, nodes: int, resume_points: int
) -> Traffic:
    """Return what moves; `resume_points` are the states that running trainings save."""
    whole = POOL_BYTES * work.model.parameters
    runs = work.runs + work.validation_runs
    workers = cluster.train.workers_per_run
    tokens = sum(work.unit_runs) + work.seed_tokens + work.validation_tokens
    step = step_bytes(study, cluster, work.model.parameters)
    sent = step * workers * (tokens / study.train.batch_tokens)
    state = sum(STATE_BYTES[study.train.precision]) * work.model.parameters
    return Traffic(
        step=step,
        workers=sent,
        workers_between_nodes=sent * places.nodes_per_run / workers
        if places.nodes_per_run > 1
        else 0.0,
        pool=pool_bytes(work) * (nodes - 1),
        read=whole * (runs * workers + places.evaluators + work.units + 1),
        written=whole * runs + state * resume_points,
    )


def step_bytes(study: Study, cluster: Cluster, parameters: int) -> float:
    """Return what one worker of a run sends in one optimizer step, in bytes.

    A ring over W workers sends (W - 1) / W of a buffer to scatter and as much to gather it. Stages
    0 to 2 sum gradients (float32) and share out new weights; from stage 2 on gradients travel with
    every micro batch, and at stage 3 the weights do, twice (arXiv 1910.02054, section 7).
    """
    batch = check_batch(trained_recipe(study, study.train.batch_tokens), cluster.train)
    stage = zero_stage(cluster.deepspeed, study.train.precision)
    weights = STATE_BYTES[study.train.precision][0] * parameters
    gradients = POOL_BYTES * parameters
    ring = (batch.workers - 1) / batch.workers
    if stage == 0:
        return ring * 2 * gradients
    if stage == 3:
        return ring * batch.passes * (2 * weights + gradients)
    return ring * (gradients * (batch.passes if stage == 2 else 1) + weights)
