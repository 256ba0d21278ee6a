"""Documentation inside Python packages: docstrings, and the sessions that they show.

A docstring is split in two: its prose, and its interactive sessions (`>>>` with what follows, up
to the next blank line). The two never share a line.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Collection, Iterator
from itertools import islice

from ablate.corpus.embedded.documents import SHORTEST, Document, is_generated, pieces
from ablate.corpus.embedded.places import package_folder, texts

NUMERIC = ("numpy", "pandas", "scipy")
WEB = ("sqlalchemy", "aiohttp", "requests", "pydantic", "alembic", "urllib3", "huggingface_hub")
SESSIONS = ("sympy", "pandas", "networkx", "numpy")

_Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
_PROMPT = ">>>"
_OBJECTS_PER_FILE = 60
_QUOTES = '"""'
_CHARACTERS_PER_QUOTE = 1_000


def docstrings(packages: Collection[str], holding: str = "") -> Iterator[tuple[str, str]]:
    """Yield (file:object, docstring) of the packages; files are parsed, never imported.

    Files with little documentation, or without the text `holding`, are passed over.
    """
    for name, text in texts([package_folder(p) for p in packages], (".py",)):
        # Parsing takes most of the time: spend it where there is something to find.
        sparse = text.count(_QUOTES) * _CHARACTERS_PER_QUOTE < len(text)
        if sparse or holding not in text or is_generated(text):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # other people's escape sequences
                tree = ast.parse(text)
        except SyntaxError:
            continue
        found = (item for item in _documented(tree) if len(item[1]) >= SHORTEST)
        for owner, docstring in islice(found, _OBJECTS_PER_FILE):
            yield f"{name}:{owner}", docstring


def _documented(node: _Documented) -> Iterator[tuple[str, str]]:
    """Yield (name, docstring) of a module and of the classes and functions in its bodies."""
    if docstring := ast.get_docstring(node):
        yield getattr(node, "name", ""), docstring
    for child in node.body:
        if isinstance(child, _Documented):
            yield from _documented(child)


def split_sessions(docstring: str) -> tuple[str, str]:
    """Return (prose, sessions) of a docstring."""
    prose: list[str] = []
    sessions: list[str] = []
    inside = False
    for line in docstring.splitlines():
        was_inside = inside
        inside = line.lstrip().startswith(_PROMPT) or (inside and bool(line.strip()))
        if inside:
            sessions.append(line)
        elif was_inside:
            sessions.append("")
        else:
            prose.append(line.rstrip())
    return "\n".join(prose).strip(), "\n".join(sessions).strip("\n")


def prose_of(packages: Collection[str]) -> Iterator[Document]:
    """Yield the prose of the packages' docstrings."""
    for name, docstring in docstrings(packages):
        yield from pieces(name, split_sessions(docstring)[0])


def sessions_of(packages: Collection[str]) -> Iterator[Document]:
    """Yield the interactive sessions of the packages' docstrings."""
    for name, docstring in docstrings(packages, holding=_PROMPT):
        yield from pieces(name, split_sessions(docstring)[1])


def numeric_docs() -> Iterator[Document]:
    """Yield documentation of numeric libraries."""
    return prose_of(NUMERIC)


def web_docs() -> Iterator[Document]:
    """Yield documentation of web and SQL libraries."""
    return prose_of(WEB)


def sessions() -> Iterator[Document]:
    """Yield interactive sessions, mostly symbolic mathematics, tables and graphs."""
    return sessions_of(SESSIONS)
