"""A data blend for Megatron-LM (`--data-args-path`; megatron.core.datasets.utils)."""

from __future__ import annotations

from ablate.export.answer import Answer, shares
from ablate.workspace import slug


def megatron_blend(answer: Answer) -> str:
    """Return lines `weight prefix`, weights summing to exactly one.

    Megatron splits the file at white space into weight, prefix, weight, prefix, ... A prefix is
    what `tools/preprocess_data.py --output-prefix PARTITION` makes: PARTITION_text_document.
    """
    pairs = shares(answer.mixture).items()
    return "".join(f"{share:f} {slug(name)}_text_document\n" for name, share in pairs)
