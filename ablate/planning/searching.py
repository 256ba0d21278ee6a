"""Wall time of `search`: evaluators score the units, then what an algorithm proposes."""

from __future__ import annotations

import math

from ablate.evaluate.scorer import GRADIENT_BYTES
from ablate.planning.machine import scoring_flops, training_flops
from ablate.planning.memory import POOL_BYTES
from ablate.planning.merging import (
    linear_seconds,
    mean_merge_seconds,
    preparing_seconds,
    reading_seconds,
    statistics_seconds,
)
from ablate.planning.proposals import ensemble_seconds, proposal_seconds, ranking_seconds
from ablate.planning.setting import EVALUATOR_START, Setting, Stage, makespan
from ablate.search.candidates import ENSEMBLE

TRIAL_CEREMONY = 0.045
"""Seconds of an evaluator between two trials: Tune and Ray (`make bench-tune`)."""
DRIVER_SECONDS = 0.015
"""Seconds of the driver per trial: it bounds how many evaluators can be kept busy."""


def search_stage(setting: Setting) -> Stage:
    """Return when the units and all mixtures are scored."""
    work = setting.work
    if not setting.places.evaluators:
        return Stage(name="search", seconds=None, basis="no evaluator fits")
    # No mixture is proposed before every unit is scored.
    begin = scoring_start(setting, work.units + 1) + scoring_seconds(setting, work.units + 1)
    begin += ranking_seconds(work) / setting.hardware.start_share
    gathering = statistics_seconds(setting)
    if setting.study.search.merge.method == ENSEMBLE:
        seconds, basis = _ensembles(setting)
    else:
        seconds, basis = _merges(setting)
    if work.statistics:
        basis += f"; {', '.join(work.statistics)} of every unit {gathering:.2g} s"
    return Stage(
        name="search",
        seconds=begin + gathering + seconds,
        basis=f"{basis}; {setting.hardware.basis['scoring']}",
    )


def _merges(setting: Setting) -> tuple[float, str]:
    """Return the seconds of all mixtures after the units, and what they rest on.

    An algorithm has so many mixtures open at once, and each is scored by every merge. A proposal
    that waits for a value comes after that value's trial and the algorithm's own time.
    """
    work, evaluators = setting.work, setting.places.evaluators
    merges = len(setting.study.search.merge.methods)
    used = min(evaluators, work.open_at_once * merges)
    merge = mean_merge_seconds(setting, work.members, used)
    slopes = slope_seconds(setting, used) if work.sloped else 0.0
    trial = merge + slopes + evaluation_seconds(setting) + TRIAL_CEREMONY
    proposal = proposal_seconds(work) / setting.hardware.start_share
    waiting = merges * trial / used + proposal / work.open_at_once
    driver = merges * DRIVER_SECONDS + proposal
    shown = f"{used:,}" if used == evaluators else f"{used:,} of {evaluators:,}"
    basis = (
        f"{work.trials * merges:,} mixtures on {shown} evaluator(s), {trial:.3g} s each: merge "
        f"{merge:.2g}, {f'slopes {slopes:.2g}, ' if slopes else ''}ceremony {TRIAL_CEREMONY:g}, "
        "rest evaluation"
    )
    if used < evaluators:
        basis += f"; {work.algorithm} has {work.open_at_once:,} open at once"
    if proposal and driver > merges * trial / used:
        basis += f"; {work.algorithm} takes the driver {proposal:.2g} s for each"
    return preparing_seconds(setting, used) + work.trials * max(waiting, driver), basis


def _ensembles(setting: Setting) -> tuple[float, str]:
    """Return the seconds of all ensembles after the units, and what they rest on."""
    work, share = setting.work, setting.hardware.start_share
    each = (ensemble_seconds(work) + proposal_seconds(work)) / share + DRIVER_SECONDS
    return work.trials * each, (
        f"the seed and {work.units:,} units on {setting.places.evaluators:,} evaluator(s), then "
        f"{work.trials:,} mixtures of their token probabilities in the driver, {each:.2g} s each"
    )


def scoring_seconds(setting: Setting, models: int) -> float:
    """Return the seconds until so many single models are scored, none of them proposed."""
    evaluators = setting.places.evaluators
    each = linear_seconds(setting, 1, min(models, evaluators)) + evaluation_seconds(setting)
    return max(makespan([each + TRIAL_CEREMONY] * models, evaluators), models * DRIVER_SECONDS)


def evaluation_seconds(setting: Setting) -> float:
    """Return the seconds of one evaluator to score the texts of the study with one model."""
    flops = scoring_flops(setting.work.model, setting.study.evaluation_length)
    return setting.work.evaluated_tokens * flops / setting.hardware.scoring


def slope_seconds(setting: Setting, used: int) -> float:
    """Return the seconds of one evaluator for the slope of every unit's weight.

    A forward and a backward pass over the objective's domains; then every unit is read, once for
    all domains whose gradients are held together.
    """
    work, study = setting.work, setting.study
    flops = training_flops(work.model, study.evaluation_length)
    tokens = work.sloped_domains * study.evaluate.tokens_per_domain
    together = max(1, GRADIENT_BYTES // (POOL_BYTES * work.model.parameters))
    read = math.ceil(work.sloped_domains / together) * (work.units + 1)
    return tokens * flops / setting.hardware.scoring + reading_seconds(setting, read, used)


def scoring_start(setting: Setting, models: int) -> float:
    """Return the seconds until evaluators score: processes, and so many models on every node."""
    hardware = setting.hardware
    # Each node reads its part of the models, and has the other parts from the others.
    part = models * POOL_BYTES * setting.work.model.parameters / hardware.nodes
    others = (hardware.nodes - 1) * part / hardware.network
    return EVALUATOR_START / hardware.start_share + part / hardware.storage + others
