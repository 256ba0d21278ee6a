"""Wall time of `train`: runs in lanes, each a worker group that trains one model after another."""

from __future__ import annotations

from ablate.planning.machine import training_flops
from ablate.planning.memory import POOL_BYTES, STATE_BYTES
from ablate.planning.setting import GROUP_START, MODEL_START, Setting, Stage, makespan
from ablate.planning.traffic import step_bytes
from ablate.report.wording import count

STEP_OVERHEAD = 0.02
"""Seconds of an optimizer step that go to DeepSpeed's engine and Python, on a CPU of that kind."""


def train_stage(setting: Setting) -> Stage:
    """Return when the seed and all units are trained."""
    work, lanes = setting.work, setting.places.lanes
    if not lanes:
        return Stage(name="train", seconds=None, basis="no run fits")
    seed = run_seconds(setting, work.seed_tokens) if work.seed_tokens else 0.0
    units = makespan([run_seconds(setting, tokens) for tokens in work.unit_runs], lanes)
    rate = 1 / token_seconds(setting)
    return Stage(
        name="train",
        seconds=GROUP_START / setting.hardware.start_share + seed + units,
        basis=f"the seed, then {len(work.unit_runs)} runs in {min(lanes, len(work.unit_runs))} "
        f"lane(s), {count(rate)} tokens/s each; {setting.hardware.basis['training']}",
    )


def token_seconds(setting: Setting) -> float:
    """Return the seconds of a run per token: compute, and gradients where they leave a node."""
    study, cluster, hardware = setting.study, setting.cluster, setting.hardware
    train = cluster.train
    flops = training_flops(setting.work.model, study.train.sequence_length)
    compute = flops / (hardware.training * train.workers_per_run)
    overhead = 0.0 if setting.places.gpu_training else STEP_OVERHEAD / hardware.start_share
    sent = step_bytes(study, cluster, setting.work.model.parameters)
    network = sent / hardware.network if setting.places.nodes_per_run > 1 else 0.0
    return compute + (overhead + network) / study.train.batch_tokens


def run_seconds(setting: Setting, tokens: int) -> float:
    """Return the seconds of one training run in a worker group that runs already."""
    hardware, whole = setting.hardware, POOL_BYTES * setting.work.model.parameters
    training = tokens * token_seconds(setting)
    state = sum(STATE_BYTES[setting.study.train.precision]) * setting.work.model.parameters
    saved = resume_points(setting, training) * state / hardware.storage
    files = 2 * whole / hardware.storage  # the start is read, the result written
    return MODEL_START / hardware.start_share + files + training + saved


def resume_points(setting: Setting, seconds: float) -> int:
    """Return how many states a run of so many seconds saves on its way."""
    return int(seconds / setting.cluster.train.checkpoint_seconds)
