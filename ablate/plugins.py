"""Resolve the name of a function: one of a known few, or a user's own `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from ablate.errors import StudyError, did_you_mean


def resolve(name: str, known: Mapping[str, Any], where: str) -> Any:
    """Return what `name` stands for.

    Raises StudyError when it is unknown, or when a user's module or function cannot be imported.
    """
    if name in known:
        return known[name]
    module_name, separator, attribute = name.partition(":")
    if not separator:
        raise StudyError(
            f"{where} must be one of {sorted(known)} or package.module:function, got '{name}'; "
            f"{did_you_mean(name, known)}"
        )
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise StudyError(
            f"{where} must name an importable function, got '{name}': {error}; is its folder on "
            "PYTHONPATH?"
        ) from error
    if not callable(found):
        raise StudyError(f"{where} must name a function, got '{name}', a {type(found).__name__}")
    return found
