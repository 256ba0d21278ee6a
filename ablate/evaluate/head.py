"""The vocabulary projection and its cross-entropy, in tiles that never leave the cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

Transform = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Rows (tokens) and columns (vocabulary entries) of a tile of logits."""

    rows: int
    columns: int


CPU_TILES = Tiles(rows=256, columns=1024)
DEVICE_TILES = Tiles(rows=8192, columns=16384)


def projection_nats(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: nn.Linear,
    transform: Transform | None,
    tiles: Tiles,
) -> torch.Tensor:
    """Return -log softmax(transform(head(hidden)))[targets], float32 of shape [tokens].

    `hidden` [tokens, width], `targets` int64 [tokens]. Logits exist one tile at a time; maximum
    and sum are carried along the vocabulary in float32 (online softmax: Milakov and Gimelshein,
    arXiv 1805.02867).
    """
    out = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
    for start in range(0, hidden.shape[0], tiles.rows):
        rows = slice(start, start + tiles.rows)
        out[rows] = _rows_nats(hidden[rows], targets[rows], head, transform, tiles.columns)
    return out


def _rows_nats(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: nn.Linear,
    transform: Transform | None,
    columns: int,
) -> torch.Tensor:
    count, vocabulary = hidden.shape[0], head.weight.shape[0]
    top = hidden.new_full((count,), -torch.inf, dtype=torch.float32)
    total = hidden.new_zeros((count,), dtype=torch.float32)
    chosen = hidden.new_zeros((count,), dtype=torch.float32)
    for start in range(0, vocabulary, columns):
        weight = head.weight[start : start + columns]
        bias = None if head.bias is None else head.bias[start : start + columns]
        logits = nn.functional.linear(hidden, weight, bias).float()
        if transform is not None:
            logits = transform(logits)
        place = targets - start
        inside = (place >= 0) & (place < logits.shape[1])
        found = logits.gather(1, place.clamp(0, logits.shape[1] - 1)[:, None])[:, 0]
        chosen = torch.where(inside, found, chosen)
        higher = torch.maximum(top, logits.amax(1))
        total = total * torch.exp(top - higher) + logits.sub_(higher[:, None]).exp_().sum(1)
        top = higher
    return total.log_() + top - chosen


def logit_transform(model: PreTrainedModel) -> Transform | None:
    """Return what the model's config says is done to logits after the projection, if anything.

    Soft caps (Gemma 2, arXiv 2408.00118), and the scales of Cohere and Granite.
    """
    config = model.config
    cap = getattr(config, "final_logit_softcapping", None)
    if cap:
        return lambda logits: torch.tanh(logits / cap) * cap
    factor = getattr(config, "logit_scale", None)
    if factor is not None:
        return lambda logits: logits * factor
    divisor = getattr(config, "logits_scaling", None)
    if divisor is not None:
        return lambda logits: logits / divisor
    return None
