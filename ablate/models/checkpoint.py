"""Checkpoints: plain Hugging Face folders, written whole or not at all, read into flat vectors."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from ablate.errors import CheckpointError, WorkspaceError
from ablate.models.layout import ARCHITECTURE_KEYS, Layout, architecture_of
from ablate.models.sources import read_config, read_small_json, weight_files
from ablate.models.tensor_file import (
    DTYPE_NAMES,
    StoredTensor,
    read_bytes,
    read_header,
    read_into,
    write_tensors,
)
from ablate.plain_values import typed
from ablate.stores import fetched, is_vouched
from ablate.workspace import (
    file_digest,
    publish_folder,
    read_json,
    temporary_folder,
    write_json,
)

WEIGHTS = "model.safetensors"
TRAINING = "training.json"
TRAINING_KINDS: Mapping[str, Any] = {
    "kind": str,
    "fingerprint": str,
    "tokens": int,
    "seconds": float,
    "digest": str,
    "optimizer_digest": str,
    "files": dict[str, str],
    "imported_from": str,
}
OLD_BUFFERS = (r"rotary_emb\.inv_freq", r"(^|\.)position_ids$")
"""What transformers leaves out of a checkpoint of any model that computes it."""


def save_checkpoint(
    folder: Path,
    *,
    config: PretrainedConfig,
    layout: Layout,
    flat: torch.Tensor | np.ndarray,
    tokenizer_folder: Path,
    training: Mapping[str, Any],
    constants: Mapping[str, torch.Tensor] | None = None,
    code: Sequence[Path] = (),
) -> str:
    """Write a folder that `AutoModelForCausalLM.from_pretrained` loads; return its digest.

    `flat` has shape [layout.numel]; float32 or bfloat16 as given. The digest is the SHA-256 of
    model.safetensors; it also stands in training.json as `digest`, beside `training` and those of
    the other `files`. `code` are files of model code (`model_code`) to go along. The folder is
    written under a temporary name and renamed, replacing what was there.

    Raises CheckpointError when a value is not finite.
    """
    vector = torch.from_numpy(flat) if isinstance(flat, np.ndarray) else flat.detach().cpu()
    if vector.shape != (layout.numel,):
        raise ValueError(f"flat must have shape [{layout.numel}], got {list(vector.shape)}")
    tensors = {
        entry.name: vector[entry.offset : entry.offset + entry.numel].view(entry.shape)
        for entry in layout.entries
    }
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"weights must be finite: tensor '{name}' for {folder} is not; lower "
                "train.learning_rate or use precision fp32"
            )
    with temporary_folder(folder.parent) as temporary:
        _write_config(temporary, config, vector.dtype, with_code=bool(code))
        for file in code:
            shutil.copyfile(file, temporary / file.name)
        for item in sorted(fetched(tokenizer_folder).iterdir()):
            if item.is_file() and item.name not in ("config.json", WEIGHTS, TRAINING):
                shutil.copyfile(item, temporary / item.name)
        files = {item.name: file_digest(item) for item in sorted(temporary.iterdir())}
        digest = write_tensors(temporary / WEIGHTS, {**tensors, **dict(constants or {})})
        write_json(temporary / TRAINING, {**training, "files": files, "digest": digest})
        publish_folder(temporary, folder, last=TRAINING)
    return digest


def _write_config(
    folder: Path, config: PretrainedConfig, dtype: torch.dtype, *, with_code: bool
) -> None:
    values = config.to_dict()
    values["dtype"] = str(dtype).removeprefix("torch.")
    for key in ("_name_or_path", *([] if with_code else ["auto_map"])):
        values.pop(key, None)
    text = json.dumps(values, indent=2, sort_keys=True, default=str)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")


def checkpoint_digest(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's weights.

    For model.safetensors it is that of the file's bytes; for shards that of their names and
    digests in order. Raises CheckpointError when there are none.
    """
    files = weight_files(folder)
    if len(files) == 1:
        return file_digest(files[0])
    lines = "".join(f"{path.name} {file_digest(path)}\n" for path in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def published_digest(folder: Path) -> str:
    """Return `checkpoint_digest` of a folder that `save_checkpoint` wrote.

    On an object store it is what training.json says, when the weights are older: they need not be
    read for it. Raises CheckpointError when there are none.
    """
    digest = (read_training(folder) or {}).get("digest")
    vouched = is_vouched(folder / WEIGHTS, folder / TRAINING)
    return str(digest) if vouched and digest else checkpoint_digest(fetched(folder))


def read_training(folder: Path) -> Mapping[str, Any] | None:
    """Return `training.json` of a model folder, or None when it is missing, altered or not ours.

    What is known by its key has its type: a number that others calculate with is one.
    """
    try:
        found = read_json(folder / TRAINING) or {}
        for key in TRAINING_KINDS.keys() & found.keys():
            typed(TRAINING_KINDS[key], found[key], key)
    except (WorkspaceError, ValueError):
        return None
    return found or None


def altered_file(folder: Path) -> str | None:
    """Return the name of a file that is not as `save_checkpoint` wrote it, weights left out.

    None when there is none, or when no training.json says what was written.
    """
    files = (read_training(folder) or {}).get("files")
    for name, digest in files.items() if isinstance(files, dict) else ():
        path = folder / Path(name).name
        if not path.is_file() or file_digest(path) != digest:
            return str(name)
    return None


def intact_digest(folder: Path) -> str | None:
    """Return the digest of the weights of a folder as `save_checkpoint` wrote it, else None."""
    training = read_training(fetched(folder))
    if training is None or not (folder / WEIGHTS).is_file() or altered_file(folder) is not None:
        return None
    digest = checkpoint_digest(folder)
    return digest if digest == training.get("digest") else None


def load_flat(
    folder: Path,
    layout: Layout,
    *,
    digest: str | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Return a checkpoint's weights as float32 of shape [layout.numel], padding zero.

    Written into `out` when given. Tied tensors may be stored once or twice. With `digest`, the
    weights must have it, and the other files must be as they were written.

    Raises CheckpointError, in one line that names file and tensors: cut short or altered files,
    other tensors or shapes than the layout's, another architecture, values that are not finite.
    """
    folder = fetched(folder)
    if digest is not None and (found := checkpoint_digest(folder)) != digest:
        raise CheckpointError(
            f"weights must have digest {digest[:12]}: {folder} has {found[:12]}; it was altered "
            "after it was written: train or copy it again"
        )
    if digest is not None and (name := altered_file(folder)) is not None:
        raise CheckpointError(
            f"a model must be as it was written: {folder / name} was altered or removed; train or "
            "copy the model again"
        )
    stored: dict[str, StoredTensor] = {}
    for path in weight_files(folder):
        stored.update(read_header(path))
    kind = _require_architecture(folder, layout)
    sources = _matched(folder, layout, _as_loaded(stored, layout, kind))
    if out is None:
        out = np.zeros(layout.numel, dtype=np.float32)
    elif out.shape != (layout.numel,) or out.dtype != np.float32:
        raise ValueError(f"out must be float32 of shape [{layout.numel}]")
    position = 0
    for entry in layout.entries:
        out[position : entry.offset] = 0
        position = entry.offset + entry.numel
        read_into(sources[entry.name], out[entry.offset : position])
    out[position:] = 0
    return out


def _require_architecture(folder: Path, layout: Layout) -> Any:
    """Return the class that loads the checkpoint; None when it brings model code of its own."""
    ours, raw = layout.architecture, read_small_json(folder / "config.json")
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    if isinstance(kind, str) and kind not in CONFIG_MAPPING:
        # Model code of its own: its defaults are not known without running it.
        ours = {key: value for key, value in ours.items() if key in raw}
        got, loader = {key: value for key, value in raw.items() if key in ours}, None
    else:
        config = read_config(folder)
        got, loader = architecture_of(config), MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    wrong = [key for key in ARCHITECTURE_KEYS if got.get(key) != ours.get(key)]
    if layout.architecture and wrong:
        first = wrong[0]
        raise CheckpointError(
            f"models of a pool must have one architecture: {folder / 'config.json'} has {first} = "
            f"{got.get(first)!r}, the pool has {ours.get(first)!r}"
            f"{_more(wrong)}; use checkpoints that start from the same seed"
        )
    return loader


def _as_loaded(
    stored: Mapping[str, StoredTensor], layout: Layout, loader: Any
) -> dict[str, StoredTensor]:
    """Return the tensors by the names under which `from_pretrained` of `loader` takes them.

    It leaves out buffers that older versions stored, and adds or takes away the base model's name.
    """
    known = {entry.name for entry in layout.entries} | set(layout.aliases) | set(layout.constants)
    ignored = [*OLD_BUFFERS, *(getattr(loader, "_keys_to_ignore_on_load_unexpected", None) or ())]
    prefix = f"{getattr(loader, 'base_model_prefix', '')}."
    found: dict[str, StoredTensor] = {}
    for name, tensor in stored.items():
        others = (prefix + name, name.removeprefix(prefix))
        taken = next((n for n in others if n in known and n not in stored), name)
        if name in known:
            found[name] = tensor
        elif taken != name or not any(re.search(pattern, name) for pattern in ignored):
            found[taken] = tensor
    return found


def _matched(
    folder: Path, layout: Layout, stored: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor]:
    """Return the stored tensor of each entry; refuse what is missing, unknown or mis-shaped."""
    owners = {entry.name: entry.name for entry in layout.entries} | dict(layout.aliases)
    shapes = {entry.name: entry.shape for entry in layout.entries}
    found: dict[str, StoredTensor] = {}
    for alias, owner in sorted(owners.items(), key=lambda item: item[0] != item[1]):
        if alias in stored:
            found.setdefault(owner, stored[alias])
    missing = [name for name in shapes if name not in found]
    unknown = sorted(set(stored) - set(owners) - set(layout.constants))
    shaped = sorted(n for n in owners if n in stored and stored[n].shape != shapes[owners[n]])
    for names, rule in ((missing, "must be there"), (unknown, "is none of the architecture's")):
        if names:
            raise CheckpointError(
                f"models of a pool must have one architecture: tensor '{names[0]}' {rule} in "
                f"{folder}{_more(names)}; use checkpoints that start from the same seed"
            )
    if shaped:
        name = shaped[0]
        raise CheckpointError(
            f"models of a pool must have one architecture: tensor '{name}' of {folder} must have "
            f"shape {list(shapes[owners[name]])}, got {list(stored[name].shape)}{_more(shaped)}; "
            "use checkpoints that start from the same seed"
        )
    _require_constants(folder, layout, stored)
    _require_tied(layout, stored)
    return found


def _more(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _require_constants(folder: Path, layout: Layout, stored: Mapping[str, StoredTensor]) -> None:
    dtypes = {name: str(dtype) for dtype, name in DTYPE_NAMES.items()}
    for name, wanted in layout.constants.items():
        tensor = stored.get(name)
        if tensor is None:
            continue  # a model built from the config brings it
        head = f"{dtypes.get(tensor.dtype, tensor.dtype)}{tensor.shape}".encode()
        if hashlib.sha256(head + read_bytes(tensor)).hexdigest() != wanted:
            raise CheckpointError(
                f"models of a pool must have equal integer buffers: '{name}' of {folder} differs; "
                "use checkpoints that start from the same seed"
            )


def _require_tied(layout: Layout, stored: Mapping[str, StoredTensor]) -> None:
    for alias, owner in layout.aliases.items():
        if alias in stored and owner in stored and not _equal(stored[alias], stored[owner]):
            raise CheckpointError(
                f"tied tensors must be equal: '{alias}' and '{owner}' of {stored[alias].path} "
                "differ; set tie_word_embeddings to false in every config, or save it again"
            )


def _equal(one: StoredTensor, other: StoredTensor) -> bool:
    count = int(np.prod(one.shape, dtype=np.int64))
    values = np.empty((2, count), dtype=np.float32)
    read_into(one, values[0])
    read_into(other, values[1])
    return bool(np.array_equal(values[0], values[1]))
