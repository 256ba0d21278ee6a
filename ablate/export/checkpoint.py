"""The merged model as a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ablate.errors import StudyError, did_you_mean
from ablate.export.answer import Answer
from ablate.models.build import load_model
from ablate.models.checkpoint import load_flat, save_checkpoint
from ablate.models.layout import Layout, constants_of, layout_of
from ablate.models.sources import model_code
from ablate.workspace import fingerprint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_SLICE = 1 << 20  # elements added at once, so that scratch memory stays small


MakeMerge = Callable[[Layout], np.ndarray]  # returns the merged parameters, [layout.numel]


def write_checkpoint(
    answer: Answer, folder: Path, dtype: str = "float32", make: MakeMerge | None = None
) -> str:
    """Write the merge of `answer` to `folder`, whole or not at all; return its weights' SHA-256.

    The folder has config, weights in `dtype`, tokenizer and training.json, which names the
    mixture and its members. A linear merge is summed in float64, one member in memory at a time:
    memory is 12 bytes a parameter, plus a model. `make` makes any other method's.
    Raises CheckpointError when a member is not what it was, StudyError for an unknown dtype, and
    ValueError for a method other than linear without `make`.
    """
    if dtype not in DTYPES:
        raise StudyError(f"dtype must be known, got '{dtype}'; {did_you_mean(dtype, DTYPES)}")
    trusted = answer.trust_remote_code
    model = load_model(answer.seed_folder, trust_remote_code=trusted)
    layout = layout_of(model)
    if make is None and answer.method != "linear":
        raise ValueError(f"a merge by {answer.method} must be made by the caller")
    made = merge_folders(answer, layout) if make is None else make(layout)
    merged = torch.from_numpy(made.astype(np.float32, copy=False))
    return save_checkpoint(
        folder,
        config=model.config,
        layout=layout,
        flat=merged.to(DTYPES[dtype]),
        tokenizer_folder=answer.tokenizer_folder,
        training=provenance(answer, dtype),
        constants=constants_of(model),
        code=model_code(answer.seed_folder, trust_remote_code=trusted),
    )


def merge_folders(answer: Answer, layout: Layout) -> np.ndarray:
    """Return sum of coefficient * parameters over seed and members: float64 [layout.numel]."""
    total = np.zeros(layout.numel, dtype=np.float64)
    flat = np.empty(layout.numel, dtype=np.float32)
    for folder, coefficient, digest in _terms(answer):
        load_flat(folder, layout, digest=digest, out=flat)
        for start in range(0, layout.numel, _SLICE):
            part = slice(start, start + _SLICE)
            total[part] += coefficient * flat[part].astype(np.float64)
    return total


def provenance(answer: Answer, dtype: str) -> dict[str, Any]:
    """Return what the export is made of; equal for equal exports (`export` is its fingerprint)."""
    body: dict[str, Any] = {
        "kind": "merged",
        "mixture": dict(answer.mixture.weights),
        "dtype": dtype,
        "seed_coefficient": answer.seed_coefficient,
        "members": [
            {
                "partition": member.partition,
                "unit": member.index,
                "coefficient": member.coefficient,
                "digest": member.digest,
            }
            for member in answer.members
        ],
    }
    if answer.method != "linear":
        body |= {"method": answer.method, "options": dict(answer.options)}
    return {**body, "export": fingerprint(body)}


def _terms(answer: Answer) -> Iterator[tuple[Path, float, str | None]]:
    if answer.seed_coefficient:
        yield answer.seed_folder, answer.seed_coefficient, answer.seed_digest
    for member in answer.members:
        if member.coefficient:
            yield member.folder, member.coefficient, member.digest
