"""What every merge asks of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ablate.models.layout import Layout


def require_fit(
    out: torch.Tensor, members: Sequence[torch.Tensor], weights: Sequence[float]
) -> None:
    """Raise ValueError when there are no members, or sizes or dtypes do not fit."""
    if not members or len(members) != len(weights):
        raise ValueError(
            f"as many members as weights, at least one, must be given, got {len(members)} and "
            f"{len(weights)}"
        )
    if out.dim() != 1 or not out.is_contiguous():
        raise ValueError(f"out must be a flat contiguous tensor, got shape {list(out.shape)}")
    if out.dtype not in (torch.float32, torch.bfloat16):
        raise ValueError(f"out must be float32 or bfloat16, got {out.dtype}")
    for index, member in enumerate(members):
        require_vector(f"member {index}", member, out)


def require_vector(name: str, vector: torch.Tensor, out: torch.Tensor) -> None:
    """Raise ValueError when a vector is not float32 of out's shape."""
    if vector.shape != out.shape or vector.dtype != torch.float32:
        raise ValueError(
            f"{name} must be float32 of shape {list(out.shape)}, got {vector.dtype} of shape "
            f"{list(vector.shape)}"
        )


def require_layout(layout: Layout, out: torch.Tensor) -> None:
    """Raise ValueError when a layout describes vectors of another length."""
    if out.numel() != layout.numel:
        raise ValueError(f"out must have the layout's {layout.numel} elements, got {out.numel()}")


def require_shares(weights: Sequence[float]) -> None:
    """Raise ValueError when a weight is negative, or none is positive."""
    if any(weight < 0 for weight in weights) or not any(weights):
        raise ValueError(f"weights must be >= 0, one of them > 0, got {list(weights)}")


def require_each(name: str, items: Sequence[Any] | None, members: Sequence[torch.Tensor]) -> None:
    """Raise ValueError when there is not one item per member."""
    if items is not None and len(items) != len(members):
        raise ValueError(f"{name} must have one item per member, got {len(items)}")


def require_deltas(
    out: torch.Tensor,
    members: Sequence[torch.Tensor],
    weights: Sequence[float],
    seed: torch.Tensor,
    layout: Layout,
) -> None:
    """Raise ValueError when members, seed and layout do not describe the same vectors."""
    require_fit(out, members, weights)
    require_vector("seed", seed, out)
    require_layout(layout, out)
