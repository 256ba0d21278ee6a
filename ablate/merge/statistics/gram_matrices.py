"""Gram matrices of the inputs of a language model's linear layers, for RegMean."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from ablate.models.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Grams:
    """Gram matrices of one model, by layout entry of the layer's weight.

    `matrices[entry]` is the mean over tokens of x x^T, float32 of shape [d_in, d_in], x the layer's
    input. Layers fed by the same tensor (query, key and value; gate and up) hold the same object.
    `input_first` names the entries stored as [d_in, d_out] (transformers' Conv1D); the others are
    [d_out, d_in] (nn.Linear).
    """

    matrices: Mapping[str, torch.Tensor]
    input_first: frozenset[str] = frozenset()


@dataclass
class _Sums:
    """Running means by leader (the first layer seen with an input), and who shares with whom."""

    leaders: dict[str, str] = field(default_factory=dict)
    means: dict[str, torch.Tensor] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    seen: list[tuple[weakref.ref[torch.Tensor], str]] = field(default_factory=list)


def gram_matrices(
    model: PreTrainedModel, layout: Layout, tokens: torch.Tensor, batch: int = 8
) -> Grams:
    """Return the Gram matrices of the inputs of every nn.Linear and Conv1D of the model.

    `tokens` is int64 of shape [sequences, length], run `batch` sequences at a time; every position
    counts. Means are kept in float32. A weight tied to another (embedding and output) has none:
    RegMean averages it. Neither have layers that no token went through.

    Memory: d_in^2 per distinct input, one batch of activations. Raises ValueError when `tokens` has
    another shape. Source: Jin et al., arXiv 2212.09849, section 3.
    """
    if tokens.dim() != 2 or tokens.numel() < 1:
        raise ValueError(f"tokens must be [sequences, length], got {list(tokens.shape)}")
    layers = _layers(model, layout)
    sums = _Sums()
    device = next(model.parameters()).device
    with _listening(layers, sums), torch.no_grad():
        for part in tokens.split(batch):
            sums.seen.clear()
            model(input_ids=part.to(device), use_cache=False)
    means = {leader: mean.cpu() for leader, mean in sums.means.items()}
    return Grams(
        matrices={name: means[sums.leaders[name]] for name in sorted(sums.leaders)},
        input_first=frozenset(name for name, layer in layers.items() if isinstance(layer, Conv1D))
        & frozenset(sums.leaders),
    )


def _layers(model: PreTrainedModel, layout: Layout) -> dict[str, nn.Module]:
    tied = {*layout.aliases, *layout.aliases.values()}
    names = {entry.name for entry in layout.entries} - tied
    return {
        f"{name}.weight": module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and f"{name}.weight" in names
    }


@contextmanager
def _listening(layers: Mapping[str, nn.Module], sums: _Sums) -> Iterator[None]:
    def listen(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda _module, inputs: _add(sums, name, inputs[0])

    handles = [layer.register_forward_pre_hook(listen(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(sums: _Sums, name: str, x: torch.Tensor) -> None:
    leader = _leader(sums, name, x)
    if leader != name:
        return
    rows = x.detach().reshape(-1, x.shape[-1]).float()
    if not rows.shape[0]:
        return
    before = sums.tokens.get(name, 0)
    sums.tokens[name] = before + rows.shape[0]
    gram = (rows.T @ rows).div_(rows.shape[0])
    if not before:
        sums.means[name] = gram
    else:
        sums.means[name].lerp_(gram, rows.shape[0] / sums.tokens[name])


def _leader(sums: _Sums, name: str, x: torch.Tensor) -> str:
    """Return the layer under whose name this input is summed.

    Whether two layers share is settled by the first batch; weak references, so that a forward pass
    frees its activations as it goes, and no address of a freed tensor is taken for another's.
    """
    if name not in sums.leaders:
        shared = (leader for ref, leader in sums.seen if ref() is x)
        sums.leaders[name] = next(shared, name)
    if sums.leaders[name] == name:
        sums.seen.append((weakref.ref(x), name))
    return sums.leaders[name]
