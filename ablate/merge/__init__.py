"""Merge methods: pure functions on flat tensors, by name."""

from __future__ import annotations

from collections.abc import Callable

from ablate.merge.linear import linear
from ablate.plugins import resolve

METHODS: dict[str, Callable[..., None]] = {"linear": linear}


def resolve_method(name: str) -> Callable[..., None]:
    """Return the merge method called `name`, or the function at `package.module:function`.

    Raises StudyError when there is none.
    """
    found: Callable[..., None] = resolve(name, METHODS, "search.merge.method")
    return found
