"""What every pass of one making needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from ablate.corpus.scan import Piece
from ablate.study import Study

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Result = TypeVar("Result")


class MapTasks(Protocol):
    """Runs a function over items, perhaps in other processes."""

    def __call__(
        self,
        function: Callable[[Item, Shared], Result],
        items: Sequence[Item],
        shared: Shared,
        label: str,
    ) -> list[Result]:
        """Return `[function(item, shared) for item in items]`, in the order of the items."""
        ...


@dataclass(frozen=True, kw_only=True)
class Making:
    """One making of a corpus: finished files go to `folder/final`, laid out as in the workspace."""

    study: Study
    pieces: Sequence[Piece]
    folder: Path
    map_tasks: MapTasks

    def final(self, name: str) -> Path:
        """Return the folder, made if need be, of finished files that will be `corpus/name`."""
        path = self.folder / "final" / name
        path.mkdir(parents=True, exist_ok=True)
        return path
