"""A mergekit configuration that makes the same merge (github.com/arcee-ai/mergekit)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ablate.export.answer import Answer
from ablate.stores import fetched

_NO_SEED = 1e-12  # a scale of 1/members leaves rounding noise of the seed


def mergekit_yaml(answer: Answer) -> str:
    """Return a config for `mergekit-yaml`: `linear`, or `task_arithmetic` on the seed for a scale.

    Weights are the coefficients of the merge as they are (normalize: false), in float32.
    """
    tree: dict[str, Any] = {}
    if abs(answer.seed_coefficient) > _NO_SEED:
        tree = {"merge_method": "task_arithmetic", "base_model": _model(answer.seed_folder)}
    else:
        tree = {"merge_method": "linear"}
    tree["models"] = [
        {"model": _model(member.folder), "parameters": {"weight": member.coefficient}}
        for member in answer.members
    ]
    tree["parameters"] = {"normalize": False}
    tree["dtype"] = "float32"
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1_000)


def _model(folder: Path) -> Any:
    """Return a model reference; mergekit reads `+` and `@` in a plain text as LoRA and revision."""
    path = str(fetched(folder))
    return {"model": {"path": path}} if set(path) & set("+@") else path
