"""Where the paths of a study lead: from its file's folder, from home after ~, or to the hub."""

from __future__ import annotations

import glob
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ablate.errors import StudyError
from ablate.settings import shortened
from ablate.source_names import is_glob, may_be_hub_id

LONGEST_NAME, LONGEST_PATH = 255, 3_072  # bytes


@dataclass(frozen=True)
class Places:
    """The paths of a study whose file stands in `folder`, made absolute; URIs stay.

    Every method raises StudyError for a path that no disk can hold.
    """

    folder: Path

    def rooted(self, path: str, escape: Callable[[str], str] = str) -> str:
        """Return a path from the folder, or from home after ~; `escape` what it starts with."""
        _require_names(path.removeprefix("file://"))
        if "://" in path or Path(path).is_absolute():
            return path
        folder, parts = self.folder, Path(path).parts
        if path.startswith("~"):
            folder, parts = Path(parts[0]).expanduser(), parts[1:]
        return str(Path(escape(str(folder)), *parts))

    def checkpoint(self, path: str) -> str:
        """Return a folder or file where there is one, or where none may be a hub id."""
        local = self.rooted(path)
        return path if may_be_hub_id(path) and not Path(local).exists() else local

    def texts(self, path: str) -> str:
        """Return a file, folder or glob, or a hub id as it stands."""
        if is_glob(path) and not Path(self.rooted(path)).exists():
            return self.rooted(path, escape=glob.escape)
        return self.checkpoint(path)

    def workspace(self, path: str) -> str:
        """Return the workspace's folder, its links followed."""
        if "://" in path:
            return path
        _require_names(path)
        return str((self.folder / Path(path).expanduser()).resolve())


def _require_names(path: str) -> None:
    """Refuse what no disk can hold: asking whether it is there would be an error of its own."""
    if "\0" in path:
        raise StudyError(f"a path must hold no NUL character, got {shortened(path)}; correct it")
    if _size(path) > LONGEST_PATH or any(_size(part) > LONGEST_NAME for part in Path(path).parts):
        raise StudyError(
            f"a path must have names of at most {LONGEST_NAME} bytes, {LONGEST_PATH:,} in all, got "
            f"{shortened(path)}; is it a text?"
        )


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
