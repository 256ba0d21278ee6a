"""Mixture weights as JSON or YAML: the answer as numbers. `--mixture FILE` reads it back."""

from __future__ import annotations

import json
from typing import Any

import yaml

from ablate.export.answer import Answer, apportion, epochs


def weights_tree(answer: Answer) -> dict[str, Any]:
    """Return {"weights": {partition: share}}, and for a token budget tokens and epochs too."""
    tree: dict[str, Any] = {"weights": dict(answer.mixture.weights)}
    if answer.target_tokens is not None:
        tree["target_tokens"] = answer.target_tokens
        tree["tokens"] = apportion(answer.mixture, answer.target_tokens)
        tree["epochs"] = {name: round(passes, 4) for name, passes in epochs(answer).items()}
    tree["available_tokens"] = {
        name: answer.available_tokens[name]
        for name in answer.mixture.partitions
        if name in answer.available_tokens
    }
    return tree


def weights_json(answer: Answer) -> str:
    """Return the weights as JSON; numbers keep every digit."""
    return json.dumps(weights_tree(answer), indent=1, ensure_ascii=False) + "\n"


def weights_yaml(answer: Answer) -> str:
    """Return the weights as YAML; numbers keep every digit."""
    return yaml.safe_dump(weights_tree(answer), sort_keys=False, allow_unicode=True)
