"""Functions by name: one of a known few, or a user's own `package.module:function`."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ablate.errors import AblateError, StudyError, close_to, did_you_mean


@contextmanager
def named_errors(rule: str, kind: type[AblateError]) -> Iterator[None]:
    """Turn whatever a user's function raises inside into an error of `kind` that says the rule."""
    try:
        yield
    except Exception as error:  # a user's function may raise anything
        raise kind(f"{rule}, got {type(error).__name__}: {error}; mend it") from error


def resolve(
    name: str, known: Mapping[str, Any], where: str, *, others: Collection[str] = ()
) -> Any:
    """Return what `name` stands for; `others` may stand there too, and are not looked up here.

    Raises StudyError when it is unknown, or when a user's module or function cannot be imported.
    """
    if name in known:
        return known[name]
    module_name, separator, function_name = name.partition(":")
    if not separator:
        names = sorted({*known, *others})
        close = close_to(name, names)
        raise StudyError(
            f"{where} must be one of {', '.join(names)} or package.module:function, got '{name}'"
            + (f"; {close}" if close else "")
        )
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise StudyError(
            f"{where} must name a module that can be imported, got '{module_name}' ({error}); "
            "install it or mend PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if function is not None and not callable(function):
        raise StudyError(
            f"{where} must name a function of {module_name}, got '{function_name}', a "
            f"{type(function).__name__}; name a function"
        )
    if function is None:
        names = [item for item in dir(module) if not item.startswith("_")]
        raise StudyError(
            f"{where} must name a function of {module_name}, got '{function_name}'; "
            f"{did_you_mean(function_name, names)}"
        )
    return function
