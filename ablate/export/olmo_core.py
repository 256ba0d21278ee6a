"""A source mixture for OLMo-core (github.com/allenai/OLMo-core, olmo_core.data.source_mixture)."""

from __future__ import annotations

import math
from typing import Any

import yaml

from ablate.export.answer import Answer, epochs, shares
from ablate.workspace import slug

_HEADER = """\
# OLMo-core SourceMixtureList; SourceMixtureDatasetConfig takes it as source_list.
# OLMo-core reads token arrays: `paths` are where each partition's .npy files are expected.
"""


def olmo_core_yaml(answer: Answer) -> str:
    """Return a SourceMixtureList as YAML: target_ratio of each source, summing to exactly one.

    max_repetition_ratio is at least the epochs that the token budget takes. Comments name the
    text behind each source.
    """
    passes = epochs(answer)
    sources: list[dict[str, Any]] = [
        {
            "source_name": name,
            "target_ratio": float(share),
            "paths": [f"{slug(name)}/*.npy"],
            # Rounded up: OLMo-core refuses a source that falls short by one token.
            "max_repetition_ratio": max(1.0, math.ceil(passes.get(name, 1.0) * 100) / 100),
            "max_source_fraction": 1.0,
        }
        for name, share in shares(answer.mixture).items()
    ]
    lines = [_HEADER.rstrip()]
    if answer.target_tokens is not None:
        lines.append(f"# requested_tokens: {answer.target_tokens}")
    for name in filter(answer.sources.get, answer.mixture.partitions):
        lines.append(" ".join(f"# {name}: {', '.join(answer.sources[name])}".split()))
    body = yaml.safe_dump({"sources": sources}, sort_keys=False, allow_unicode=True, width=1_000)
    return "\n".join(lines) + "\n" + body
