"""Wall time of `search`: evaluators that score one mixture after another."""

from __future__ import annotations

from ablate.planning.machine import scoring_flops
from ablate.planning.memory import POOL_BYTES
from ablate.planning.setting import EVALUATOR_START, Setting, Stage

TRIAL_CEREMONY = 0.045
"""Seconds of an evaluator between two trials: Tune and Ray (`make bench-tune`)."""
DRIVER_SECONDS = 0.015
"""Seconds of the driver per trial: it bounds how many evaluators can be kept busy."""


def search_stage(setting: Setting) -> Stage:
    """Return when the units and all mixtures are scored."""
    work, places = setting.work, setting.places
    if not places.evaluators:
        return Stage(name="search", seconds=None, basis="no evaluator fits")
    merges = 1 + len(setting.study.search.merge.alternatives)
    mixtures = work.trials * merges
    trial = trial_seconds(setting, work.members)
    busy = mixtures * trial + (work.scored - work.trials) * trial_seconds(setting, 1)
    wall = max(busy / places.evaluators, work.scored * DRIVER_SECONDS)
    merge = merge_seconds(setting, work.members)
    return Stage(
        name="search",
        seconds=scoring_start(setting) + wall,
        basis=f"{mixtures:,} mixtures on {places.evaluators} evaluator(s), {trial:.3g} s each: "
        f"merge {merge:.2g}, ceremony {TRIAL_CEREMONY:g}, rest evaluation; "
        f"{setting.hardware.basis['scoring']}",
    )


def trial_seconds(setting: Setting, members: float) -> float:
    """Return the seconds of one evaluator for one mixture of so many units."""
    return merge_seconds(setting, members) + evaluation_seconds(setting) + TRIAL_CEREMONY


def evaluation_seconds(setting: Setting) -> float:
    """Return the seconds of one evaluator to score the texts of the study with one model."""
    flops = scoring_flops(setting.work.model, setting.study.evaluation_length)
    return setting.work.evaluated_tokens * flops / setting.hardware.scoring


def merge_seconds(setting: Setting, members: float) -> float:
    """Return the seconds of a linear merge while every evaluator of the node merges too.

    Members are read from memory, or from disk as far as the pool spills; on a GPU they pass through
    its link.
    """
    hardware, memory, places = setting.hardware, setting.memory, setting.places
    size = POOL_BYTES * setting.work.model.parameters
    beside = max(1, places.evaluators_per_node)
    rate = hardware.merging / beside
    if places.gpu_scoring:
        rate = min(rate, hardware.gpu_link * setting.cluster.trial.gpus)
    spilled = members * size * memory.spilled / memory.pool
    return (members + 1) * size / rate + spilled / (hardware.storage / beside)


def scoring_start(setting: Setting) -> float:
    """Return the seconds until evaluators score: processes, and the pool on every node."""
    hardware = setting.hardware
    # Each node reads its part of the pool, and has the other parts from the others.
    part = setting.memory.pool / hardware.nodes
    others = (hardware.nodes - 1) * part / hardware.network
    return EVALUATOR_START / hardware.start_share + part / hardware.storage + others
