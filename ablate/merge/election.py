"""Election of signs among weighted deltas, one pass over the members (TIES, arXiv 2306.01708).

Positive and negative mass, and the weights behind each, are summed apart; the sign with more mass
wins. No member's delta is kept, so memory does not grow with the number of members.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Ballot:
    """Sums over members of one piece, all float32 [elements].

    `up` and `down` are sum w * max(delta, 0) and sum w * min(delta, 0); `up_weight` and
    `down_weight` the weights of the members with a positive and a negative delta. `spare` is a
    buffer.
    """

    up: torch.Tensor
    down: torch.Tensor
    up_weight: torch.Tensor
    down_weight: torch.Tensor
    spare: torch.Tensor


def open_ballot(buffers: Sequence[torch.Tensor]) -> Ballot:
    """Return a ballot of five buffers of one length, its sums zero."""
    up, down, up_weight, down_weight, spare = buffers
    for total in (up, down, up_weight, down_weight):
        total.zero_()
    return Ballot(up=up, down=down, up_weight=up_weight, down_weight=down_weight, spare=spare)


def cast(ballot: Ballot, delta: torch.Tensor, weight: float, *, count: bool) -> None:
    """Add one member's delta with its weight; `count` its weight too, where the mean is wanted."""
    spare = ballot.spare
    for bound, mass, behind in (
        (torch.clamp_min, ballot.up, ballot.up_weight),
        (torch.clamp_max, ballot.down, ballot.down_weight),
    ):
        mass.add_(bound(delta, 0.0, out=spare), alpha=weight)
        if count:
            sign = weight if mass is ballot.up else -weight
            behind.add_(torch.sign(spare, out=spare), alpha=sign)


def elected(ballot: Ballot, *, mean: bool) -> torch.Tensor:
    """Return the winning sign's mass, over its weight when `mean`; zero where no delta is left.

    The result stands in one of the ballot's buffers. A tie goes to the positive sign.
    """
    up, down = ballot.up, ballot.down
    # 1 where up wins, 0 where down does, by arithmetic: comparisons and `where` are many times slower
    # than that on the CPU.
    mask = torch.add(up, down, out=ballot.spare).sign_().add_(1.0).clamp_max_(1.0)
    _choose(up, down, mask)
    if mean:
        behind = ballot.up_weight
        _choose(behind, ballot.down_weight, mask)
        nobody = torch.sign(behind, out=mask).neg_().add_(1.0)
        up.div_(behind.add_(nobody))  # 0 / 1 where no delta is left
    return up


def _choose(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor) -> None:
    """Leave in `first` the values where mask is 1, and those of `second` where it is 0."""
    first.mul_(mask)
    second.addcmul_(second, mask, value=-1.0)
    first.add_(second)
