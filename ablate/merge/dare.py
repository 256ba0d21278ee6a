"""DARE: drop deltas at random, rescale the rest, add them up."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ablate.merge.checks import require_deltas, require_each, require_shares
from ablate.merge.election import cast, elected, open_ballot
from ablate.merge.slices import Piece, cut, entry_bounds, run_pieces, scratch
from ablate.models.layout import Layout

DRAW = 1 << 20  # random numbers drawn at once; a multiple of the eight bits of a mask's byte


def dare(
    out: torch.Tensor,
    members: Sequence[torch.Tensor],
    weights: Sequence[float],
    *,
    seed: torch.Tensor,
    layout: Layout,
    identities: Sequence[str] | None = None,
    rng_seed: int = 0,
    density: float = 0.5,
    scale: float = 1.0,
    elect: bool = False,
    prepared: Sequence[np.ndarray] | None = None,
    threads: int = 1,
) -> None:
    """Write theta_0 + scale * sum_k weights[k] * m_k * (members[k] - theta_0) / density into `out`.

    m_k is 1 with probability `density` (1 - p of the paper), else 0, drawn for every parameter; the
    expectation over `rng_seed` is task arithmetic. With `elect` only the deltas of the sign with
    the larger weighted mass are summed (mergekit's `dare_ties`); without it, its `dare_linear`.
    mergekit rescales so that the sum of magnitudes of each tensor is kept (rescale: true), the
    paper and this function by 1 / density.

    The mask of a member depends on rng_seed, density, its identity (its fingerprint; its place when
    `identities` is None) and the tensor's name, never on the other members, threads or device: see
    `drop_masks`, which `prepared` holds for each member. Density 1 drops nothing: one member of
    weight 1 then gives that member, to rounding. Below it, one member gives its thinned self.

    Extra memory: a bit per parameter and member (1/32 of the members), and a few pieces.

    Helps as a way to thin members whose deltas are small and redundant (short fine-tuning), at
    densities down to 0.1. After continued pre-training deltas are larger and the noise it adds
    soon outweighs what it saves (the paper's own limit): prefer high densities, or linear.

    Shapes, dtypes as in `linear`; raises ValueError when they do not fit. Source: Yu et al.,
    arXiv 2311.03099, equation 1.
    """
    require_deltas(out, members, weights, seed, layout)
    require_each("identities", identities, members)
    require_each("prepared", prepared, members)
    if elect:
        require_shares(weights)
    names = identities if identities is not None else [str(k) for k in range(len(members))]

    def mask_of(place: int) -> np.ndarray:
        if prepared is not None:
            return prepared[place]
        return drop_masks(layout=layout, identity=names[place], rng_seed=rng_seed, density=density)

    terms = [
        _Term(
            member=member,
            share=float(weight) / density,
            bits=mask_of(place) if density < 1 else None,
        )
        for place, (member, weight) in enumerate(zip(members, weights, strict=True))
        if weight
    ]

    def work(run: Sequence[Piece]) -> None:
        keep, part, *buffers = scratch(out, run, 7)
        for piece in run:
            start = cut(seed, piece, out)
            delta, mask = part[: piece.numel], keep[: piece.numel]
            ballot = open_ballot([buffer[: piece.numel] for buffer in buffers])
            for term in terms:
                torch.sub(cut(term.member, piece, out), start, out=delta)
                if term.bits is not None:
                    delta.mul_(_unpack(term.bits, piece, mask))
                if elect:
                    cast(ballot, delta, term.share, count=False)
                else:
                    ballot.up.add_(delta, alpha=term.share)
            total = elected(ballot, mean=False) if elect else ballot.up
            out[piece.start : piece.stop] = total.mul_(scale).add_(start)

    run_pieces(out, entry_bounds(layout), work, threads)


@dataclass(frozen=True, kw_only=True)
class _Term:
    """One member, its weight over the density, and the bits of its mask (None: all is kept)."""

    member: torch.Tensor
    share: float
    bits: np.ndarray | None


def drop_masks(
    member: torch.Tensor | None = None,
    *,
    layout: Layout,
    identity: str,
    rng_seed: int,
    density: float,
) -> np.ndarray:
    """Return which parameters of one member DARE keeps, a bit each, uint8 of [numel / 8].

    The member itself is not looked at.

    Each (rng_seed, member's identity, tensor name) has its own Philox generator, keyed with their
    SHA-256; a parameter is kept when its 32 random bits are below density * 2^32. Padding between
    tensors is never kept. The same on every machine: NumPy promises the streams of its bit
    generators.
    """
    bits = np.zeros(layout.numel // 8, dtype=np.uint8)
    if density >= 1:
        return bits
    # A Python int, compared exactly: for a density just below 1 it is 2**32.
    limit = round(density * 2**32)
    for entry in layout.entries:
        name = f"{rng_seed}\0{identity}\0{entry.name}"
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
        stream = np.random.Philox(key=key)
        for start in range(0, entry.numel, DRAW):
            count = min(DRAW, entry.numel - start)
            numbers = stream.random_raw(-(-count // 2)).astype("<u8").view("<u4")[:count]
            packed = np.packbits(numbers < limit)
            first = (entry.offset + start) // 8
            bits[first : first + packed.size] = packed
    return bits


def _unpack(bits: np.ndarray, piece: Piece, keep: torch.Tensor) -> torch.Tensor:
    """Return the mask of a piece as 0.0 and 1.0, in `keep`."""
    flags = np.unpackbits(bits[piece.start // 8 : -(-piece.stop // 8)])
    return keep.copy_(torch.from_numpy(flags[: piece.numel]))
