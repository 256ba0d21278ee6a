"""Wall time of `validate`: trainings at once, then those of which each follows from the last."""

from __future__ import annotations

import math

from ablate.planning.searching import evaluation_seconds, scoring_seconds, scoring_start
from ablate.planning.setting import EVALUATOR_START, GROUP_START, Setting, Stage, makespan
from ablate.planning.training import run_seconds
from ablate.report.wording import count


def validate_stage(setting: Setting) -> Stage:
    """Return when the chosen mixtures are trained and scored, and members' logits averaged."""
    work, places, settings = setting.work, setting.places, setting.study.validate_
    if not places.lanes or not places.evaluators or settings is None:
        return Stage(name="validate", seconds=None, basis="no run or no evaluator fits")
    later = settings.replicates * work.validation_rounds
    seconds = _trained_and_scored(setting, work.validation_runs - later)
    seconds += work.validation_rounds * _trained_and_scored(setting, settings.replicates)
    one_by_one = f", {work.validation_rounds} rounds one after another"
    return Stage(
        name="validate",
        seconds=seconds + _logits(setting),
        basis=f"{work.validation_runs} runs of "
        f"{count(work.validation_tokens / work.validation_runs)} tokens"
        f"{one_by_one if work.validation_rounds else ''}, each scored, and its members' logits "
        "averaged",
    )


def _trained_and_scored(setting: Setting, runs: int) -> float:
    """Return the seconds of so many runs at once: their lanes and evaluators start anew."""
    work = setting.work
    each = run_seconds(setting, work.validation_tokens // work.validation_runs)
    training = GROUP_START / setting.hardware.start_share
    training += makespan([each] * runs, setting.places.lanes)
    return training + scoring_start(setting, runs + 1) + scoring_seconds(setting, runs)


def _logits(setting: Setting) -> float:
    """Return the seconds to average logits: a task for each domain runs every unit on it."""
    work = setting.work
    passes = work.validation_passes - work.validation_runs
    a_domain = passes * evaluation_seconds(setting) / work.domains
    turns = math.ceil(work.domains / setting.places.evaluators)
    return EVALUATOR_START / setting.hardware.start_share + turns * a_domain
