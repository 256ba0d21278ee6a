"""Models from checkpoint folders, refused in one line when anything is wrong with them."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, PreTrainedModel

from ablate.errors import CheckpointError
from ablate.models.sources import (
    CONFIG_ERRORS,
    first_line,
    quiet_transformers,
    read_config,
    resolve_folder,
    weight_files,
)
from ablate.models.tensor_file import FLOAT_BYTES, StoredTensor, read_header


def load_model(
    folder: str | Path, *, trust_remote_code: bool = False, revision: str | None = None
) -> PreTrainedModel:
    """Return the causal language model of a folder, or of a hub id and its commit `revision`.

    It is in float32 and eval mode.

    No code of the checkpoint is run unless `trust_remote_code`; pickled weights are never read.
    Raises CheckpointError, one line, when the folder is none, the weights are cut short, do not
    fill the architecture exactly, or are not finite.
    """
    path = resolve_folder(folder, trust_remote_code=trust_remote_code, revision=revision)
    config = read_config(path, trust_remote_code=trust_remote_code)
    stored: dict[str, StoredTensor] = {}
    for file in weight_files(path):
        stored.update(read_header(file))
    try:
        with quiet_transformers():
            model, found = AutoModelForCausalLM.from_pretrained(
                path,
                config=config,
                dtype=torch.float32,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
    except (*CONFIG_ERRORS, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"a checkpoint must load as a causal language model: {path}: {first_line(error)}; "
            "check its config.json against its weights"
        ) from error
    _require_whole(path, found)
    for name, tensor in model.named_parameters():
        if name in stored and stored[name].dtype not in FLOAT_BYTES:
            raise CheckpointError(
                f"weights must be F32, BF16 or F16: tensor '{name}' of {path} is "
                f"{stored[name].dtype}; use the checkpoint that is not quantized"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"weights must be finite: tensor '{name}' of {path} holds NaN or infinity; its "
                "training diverged, use another checkpoint"
            )
    return model.eval()  # type: ignore[no-any-return]


def _require_whole(path: Path, found: dict[str, object]) -> None:
    rules = {
        "mismatched_keys": "must have the shape that config.json gives",
        "missing_keys": "must be there (it would be made up at random)",
        "unexpected_keys": "is none of the architecture's",
    }
    for kind, rule in rules.items():
        raw = found.get(kind) or ()
        names = sorted(str(item[0] if isinstance(item, tuple) else item) for item in raw)  # type: ignore[attr-defined]
        if names:
            more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(
                f"weights must fill the architecture: tensor '{names[0]}' {rule} in {path}{more}; "
                "check config.json against the weights, or copy the checkpoint again"
            )
