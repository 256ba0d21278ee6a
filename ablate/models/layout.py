"""One flat vector per model: where each parameter of an architecture lies in it.

A merge is then one weighted sum of flat arrays, whatever the architecture.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from ablate.errors import CheckpointError
from ablate.workspace import fingerprint

ALIGNMENT = 16  # elements: float32 entries start on 64-byte lines, bfloat16 ones on 32 bytes

# Config keys that change what a model computes while its tensors keep their shapes.
ARCHITECTURE_KEYS = [
    "model_type",
    "hidden_act",
    "activation_function",
    "hidden_activation",
    "num_attention_heads",
    "n_head",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "rotary_pct",
    "rotary_dim",
    "use_parallel_residual",
    "parallel_attn",
    "tie_word_embeddings",
    "sliding_window",
    "layer_types",
    "final_logit_softcapping",
    "attn_logit_softcapping",
    "query_pre_attn_scalar",
    "logit_scale",
    "logits_scaling",
    "embedding_multiplier",
    "residual_multiplier",
    "attention_multiplier",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "reorder_and_upcast_attn",
    "clip_qkv",
    "alibi",
    "num_experts_per_tok",
    "norm_topk_prob",
    "do_layer_norm_before",
    "use_qk_norm",
]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor's place: `flat[offset : offset + prod(shape)]`, in elements."""

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def numel(self) -> int:
        """Return the number of elements."""
        return torch.Size(self.shape).numel()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where every float tensor of an architecture lies in a flat vector of `numel` elements.

    `entries` are sorted by name, each once; `aliases` maps a tied name to the entry it shares;
    `constants` maps integer and boolean buffers to the SHA-256 of their bytes: they are no part
    of a merge and must be equal in all members. Padding between entries is zero. `architecture`
    holds the config's values that change the function but no shape (heads, RoPE base, ...).
    """

    entries: tuple[Entry, ...]
    numel: int
    aliases: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    architecture: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def fingerprint(self) -> str:
        """Return the short SHA-256 of all of it; equal layouts may be merged."""
        return fingerprint(self.to_json())

    @property
    def parameters(self) -> int:
        """Return the number of elements without padding."""
        return sum(entry.numel for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "entries": [[e.name, list(e.shape), e.offset] for e in self.entries],
            "numel": self.numel,
            "aliases": dict(sorted(self.aliases.items())),
            "constants": dict(sorted(self.constants.items())),
            "architecture": dict(sorted(self.architecture.items())),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Layout:
        """Return the layout that `to_json` wrote."""
        entries = tuple(
            Entry(name=name, shape=tuple(shape), offset=offset)
            for name, shape, offset in value["entries"]
        )
        return cls(
            entries=entries,
            numel=value["numel"],
            aliases=dict(value["aliases"]),
            constants=dict(value["constants"]),
            architecture=dict(value["architecture"]),
        )


def architecture_of(config: PretrainedConfig) -> dict[str, Any]:
    """Return the values of `config` that change the function but no tensor shape."""
    values = config.to_dict()
    return {key: values[key] for key in ARCHITECTURE_KEYS if values.get(key) is not None}


def layout_of(model: PreTrainedModel) -> Layout:
    """Return the layout of a causal language model.

    Float parameters and persistent float buffers become entries, tied tensors once; persistent
    integer and boolean buffers become constants. Raises CheckpointError for other kinds of
    parameters (quantized, complex).
    """
    tied_targets = set(getattr(model, "all_tied_weights_keys", None) or {})
    owners: dict[tuple[int, torch.Size], str] = {}
    floats: dict[str, torch.Tensor] = {}
    aliases: dict[str, str] = {}
    constants: dict[str, str] = {}
    # Sources of tied weights first: `from_pretrained` fills the target from the source.
    for name, tensor in sorted(_stored(model), key=lambda item: (item[0] in tied_targets, item[0])):
        if not tensor.is_floating_point():
            if isinstance(tensor, nn.Parameter) or tensor.is_complex():
                raise CheckpointError(
                    f"parameters must be float tensors, '{name}' is {tensor.dtype}; "
                    "use the checkpoint that is not quantized"
                )
            constants[name] = tensor_digest(tensor)
            continue
        key = (tensor.data_ptr() if not tensor.is_meta else id(tensor), tensor.shape)
        owner = owners.setdefault(key, name) if tensor.numel() else name
        if owner == name:
            floats[name] = tensor
        else:
            aliases[name] = owner
    entries, offset = [], 0
    for name in sorted(floats):
        entries.append(Entry(name=name, shape=tuple(floats[name].shape), offset=offset))
        offset += -(-floats[name].numel() // ALIGNMENT) * ALIGNMENT
    return Layout(
        entries=tuple(entries),
        numel=offset,
        aliases=aliases,
        constants=constants,
        architecture=architecture_of(model.config),
    )


def tensor_digest(tensor: torch.Tensor) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes."""
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def constants_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return copies of the persistent integer and boolean buffers by name."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in _stored(model)
        if not tensor.is_floating_point()
    }


def flatten(model: PreTrainedModel, layout: Layout) -> torch.Tensor:
    """Return the model's parameters as one float32 vector of shape [layout.numel]."""
    tensors = dict(_stored(model))
    flat = torch.zeros(layout.numel, dtype=torch.float32)
    for entry in layout.entries:
        view = flat[entry.offset : entry.offset + entry.numel].view(entry.shape)
        view.copy_(_of_shape(tensors, entry).detach())
    return flat


def bind(
    model: PreTrainedModel,
    layout: Layout,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
) -> torch.Tensor:
    """Move a model into one flat vector of shape [layout.numel] on `device` and return it.

    Every parameter (and persistent float buffer) becomes a view of the vector: what is written
    there is at once the model's. Values are kept; tied tensors stay tied.
    """
    tensors = dict(_stored(model))
    flat = torch.zeros(layout.numel, dtype=dtype, device=device)
    names: dict[str, list[str]] = {entry.name: [entry.name] for entry in layout.entries}
    for alias, name in layout.aliases.items():
        names[name].append(alias)
    for entry in layout.entries:
        view = flat[entry.offset : entry.offset + entry.numel].view(entry.shape)
        view.copy_(_of_shape(tensors, entry).detach())
        for name in names[entry.name]:
            _replace(model, name, view)
    model.to(torch.device(device))  # what is left: constants and non-persistent buffers
    return flat


def flat_views(
    model: PreTrainedModel, layout: Layout, flat: torch.Tensor
) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    """Return every parameter with its view of `flat` [layout.numel]; tied ones share a view.

    Persistent buffers have no gradient and are left out.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    places = {entry.name: entry for entry in layout.entries}
    names = {name: name for name in places} | dict(layout.aliases)
    found: dict[int, tuple[torch.nn.Parameter, torch.Tensor]] = {}
    for name, owner in sorted(names.items()):
        if name in parameters:
            entry = places[owner]
            view = flat[entry.offset : entry.offset + entry.numel].view(entry.shape)
            found[id(parameters[name])] = (parameters[name], view)
    return list(found.values())


def _stored(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield what a state dict of the model holds, tied names included."""
    yield from model.named_parameters(remove_duplicate=False)
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, buffer in module.named_buffers(recurse=False, remove_duplicate=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name, buffer


def _of_shape(tensors: Mapping[str, torch.Tensor], entry: Entry) -> torch.Tensor:
    tensor = tensors.get(entry.name)
    got = "none" if tensor is None else list(tensor.shape)
    if tensor is None or tuple(tensor.shape) != entry.shape:
        raise CheckpointError(
            f"models of a pool must have one architecture: tensor '{entry.name}' must have shape "
            f"{list(entry.shape)}, got {got}; use checkpoints that start from the same seed"
        )
    return tensor


def _replace(model: PreTrainedModel, name: str, view: torch.Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    module = model.get_submodule(owner)
    if leaf in module._parameters:
        parameter = module.get_parameter(leaf)
        parameter.data = view
        parameter.requires_grad_(False)
    else:
        module._buffers[leaf] = view
