"""A linear merge of the user's own that gets into trouble, in the way the environment says.

It runs in the evaluators, which find it as `tests.faults.troubled_merge:merge`.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ablate.merge.linear import linear

AFTER = 2  # merges that go well before
TROUBLE, ALWAYS, CALLS = "TROUBLE", "TROUBLE_ALWAYS", "TROUBLE_CALLS"


def merge(
    out: Tensor,
    members: Sequence[Tensor],
    weights: Sequence[float],
    *,
    threads: int = 1,
) -> None:
    """Write the linear merge; the third call, or from there on each one, gets into trouble."""
    linear(out, members, weights, threads=threads)
    if TROUBLE not in os.environ:
        return
    calls = Path(os.environ[CALLS])
    with calls.open("a") as stream:
        stream.write("x")
    number = calls.stat().st_size
    if number == AFTER + 1 or (ALWAYS in os.environ and number > AFTER):
        _get_into(os.environ[TROUBLE], out)


def _get_into(trouble: str, out: Tensor) -> None:
    if trouble == "raise":
        raise ValueError("a merge of the user's own went wrong")
    if trouble == "hang":
        time.sleep(3600)
    if trouble == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if trouble == "exit":
        os._exit(0)
    if trouble == "nan":
        out.fill_(torch.nan)
    if trouble == "memory":
        raise MemoryError
