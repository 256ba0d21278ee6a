"""Folders that are named like a verb of the Python API: `ablate.search` is a package and a call."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class VerbPackage(ModuleType):
    """A package that, when called, does what the function of its name in `ablate.engine` does."""

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the engine; torch and ray are imported only now."""
        verb = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("ablate.engine"), verb)(*args, **keywords)


def make_callable(package: str) -> None:
    """Let the package of that name be called."""
    sys.modules[package].__class__ = VerbPackage
