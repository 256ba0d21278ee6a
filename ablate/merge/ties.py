"""TIES: trim the deltas, elect a sign per parameter, average those that agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ablate.merge.checks import require_deltas, require_each, require_shares
from ablate.merge.election import cast, elected, open_ballot
from ablate.merge.slices import Piece, cut, entry_bounds, run_pieces, scratch
from ablate.models.layout import Layout


def ties(
    out: torch.Tensor,
    members: Sequence[torch.Tensor],
    weights: Sequence[float],
    *,
    seed: torch.Tensor,
    layout: Layout,
    density: float = 0.2,
    scale: float = 1.0,
    prepared: Sequence[torch.Tensor] | None = None,
    threads: int = 1,
) -> None:
    """Write theta_0 + scale * tau into `out`, tau the disjoint mean of the trimmed deltas.

    With t_k = members[k] - theta_0 where it is among the `density` largest in magnitude of its
    tensor, 0 elsewhere, and w = weights, per parameter:

        s   = sign(sum_k w_k t_k), + on a tie
        tau = sum_{k: sign(t_k) = s} w_k t_k / sum_{k: sign(t_k) = s} w_k

    as mergekit's `ties` (normalize, lambda = scale). Of deltas equal in magnitude at the border all
    are kept. One member gives theta_0 + scale * its trimmed delta: the member to rounding at
    density 1 and scale 1, else not.

    `prepared` holds `trim_thresholds` of each member: they do not depend on the mixture. Weights
    must be >= 0. Extra memory is a few pieces (and one tensor's deltas when thresholds are not
    given). The bits do not depend on threads.

    Helps when members disagree in sign on many parameters, so that plain deltas cancel: few, far
    apart members. With many members from short branches of one seed the linear merge is the better
    proxy (DeMix, arXiv 2602.00747).

    Shapes, dtypes as in `linear`; raises ValueError when they do not fit. Source: Yadav et al.,
    arXiv 2306.01708, algorithm 1.
    """
    require_deltas(out, members, weights, seed, layout)
    require_shares(weights)
    require_each("prepared", prepared, members)
    voters = [
        (
            member,
            float(weight),
            _below(
                trim_thresholds(member, seed=seed, layout=layout, density=density)
                if prepared is None
                else prepared[place]
            ),
        )
        for place, (member, weight) in enumerate(zip(members, weights, strict=True))
        if weight
    ]

    def work(run: Sequence[Piece]) -> None:
        delta, *buffers = scratch(out, run, 6)
        for piece in run:
            ballot = open_ballot([buffer[: piece.numel] for buffer in buffers])
            start = cut(seed, piece, out)
            part = delta[: piece.numel]
            for member, weight, below in voters:
                torch.sub(cut(member, piece, out), start, out=part)
                torch.ops.aten.hardshrink.out(part, below[piece.entry], out=part)
                cast(ballot, part, weight, count=True)
            tau = elected(ballot, mean=True)
            out[piece.start : piece.stop] = tau.mul_(scale).add_(start)

    run_pieces(out, entry_bounds(layout), work, threads)


def trim_thresholds(
    member: torch.Tensor, *, seed: torch.Tensor, layout: Layout, density: float
) -> torch.Tensor:
    """Return the smallest magnitude of a delta that TIES keeps in each tensor.

    Float32 of shape [entries of the layout]: the k-th largest |member - seed| of the tensor,
    k = int(density * elements), at least 1. All else is trimmed.
    """
    kept = torch.empty(len(layout.entries), dtype=torch.float32)
    for place, entry in enumerate(layout.entries):
        part = slice(entry.offset, entry.offset + entry.numel)
        sizes = (member[part].cpu() - seed[part].cpu()).abs_().numpy()
        count = max(int(density * entry.numel), 1)
        rank = entry.numel - count
        kept[place] = float(np.partition(sizes, rank)[rank]) if rank else 0.0
    return kept


def _below(thresholds: torch.Tensor) -> list[float]:
    """Return the largest numbers below the thresholds: hardshrink keeps what is above them."""
    bound: list[float] = torch.nextafter(thresholds, torch.zeros_like(thresholds)).tolist()
    return bound
