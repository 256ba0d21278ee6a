"""Two merges that `ablate` does not have: a median and a trimmed mean over the members.

A merge is any function

    merge(out, members, weights, *, threads, **options)

that writes into `out`, a flat tensor [parameters] (float32 or bfloat16). `members` are flat float32
tensors of the same length, which must not be changed; `weights`, one for each member, are >= 0 and
sum to one. `options` are those of `search.merge.options`.

Where members disagree about a parameter, their mean follows the one that went farthest. A median
does not; a trimmed mean leaves the ends out. With two equal members both are the plain average.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

SLICE = 1 << 16  # parameters at a time: the sorted members then stay in the cache


def median(
    out: Tensor, members: Sequence[Tensor], weights: Sequence[float], *, threads: int = 1
) -> None:
    """Write each parameter's weighted median; with equal weights, that of numpy.

    Where half the weight lies on either side, the mean of the two middle values.
    """
    for part, values, upto in _sorted(out, members, weights):
        low = (upto < 0.5 - 1e-9).sum(dim=0, keepdim=True)
        high = (upto < 0.5 + 1e-9).sum(dim=0, keepdim=True)
        middle = values.gather(0, low) + values.gather(0, high)
        part.copy_(middle[0] / 2)


def trimmed(
    out: Tensor,
    members: Sequence[Tensor],
    weights: Sequence[float],
    *,
    share: float = 0.25,
    threads: int = 1,
) -> None:
    """Write each parameter's weighted mean without the lowest and the highest `share` of weight.

    0 <= share < 0.5; 0 is the linear merge. A member at the border counts with what is left of it.
    """
    if not 0 <= share < 0.5:
        raise ValueError(f"share must be from 0 to below 0.5, got {share}")
    for part, values, upto in _sorted(out, members, weights):
        inside = upto.clamp(share, 1 - share)
        kept = torch.diff(inside, dim=0, prepend=torch.full_like(inside[:1], share))
        part.copy_((kept * values).sum(dim=0) / (1 - 2 * share))


def _sorted(
    out: Tensor, members: Sequence[Tensor], weights: Sequence[float]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield (a part of `out`, the members' values there, weight up to each), lowest value first.

    The last two are [members, parameters of the part].
    """
    given = [(m, w) for m, w in zip(members, weights, strict=True) if w > 0]
    shares = torch.tensor([weight for _, weight in given], dtype=torch.float64)
    for start in range(0, out.numel(), SLICE):
        part = out[start : start + SLICE]
        stacked = torch.stack([member[start : start + SLICE] for member, _ in given])
        values, order = stacked.to(part.device).sort(dim=0, stable=True)
        upto = shares.to(part.device)[order].cumsum(dim=0)
        yield part, values, upto / upto[-1:]
