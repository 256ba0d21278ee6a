"""Wall time of each stage, from the work, the places and the rates."""

from __future__ import annotations

from ablate.planning.preparing import prepare_stage
from ablate.planning.searching import search_stage
from ablate.planning.setting import Setting, Stage
from ablate.planning.training import train_stage
from ablate.planning.validation import validate_stage


def stages_of(setting: Setting) -> tuple[Stage, ...]:
    """Return prepare, train, search, and validate where the study asks for it."""
    stages = [prepare_stage(setting), train_stage(setting), search_stage(setting)]
    if setting.work.validation_runs:
        stages.append(validate_stage(setting))
    return tuple(stages)
