"""Wall time of `prepare`."""

from __future__ import annotations

from ablate.planning.setting import RAY_START, TASK_START, Setting, Stage

PREPARED_TOKENS = 60_000
"""Tokens a second of one CPU: read, clean, split, decontaminate, tokenize."""


def prepare_stage(setting: Setting) -> Stage:
    """Return when the corpus is prepared."""
    work, share = setting.work, setting.hardware.start_share
    tokens = sum(part.tokens for part in work.partitions) + work.seed_tokens
    tokens += work.evaluated_tokens
    tasks = setting.places.tasks
    seconds = RAY_START + TASK_START + tokens / (PREPARED_TOKENS * tasks)
    basis = f"start, then {PREPARED_TOKENS // 1000}k tokens/s by each of {tasks} tasks"
    return Stage(name="prepare", seconds=seconds / share, basis=basis)
