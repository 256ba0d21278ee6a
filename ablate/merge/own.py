"""Merge functions of the user's own: what one leaves in `out` is a merge, or an error by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ablate.errors import OwnCodeError, RunError
from ablate.plugins import named_errors


def checked(name: str, function: Callable[..., Any]) -> Callable[..., None]:
    """Return the function with its work looked at: `out` holds what stood there before it.

    Raises OwnCodeError where it raises, and RunError where it returns something, changes the shape
    of `out`, or leaves elements of it unwritten or not finite: errors of one trial.
    """

    @functools.wraps(function)
    def merge(
        out: torch.Tensor, members: Sequence[torch.Tensor], weights: Sequence[float], **named: Any
    ) -> None:
        shape = out.shape
        out.fill_(torch.nan)
        with named_errors(f"merge method '{name}' must merge {len(members)} members", OwnCodeError):
            returned = function(out, members, weights, **named)
        if returned is not None and returned is not out:
            raise RunError(
                f"merge method '{name}' must write the merge into `out` and return None, got "
                f"a {type(returned).__name__}; write out.copy_(...)"
            )
        if out.shape != shape:
            raise RunError(
                f"merge method '{name}' must keep the shape of `out`, {list(shape)}, got "
                f"{list(out.shape)}; write into it"
            )
        left = int((~torch.isfinite(out)).sum())
        if left:
            raise RunError(
                f"merge method '{name}' must fill `out` with finite numbers, got {left:,} of "
                f"{out.numel():,} that are not, or were not written; mend it"
            )

    return merge
