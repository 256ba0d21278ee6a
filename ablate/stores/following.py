"""Files that other machines write, as they change in the store."""

from __future__ import annotations

from pathlib import Path

from ablate.stores.mirror import location
from ablate.stores.objects import Stat, objects_at


class Following:
    """The files `<prefix>*` of a mirror's folder that change in the store after this is made.

    They are copied to the folder `to`. A store that does not answer is a RunError.
    """

    def __init__(self, root: Path, folder: str, prefix: str, to: Path) -> None:
        self._objects = objects_at(location(root))
        self._folder, self._prefix, self._to = folder, f"{folder}/{prefix}", to
        self._seen = self._find()

    def bring(self) -> None:
        """Fetch what changed since the last call."""
        for name, stat in self._find().items():
            if self._seen.get(name) != stat:
                self._objects.download(name, self._to / Path(name).name)
                self._seen[name] = stat

    def _find(self) -> dict[str, Stat]:
        found = self._objects.find(self._folder)
        return {name: stat for name, stat in found.items() if name.startswith(self._prefix)}
