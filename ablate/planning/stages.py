"""Wall time of each stage, from the work, the places and the rates."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from ablate.planning.hardware import Hardware
from ablate.planning.machine import scoring_flops, training_flops
from ablate.planning.memory import POOL_BYTES, STATE_BYTES, Memory
from ablate.planning.places import Places
from ablate.planning.traffic import step_bytes
from ablate.planning.work import Work
from ablate.report.wording import count
from ablate.resources import Cluster
from ablate.study import Study

# Seconds of a free CPU that starts take, mostly imports; seen with ray 2.60 on two cores.
RAY_START = 6.0
TASK_START = 8.0
GROUP_START = 18.0
EVALUATOR_START = 12.0
MODEL_START = 2.0
STEP_OVERHEAD = 0.02
"""Seconds of an optimizer step that go to DeepSpeed's engine and to Python, on a CPU of that kind."""
TRIAL_CEREMONY = 0.045
"""Seconds of an evaluator between two trials: Tune and Ray (`make bench-tune`)."""
DRIVER_SECONDS = 0.015
"""Seconds of the driver per trial: it bounds how many evaluators can be kept busy."""
PREPARED_TOKENS = 60_000
"""Tokens a second of one CPU: read, clean, split, decontaminate, tokenize."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage's wall time in seconds, None where it does not fit; `basis` says what it rests on."""

    name: str
    seconds: float | None
    basis: str


@dataclass(frozen=True, kw_only=True)
class Setting:
    """All that the time of a stage follows from."""

    study: Study
    cluster: Cluster
    work: Work
    hardware: Hardware
    places: Places
    memory: Memory


def stages_of(setting: Setting) -> tuple[Stage, ...]:
    """Return prepare, train, search, and validate where the study asks for it."""
    stages = [_prepare(setting), _train(setting), _search(setting)]
    if setting.work.validation_runs:
        stages.append(_validate(setting))
    return tuple(stages)


def _prepare(setting: Setting) -> Stage:
    work, share = setting.work, setting.hardware.start_share
    tokens = sum(part.tokens for part in work.partitions) + work.seed_tokens
    tokens += work.evaluated_tokens
    tasks = setting.places.tasks
    seconds = RAY_START + TASK_START + tokens / (PREPARED_TOKENS * tasks)
    basis = f"start, then {PREPARED_TOKENS // 1000}k tokens/s by each of {tasks} tasks"
    return Stage(name="prepare", seconds=seconds / share, basis=basis)


def _train(setting: Setting) -> Stage:
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


def _search(setting: Setting) -> Stage:
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
        seconds=_scoring_start(setting) + wall,
        basis=f"{mixtures:,} mixtures on {places.evaluators} evaluator(s), {trial:.3g} s each: "
        f"merge {merge:.2g}, ceremony {TRIAL_CEREMONY:g}, rest evaluation; "
        f"{setting.hardware.basis['scoring']}",
    )


def _validate(setting: Setting) -> Stage:
    work, places = setting.work, setting.places
    if not places.lanes or not places.evaluators:
        return Stage(name="validate", seconds=None, basis="no run or no evaluator fits")
    runs = work.validation_runs
    each = run_seconds(setting, work.validation_tokens // runs)
    training = GROUP_START / setting.hardware.start_share + makespan([each] * runs, places.lanes)
    # Scored once as trained, and by every member for the average of their logits.
    passes = runs * (1 + work.members)
    scoring = passes * evaluation_seconds(setting) / places.evaluators
    return Stage(
        name="validate",
        seconds=training + _scoring_start(setting) + scoring,
        basis=f"{runs} runs of {count(work.validation_tokens / runs)} tokens, each scored, and its "
        "members' logits averaged",
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


def makespan(seconds: Sequence[float], lanes: int) -> float:
    """Return when the last of some runs ends, each begun in order by the first free lane."""
    ends = [0.0] * lanes
    for one in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + one)
    return max(ends)


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


def _scoring_start(setting: Setting) -> float:
    """Return the seconds until evaluators score: processes, and the pool on every node."""
    hardware = setting.hardware
    # Each node reads its part of the pool, and has the other parts from the others.
    part = setting.memory.pool / hardware.nodes
    others = (hardware.nodes - 1) * part / hardware.network
    return EVALUATOR_START / hardware.start_share + part / hardware.storage + others
