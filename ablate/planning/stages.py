"""Wall time of each stage, from the work, the places and the rates."""

from __future__ import annotations

from ablate.planning.preparing import prepare_stage
from ablate.planning.searching import evaluation_seconds, scoring_start, search_stage
from ablate.planning.setting import GROUP_START, Setting, Stage, makespan
from ablate.planning.training import run_seconds, train_stage
from ablate.report.wording import count


def stages_of(setting: Setting) -> tuple[Stage, ...]:
    """Return prepare, train, search, and validate where the study asks for it."""
    stages = [prepare_stage(setting), train_stage(setting), search_stage(setting)]
    if setting.work.validation_runs:
        stages.append(_validate(setting))
    return tuple(stages)


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
        seconds=training + scoring_start(setting) + scoring,
        basis=f"{runs} runs of {count(work.validation_tokens / runs)} tokens, each scored, and its "
        "members' logits averaged",
    )
