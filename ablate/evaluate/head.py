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


CPU_TILES = Tiles(rows=512, columns=512)  # 1 MiB: half of a core's L2 cache
DEVICE_TILES = Tiles(rows=8192, columns=16384)
SMALLEST, LARGEST = 1e-30, 1e37


def projection_nats(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: nn.Linear,
    transform: Transform | None,
    tiles: Tiles,
) -> torch.Tensor:
    """Return -log softmax(transform(head(hidden)))[targets], float32 of shape [tokens].

    `hidden` [tokens, width], `targets` int64 [tokens]. Logits exist one tile at a time. Their
    exponentials are first summed as they are, since the logits of language models lie far inside
    float32's +-87; rows where the sum overflows or vanishes are done again with the maximum
    carried along (online softmax: Milakov and Gimelshein, arXiv 1805.02867).
    """
    out = torch.empty(hidden.shape[0], dtype=torch.float32, device=hidden.device)
    for start in range(0, hidden.shape[0], tiles.rows):
        rows = slice(start, start + tiles.rows)
        total, chosen = _plain_sums(hidden[rows], targets[rows], head, transform, tiles.columns)
        if not bool(((total > SMALLEST) & (total < LARGEST)).all()):
            out[rows] = _shifted_nats(hidden[rows], targets[rows], head, transform, tiles.columns)
        else:
            torch.sub(total.log_(), chosen, out=out[rows])
    return out


def _logits(
    hidden: torch.Tensor, head: nn.Linear, transform: Transform | None, columns: slice
) -> torch.Tensor:
    bias = None if head.bias is None else head.bias[columns]
    logits = nn.functional.linear(hidden, head.weight[columns], bias).float()
    return logits if transform is None else transform(logits)


def _chosen(logits: torch.Tensor, place: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """Return the logits at `place` [rows] where that lies in the tile, else `before`."""
    last = logits.shape[1] - 1
    found = logits.gather(1, place.clamp(0, last)[:, None])[:, 0]
    return torch.where((place >= 0) & (place <= last), found, before)


def _plain_sums(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: nn.Linear,
    transform: Transform | None,
    columns: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sums of exponentials and the targets' logits, float32 [rows] each."""
    total = hidden.new_zeros((hidden.shape[0],), dtype=torch.float32)
    chosen = torch.zeros_like(total)
    for start in range(0, head.weight.shape[0], columns):
        logits = _logits(hidden, head, transform, slice(start, start + columns))
        chosen = _chosen(logits, targets - start, chosen)
        total += logits.exp_().sum(1)
    return total, chosen


def _shifted_nats(
    hidden: torch.Tensor,
    targets: torch.Tensor,
    head: nn.Linear,
    transform: Transform | None,
    columns: int,
) -> torch.Tensor:
    top = hidden.new_full((hidden.shape[0],), -torch.inf, dtype=torch.float32)
    total = torch.zeros_like(top)
    chosen = torch.zeros_like(top)
    for start in range(0, head.weight.shape[0], columns):
        logits = _logits(hidden, head, transform, slice(start, start + columns))
        chosen = _chosen(logits, targets - start, chosen)
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
