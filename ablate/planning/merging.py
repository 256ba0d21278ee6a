"""Seconds of merges: what they read, what their methods compute, and what is gathered for them.

Factors are of CPU seconds, measured over 14 and 110 million parameters, four and eight members.
"""

from __future__ import annotations

from ablate.evaluate.gathering import SEQUENCES
from ablate.merge import Statistics
from ablate.planning.machine import scoring_flops, training_flops
from ablate.planning.memory import POOL_BYTES
from ablate.planning.places import gathering_places
from ablate.planning.setting import MODEL_START, TASK_START, Setting, makespan

READS = {"dare": 3.5, "fisher": 3.0, "ties": 8.0}
"""Linear merges of the same members that a method takes as long as; 1 for the others."""
PREPARED_READS = {"dare": 12.0, "fisher": 3.0, "ties": 12.0}
"""Reads of a member that it takes to prepare what does not depend on the mixture, once for each
evaluator."""
SOLVED_FLOPS, SOLVED_PREPARED_FLOPS = 8.0, 3.0
"""FLOPs of RegMean per parameter and width: its linear systems, and products of each member."""
SOLVING_SHARE = 0.05
"""Of a GPU's rate, in float32 and without its matrix units; not measured."""


def mean_merge_seconds(setting: Setting, members: float, used: int) -> float:
    """Return the seconds of a merge while `used` evaluators merge at once, the mean of all methods.

    Merges of one's own count as linear ones.
    """
    methods = setting.study.search.merge.methods
    return sum(_merge(setting, one.method, members, used) for one in methods) / len(methods)


def linear_seconds(setting: Setting, members: float, used: int) -> float:
    """Return the seconds of a linear merge while `used` evaluators merge at once."""
    size = POOL_BYTES * setting.work.model.parameters
    return reading_seconds(setting, members, used) + size / _memory_rate(setting, used)


def preparing_seconds(setting: Setting, used: int) -> float:
    """Return what an evaluator prepares of all units that does not depend on the mixture."""
    units, shape = setting.work.units, setting.work.model
    one = POOL_BYTES * shape.parameters / _memory_rate(setting, used)
    solved = SOLVED_PREPARED_FLOPS * shape.parameters * shape.width / _solving_rate(setting)
    return sum(
        units * (solved if each.method == "regmean" else one * PREPARED_READS.get(each.method, 0.0))
        for each in setting.study.search.merge.methods
    )


def statistics_seconds(setting: Setting) -> float:
    """Return the seconds until what methods ask of every unit is gathered, each by a task.

    A forward pass over the first SEQUENCES of a unit's text and as many FLOPs in Gram matrices, or
    a backward pass for each and a pass over the squares.
    """
    study, work, hardware = setting.study, setting.work, setting.hardware
    length = study.train.sequence_length
    tokens = min(SEQUENCES * length, study.corpus.unit_tokens)
    size = POOL_BYTES * work.model.parameters
    rate = hardware.scoring / (1 if setting.places.gpu_scoring else setting.cluster.trial.threads)
    each: dict[Statistics, float] = {
        "fisher": tokens * training_flops(work.model, length) / rate
        + tokens / length * 3 * size / _memory_rate(setting, setting.places.evaluators),
        "regmean": tokens * 2 * scoring_flops(work.model, length) / rate,
    }
    lanes = gathering_places(setting.cluster, hardware)
    start = TASK_START / hardware.start_share
    return sum(
        start + makespan([MODEL_START + each[kind]] * work.units, lanes) for kind in work.statistics
    )


def reading_seconds(setting: Setting, models: float, used: int) -> float:
    """Return the seconds to read so many models: from memory, or disk as far as the pool spills."""
    memory = setting.memory
    size = models * POOL_BYTES * setting.work.model.parameters
    spilled = size * memory.spilled / memory.pool
    disk = setting.hardware.storage / _beside(setting, used)
    return size / _memory_rate(setting, used) + spilled / disk


def _merge(setting: Setting, method: str, members: float, used: int) -> float:
    linear = linear_seconds(setting, members, used)
    if method == "regmean":
        shape = setting.work.model
        flops = SOLVED_FLOPS * shape.parameters * shape.width
        return linear + flops / _solving_rate(setting)
    return linear * READS.get(method, 1.0)


def _solving_rate(setting: Setting) -> float:
    return setting.hardware.scoring * (SOLVING_SHARE if setting.places.gpu_scoring else 1.0)


def _memory_rate(setting: Setting, used: int) -> float:
    """Return the bytes a second that one evaluator reads; on a GPU they pass through its link."""
    hardware = setting.hardware
    rate = hardware.merging / _beside(setting, used)
    if setting.places.gpu_scoring:
        return min(rate, hardware.gpu_link * setting.cluster.trial.gpus)
    return rate


def _beside(setting: Setting, used: int) -> int:
    """Return how many evaluators share a node's memory, where Ray puts those used on few nodes."""
    return max(1, min(used, setting.places.evaluators_per_node))
