"""The few words that the workers of one run exchange, beside gradients."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from ablate.errors import AblateError, RunError

Value = TypeVar("Value")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def rank() -> int:
    """Return this worker's number in its run, from 0."""
    return dist.get_rank()


def workers() -> int:
    """Return the workers of this run."""
    return dist.get_world_size()


def all_of(value: Value) -> list[Value]:
    """Return the `value` of every worker, by rank."""
    if workers() == 1:
        return [value]
    values: list[Value | None] = [None] * workers()
    dist.all_gather_object(values, value)
    return values  # type: ignore[return-value]


def tell(value: Any) -> Any:
    """Return worker 0's `value` on every worker."""
    if workers() == 1:
        return value
    box = [value if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_or_none(action: Callable[[], Value]) -> Value:
    """Return `action()`; when it raises an AblateError on one worker, raise it on every one.

    Without this a worker whose file is bad would leave the others waiting for it. A disk without
    room is a RunError: trying again would not help.
    """
    problem: AblateError | None = None
    value: Value | None = None
    try:
        value = action()
    except AblateError as error:
        problem = error
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        problem = RunError(
            f"a disk must have room for what is trained, got {error.strerror} at "
            f"{error.filename or 'a model'}; free some and run again, what is finished is kept"
        )
    problem = next((one for one in all_of(problem) if one is not None), None)
    if problem is not None:
        raise problem
    return value  # type: ignore[return-value]


def mean_and_signal(value: float, signal: int, device: torch.device) -> tuple[float, int]:
    """Return the workers' mean of `value`, and worker 0's `signal`, in one exchange."""
    if workers() == 1:
        return value, signal
    box = torch.tensor(
        [value / workers(), float(signal if rank() == 0 else 0)],
        dtype=torch.float64,
        device=device,
    )
    dist.all_reduce(box)
    mean, told = box.tolist()
    return mean, int(told)
