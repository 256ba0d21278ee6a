"""The DeepSpeed JSON of a run: results from the recipe, placement from the cluster file."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ablate.errors import StudyError
from ablate.train.job import Placement
from ablate.train.recipe import Batch, Recipe


def deepspeed_config(recipe: Recipe, batch: Batch, placement: Placement) -> dict[str, Any]:
    """Return the JSON for `deepspeed.initialize`.

    DeepSpeed's stage 0 adds up bf16 gradients in bf16, its stages 1 to 3 in float32 when asked.
    Where a model runs must not change what comes out, so bf16 at stage 0 runs as stage 1 (the
    same memory on one worker, less on several) and all stages accumulate in float32.
    Raises StudyError for a stage that does not exist.
    """
    stage = check_stage(placement.deepspeed)
    config = copy.deepcopy(dict(placement.deepspeed))
    zero = config.setdefault("zero_optimization", {})
    zero["stage"] = stage
    if recipe.precision == "bf16":
        zero["stage"] = max(1, stage)
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    config.update(
        train_micro_batch_size_per_gpu=batch.sequences,
        gradient_accumulation_steps=batch.passes,
        # At stage 0 the loop clips by itself, because the engine does not tell the norm there.
        gradient_clipping=(recipe.clip or 0.0) if zero["stage"] else 0.0,
        # torch's fused AdamW serves on CPU and GPU, offloaded or not, and needs no compiler.
        zero_force_ds_cpu_optimizer=False,
        zero_allow_untested_optimizer=True,
    )
    config.setdefault("steps_per_print", 2**31)
    config.setdefault("timers", {"throughput": {"enabled": False}})
    return config


def check_stage(deepspeed: Mapping[str, Any]) -> int:
    """Return the ZeRO stage of a cluster file's DeepSpeed JSON; 0 when it names none.

    Raises StudyError for a stage that does not exist.
    """
    zero = deepspeed.get("zero_optimization", {})
    if not isinstance(zero, dict):
        raise StudyError(
            f"deepspeed.zero_optimization must hold keys and values, got {zero!r}; write "
            "{stage: 2} or the like"
        )
    stage = zero.get("stage", 0)
    if type(stage) is not int or stage not in (0, 1, 2, 3):
        raise StudyError(
            f"deepspeed.zero_optimization.stage must be 0, 1, 2 or 3, got {stage!r}; correct it"
        )
    return stage
