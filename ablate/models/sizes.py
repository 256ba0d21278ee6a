"""Sizes in a model's config, bounded before anything is built from them.

Building a model takes time and memory for every layer and expert, on the meta device too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ablate.settings import shortened

MOST_LAYERS = 1_000
MOST_EXPERTS = 100_000
MOST_SIZE = 1 << 24
"""Of a width or a vocabulary."""
MOST_PARAMETERS = 1e13
# A config's name of each size, or one family's (GPT-2, OPT, MPT, T5 and those alike).
_LAYERS = re.compile(r"(num|n)(_[a-z]+)*_layers?|[a-z]+_layers")
_EXPERTS = re.compile(r"(num|n)(_[a-z]+)*_experts?|moe_num_experts|ffn_num_experts")
_DEPTHS = {"num_hidden_layers", "n_layer", "n_layers", "num_layers"}
_WIDTHS = {"hidden_size", "n_embd", "d_model", "word_embed_proj_dim"}
_VOCABULARIES = {"vocab_size"}
_HEADS = {"num_attention_heads", "n_head", "n_heads"}
_ONE_AT_LEAST = _DEPTHS | _WIDTHS | _VOCABULARIES | _HEADS
_SIZES = _ONE_AT_LEAST - _DEPTHS | {
    "intermediate_size",
    "head_dim",
    "num_key_value_heads",
    "ffn_dim",
    "n_inner",
}


def wrong_size(values: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a size of a config, `values` as JSON holds them; None if nothing.

    A part of it (`text_config`) is looked at too. The text reads *rule*, got *value*.
    """
    for part in _parts(values):
        for key, value in part.items():
            if (problem := _wrong(str(key), value)) is not None:
                return problem
        if (size := _parameters(part)) > MOST_PARAMETERS:
            return (
                f"layers, widths and vocabulary must make at most {MOST_PARAMETERS:.0e} "
                f"parameters, got about {size:.1e}"
            )
    return None


def _parts(values: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield a config and those within it; no deeper than configs go, which JSON may."""
    yield values
    for value in values.values():
        if isinstance(value, dict):
            yield value
            yield from (inner for inner in value.values() if isinstance(inner, dict))


def _wrong(key: str, value: Any) -> str | None:
    # A flag, a list or null is the config's own to judge.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    least = int(key in _ONE_AT_LEAST)
    if _LAYERS.fullmatch(key):
        most = MOST_LAYERS
    elif _EXPERTS.fullmatch(key):
        most = MOST_EXPERTS
    elif key in _SIZES:
        most = MOST_SIZE
    else:
        return None
    # -1 is how some say "none" of what a model need not have.
    if min(least, value) <= value <= most and (value >= least or not least):
        return None
    return f"{key} must be {least} to {most:,}, got {shortened(value)}"


def _parameters(part: Mapping[str, Any]) -> float:
    """Return about how many parameters a config's widths and layers make, one expert a layer."""

    def largest(keys: set[str]) -> float:
        found = (part.get(key) for key in keys)
        return float(max((x for x in found if isinstance(x, int | float)), default=0))

    width = largest(_WIDTHS)
    inner = largest({"intermediate_size", "ffn_dim", "n_inner"})
    a_layer = width * (4 * width + 3 * inner)
    return largest(_DEPTHS) * a_layer + largest(_VOCABULARIES) * width
