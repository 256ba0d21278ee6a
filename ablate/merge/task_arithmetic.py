"""Task arithmetic: the seed plus a scaled weighted sum of the members' deltas."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ablate.merge.checks import require_vector
from ablate.merge.linear import linear

ROUNDING = 1e-12


def task_arithmetic(
    out: torch.Tensor,
    members: Sequence[torch.Tensor],
    weights: Sequence[float],
    *,
    seed: torch.Tensor,
    scale: float = 1.0,
    threads: int = 1,
) -> None:
    """Write theta_0 + scale * sum_k weights[k] * (members[k] - theta_0) into `out`.

    It is computed as a linear merge in which the seed takes 1 - scale * sum_k weights[k], in one
    pass. With weights that sum to one, scale 1 is the linear merge, bit for bit; scale n (the
    number of members) adds every delta whole. mergekit's `task_arithmetic` with lambda = scale.

    Helps when members have moved in different directions: their average has then travelled about
    1/n as far as a model trained on the whole mixture, and a scale between 1 and n puts the length
    back. Fit the scale on a few trained mixtures; too large a scale leaves the basin.

    Shapes, dtypes and errors as in `linear`; `seed` is a flat float32 vector. Source: Ilharco et
    al., arXiv 2212.04089, equation in section 2.
    """
    require_vector("seed", seed, out)
    shares = [scale * weight for weight in weights]
    rest = 1.0 - sum(shares)
    rest = 0.0 if abs(rest) < ROUNDING else rest
    linear(out, [seed, *members], [rest, *shares], threads=threads)
