"""Merge methods: pure functions on flat tensors, by name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from ablate.errors import StudyError, did_you_mean
from ablate.merge.linear import linear

METHODS: dict[str, Callable[..., None]] = {"linear": linear}


def resolve_method(name: str) -> Callable[..., None]:
    """Return the merge method called `name`, or the function at `package.module:function`.

    Raises StudyError when there is none.
    """
    if name in METHODS:
        return METHODS[name]
    module_name, separator, function_name = name.partition(":")
    if not separator:
        raise StudyError(
            f"search.merge.method must be a merge method or package.module:function, got "
            f"'{name}'; {did_you_mean(name, METHODS)}"
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise StudyError(
            f"search.merge.method must name a module that can be imported, got '{module_name}' "
            f"({error}); install it or mend PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise StudyError(
            f"search.merge.method must name a function of {module_name}, got '{function_name}'; "
            f"{did_you_mean(function_name, [n for n in dir(module) if not n.startswith('_')])}"
        )
    return function  # type: ignore[no-any-return]
