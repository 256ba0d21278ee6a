"""A mergekit configuration that makes the same merge (github.com/arcee-ai/mergekit)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ablate.export.answer import Answer
from ablate.merge import merge_method
from ablate.stores import fetched

_NAMES = {"scale": "lambda"}  # of options, where mergekit has others
_NO_SEED = 1e-12  # a scale of 1/members leaves rounding noise of the seed

MERGES = ("linear", "task_arithmetic", "ties")
"""The merges that mergekit makes as ablate does. It drops other deltas in DARE, and has no Fisher
and no RegMean."""


def mergekit_yaml(answer: Answer) -> str:
    """Return a config for `mergekit-yaml`: `linear`, or a method on the seed.

    A linear merge with a scale is `task_arithmetic` there. Weights are the coefficients of the
    merge as they are (normalize: false); those of `ties` count for each element among the members that
    agree there (normalize: true). All is in float32. Raises ValueError for other methods.
    """
    if answer.method not in MERGES:
        raise ValueError(f"merges must be among {', '.join(MERGES)}, got {answer.method}")
    parameters: dict[str, Any] = {"normalize": answer.method == "ties"}
    method = answer.method
    if method == "linear":
        scaled = abs(answer.seed_coefficient) > _NO_SEED
        method = "task_arithmetic" if scaled else "linear"
    else:
        known = merge_method(method).options
        options = {name: option.default for name, option in known.items()} | dict(answer.options)
        parameters |= {_NAMES.get(name, name): value for name, value in options.items()}
    tree: dict[str, Any] = {"merge_method": method}
    if method != "linear":
        tree["base_model"] = _model(answer.seed_folder)
    tree["models"] = [
        {"model": _model(member.folder), "parameters": {"weight": member.coefficient}}
        for member in answer.members
    ]
    tree["parameters"] = parameters
    tree["dtype"] = "float32"
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=1_000)


def _model(folder: Path) -> Any:
    """Return a model reference; mergekit reads `+` and `@` in a plain text as LoRA and revision."""
    path = str(fetched(folder))
    return {"model": {"path": path}} if set(path) & set("+@") else path
