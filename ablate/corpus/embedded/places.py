"""Where the text of the embedded corpus lies: installed packages and the standard library.

Nothing is imported: packages are only located, and their files read as text.
"""

from __future__ import annotations

import os
import sysconfig
from collections.abc import Collection, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from ablate.corpus.embedded.documents import position
from ablate.errors import CorpusError

NOT_PROSE = frozenset(
    {
        "tests",
        "test",
        "testing",
        "_vendor",
        "vendor",
        "__pycache__",
        "site-packages",
        "node_modules",
    }
)


def package_folder(name: str) -> Path:
    """Return the folder of the installed package `name`, without importing it.

    Raises CorpusError when it is not installed.
    """
    spec = PathFinder.find_spec(name)
    folders = list(spec.submodule_search_locations or []) if spec else []
    if not folders:
        raise CorpusError(
            f"the embedded corpus must find the installed package '{name}', got none; "
            f"install it: pip install {name}"
        )
    return Path(folders[0])


def standard_library() -> Path:
    """Return the folder of Python's own sources.

    Raises CorpusError when this Python comes without them.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    if not (folder / "argparse.py").is_file():
        raise CorpusError(
            f"the embedded corpus must find the sources of Python's standard library, got none in "
            f"{folder}; use a Python that keeps its library as .py files"
        )
    return folder


def files(
    root: Path, suffixes: Collection[str], skip: Collection[str] = NOT_PROSE
) -> list[tuple[str, Path]]:
    """Return (name, path) of the files below `root`, names like `numpy/linalg/_linalg.py`.

    Folders named in `skip` are left out. The order is a fixed shuffle of the names, so that any
    first part of it is a fair sample.
    """
    found = []
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in skip]
        inside = Path(folder).relative_to(root)
        found += [
            (f"{root.name}/{(inside / name).as_posix()}", Path(folder) / name)
            for name in names
            if name.endswith(tuple(suffixes))
        ]
    return sorted(found, key=lambda item: position(item[0]))


def read_text(path: Path) -> str | None:
    """Return a file's text, or None when it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def texts(
    roots: Collection[Path], suffixes: Collection[str], skip: Collection[str] = NOT_PROSE
) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of the readable files of several roots, mixed in one fixed shuffle."""
    found = [item for root in roots for item in files(root, suffixes, skip)]
    for name, path in sorted(found, key=lambda item: position(item[0])):
        text = read_text(path)
        if text is not None:
            yield name, text
